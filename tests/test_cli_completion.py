"""Completion in real shells: commands, options, and the names that options take; found without importing a library."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rnnbench.networks.cells import CELLS
from rnnbench.networks.names import CHOOSERS, DTYPES, GROUP, PEERS
from rnnbench.networks.registry import registered
from rnnbench.suite.suite import suite_names
from rnnbench.training.names import TASKS


@pytest.fixture
def program(tmp_path) -> dict[str, str]:
    """An environment in which the shell finds ``rnnbench``, and a home of its own."""
    path = tmp_path / "bin" / "rnnbench"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rnnbench "$@"\n')
    path.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    return {**os.environ, "PATH": f"{path.parent}:{os.environ['PATH']}", "HOME": str(home)}


def shell(name: str, script: str, environment: dict[str, str]) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed here")
    options = ["--norc"] if name == "bash" else ["-f"]
    done = subprocess.run([name, *options, "-c", script], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_bash(line: str, environment: dict[str, str]) -> list[str]:
    """What bash would offer for the last word of a line."""
    words = line.split(" ")
    script = (
        'eval "$(_RNNBENCH_COMPLETE=source_bash rnnbench)"\n'
        f"COMP_WORDS=({' '.join(words[:-1])} '{words[-1]}'); COMP_CWORD={len(words) - 1}\n"
        '_rnnbench_completion rnnbench; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    return shell("bash", script, environment).split()


BACKENDS = sorted(registered(GROUP, PEERS, CHOOSERS))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("rnnbench ch", ["check"]),
        ("rnnbench check ", BACKENDS),
        ("rnnbench check numpy", ["numpy_ref"]),
        ("rnnbench check numpy_ref nothing", []),
        ("rnnbench check --cell ", list(CELLS)),
        ("rnnbench check --dtype ", list(DTYPES)),
        ("rnnbench check --level ", ["smoke", "standard", "full"]),
        ("rnnbench check --grad", ["--gradients-only"]),
        ("rnnbench run ", suite_names()),
        ("rnnbench run quick --backends numpy_ref,torch_n", ["numpy_ref,torch_nn", "numpy_ref,torch_nn_numpy"]),
        ("rnnbench run quick --backends numpy_ref,numpy", []),
        ("rnnbench run --input ", ["text", "noise"]),
        ("rnnbench train ", list(TASKS)),
        ("rnnbench train lm --backend numpy", ["numpy_ref"]),
        ("rnnbench sample --te", ["--temperature"]),
        ("rnnbench suites deep", [name for name in suite_names() if name.startswith("deep")]),
        ("rnnbench compare --backends numba_cpu numpy", ["numpy_ref"]),
        ("rnnbench report --format ", ["html", "md", "csv", "json"]),
        ("rnnbench export p", ["parquet", "pyperf"]),
        ("rnnbench best --phase ", ["forward", "step"]),
        ("rnnbench self-test s", ["statistics", "store", "siblings"]),
        ("rnnbench cuda-warm --for first", ["first-run"]),
    ],
)
def test_bash_is_offered_the_names_that_fit(program, line, offered):
    assert in_bash(line, program) == offered


@pytest.mark.parametrize(
    ("line", "offered"),
    [("rnnbench check numpy", "numpy_ref"), ("rnnbench run --input te", "text"), ("rnnbench ver", "versus")],
)
def test_zsh_is_offered_the_names_that_fit(program, line, offered):
    script = (
        "compdef() { }; _arguments() { print -r -- $1 }; _files() { print files }\n"
        'eval "$(_RNNBENCH_COMPLETE=source_zsh rnnbench)"\n'
        f"words=({line}); CURRENT={len(line.split(' '))}; _rnnbench_completion"
    )
    said = shell("zsh", script, program)
    assert said.startswith(f'*: :(("{offered}"')
    assert said.count('"\n"') == 0


PATIENCE = 600.0
"""Seconds for a shell to answer: reached by one that never does, even on a busy machine."""

IN_A_TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"


@pytest.mark.parametrize(
    ("shell", "setup"),
    [
        ("bash --norc -i", 'eval "$(_RNNBENCH_COMPLETE=source_bash rnnbench)"'),
        ("zsh -f -i", 'autoload -Uz compinit; compinit -u -D; eval "$(_RNNBENCH_COMPLETE=source_zsh rnnbench)"'),
    ],
    ids=["bash", "zsh"],
)
def test_the_tab_key_completes_a_name(program, shell, setup):
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"{shell.split()[0]} is not installed here")
    command = [sys.executable, "-c", IN_A_TERMINAL, *shell.split()]
    environment = program | {"TERM": "dumb"}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        too_long = threading.Timer(PATIENCE, process.kill)
        too_long.start()
        said = b""
        for typed, answer in ((f"{setup}; echo rea''dy\n", b"ready"), ("rnnbench check nump\t", b"numpy_ref")):
            process.stdin.write(typed.encode())
            while answer not in said:
                some = process.stdout.read(4096)
                assert some, said
                said += some
        process.stdin.write(b"\x15exit\n")  # an empty line, and the end
        process.stdin.close()
        process.stdout.read()
        too_long.cancel()


def test_completion_can_be_installed(program):
    shell("bash", "rnnbench --install-completion; true", program)
    path = Path(program["HOME"], ".bash_completions", "rnnbench.sh")
    assert str(path) in Path(program["HOME"], ".bashrc").read_text()
    script = (
        'source "$HOME/.bash_completions/rnnbench.sh"; COMP_WORDS=(rnnbench ru); COMP_CWORD=1\n'
        '_rnnbench_completion rnnbench; echo "${COMPREPLY[@]}"'
    )
    assert shell("bash", script, program) == "run\n"


def test_names_are_completed_without_importing_a_library(program):
    source = (
        "import sys\nfrom rnnbench.cli.main import main\ntry:\n    main()\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    for words, number in (("rnnbench check ", 2), ("rnnbench run ", 2), ("rnnbench train ", 2), ("rnnbench check --dtype ", 3)):
        asked = {"_RNNBENCH_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
        done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True, env=program | asked)
        assert done.stdout
        modules = done.stderr.splitlines()[-1].split()
        assert {"numpy", "numba", "torch", "jax", "scipy", "pandas", "msgspec"} & set(modules) == set()
