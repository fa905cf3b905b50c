"""The help of the command line: groups in the order of need, 80 columns, no colour in a pipe; and what it costs to start."""

import os
import pty
import re
import subprocess
import sys

import pytest
from typer.main import get_command

from rnnbench.cli.main import application

PANELS = {
    "Check and measure": ["check", "run", "latency"],
    "Train": ["train", "tune", "sample", "study"],
    "Read results": ["report", "show", "compare", "best", "versus", "export", "merge"],
    "About": ["backends", "suites", "machine", "warm", "template"],
    "CUDA kernels and self-tests": ["gpu", "cuda-audit", "cuda-warm", "self-test"],
}

COMMANDS = [name for names in PANELS.values() for name in names]


def python(*arguments: str, **environment: str) -> str:
    """What a process prints whose output is no terminal."""
    bare = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "FORCE_COLOR", "GITHUB_ACTIONS")}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=bare | environment)
    assert done.stderr == ""
    return done.stdout


def rnnbench_(*arguments: str, flags: tuple[str, ...] = (), **environment: str) -> str:
    return python(*flags, "-m", "rnnbench", *arguments, **environment)


PAGES = ["", *COMMANDS, "self-test aa", "bars"]

PRINT = """
import sys
from rnnbench.cli.main import main
for name in sys.argv[1:]:
    main([*name.split(), "--help"])
    print("\\f")
"""


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """The help of each command."""
    return dict(zip(PAGES, python("-c", PRINT, *PAGES).split("\f\n"), strict=False))


def test_help_groups_commands_in_the_order_in_which_they_are_needed(pages):
    found: dict[str, list[str]] = {}
    for line in pages[""].splitlines():
        if title := re.match(r"╭─ (.+?) ─", line):
            found[title[1]] = []
        elif name := re.match(r"│ ([a-z]\S*) ", line):
            found[list(found)[-1]].append(name[1])
    assert {title: names for title, names in found.items() if title != "Options"} == PANELS


@pytest.mark.parametrize("name", PAGES)
def test_help_fits_80_columns_and_has_no_colour_in_a_pipe(pages, name):
    text = pages[name]
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert text.splitlines()[1].startswith(f" Usage: {f'rnnbench {name}'.strip()} ")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command_has_an_example_and_says_what_each_option_is_for(name):
    command = get_command(application()).commands[name]
    examples = [command, *getattr(command, "commands", {}).values()][-1].help.partition("Examples:\n")[2].splitlines()
    assert examples
    assert [line for line in examples if not line.startswith("$ rnnbench ")] == []
    assert [parameter.name for parameter in command.params if not parameter.help] == []


def test_every_example_is_a_command_line_that_reads():
    """Each is parsed, not run."""
    commands = get_command(application()).commands
    for name in (name for name in COMMANDS if name != "self-test"):
        for line in commands[name].help.partition("Examples:\n")[2].splitlines():
            _, _, verb, *given = line.replace('"lstm step"', "lstm_step").partition(">")[0].split()
            commands[verb].make_context(verb, given)


def test_help_has_colour_on_a_terminal():
    shown = on_a_terminal("--help")
    assert "\x1b[" in shown
    assert "Check and measure" in shown


def on_a_terminal(*arguments: str) -> str:
    read_end, write_end = pty.openpty()
    with os.fdopen(read_end, "rb", buffering=0) as terminal:
        environment = os.environ | {"TERM": "xterm"}
        environment.pop("NO_COLOR", None)
        command = [sys.executable, "-m", "rnnbench", *arguments]
        with subprocess.Popen(command, stdin=write_end, stdout=write_end, stderr=write_end, env=environment) as process:
            os.close(write_end)
            said = b""
            while True:
                try:
                    said += terminal.read(4096) or b""
                except OSError:  # the other end is closed
                    break
        assert process.returncode == 0
    return said.decode()


def test_boxes_are_ascii_where_the_encoding_has_no_others():
    text = rnnbench_("--help", PYTHONIOENCODING="ascii")
    assert text.isascii()
    assert "\\u" not in text
    assert "+- Check and measure -" in text


def test_help_without_docstrings_still_lists_every_command():
    text = rnnbench_("--help", flags=("-OO",))
    assert all(re.search(rf"^│ {name} ", text, re.MULTILINE) for name in COMMANDS)


def test_bars_is_still_a_command_though_help_names_it_no_more(pages):
    assert "bars" not in pages[""]
    assert pages["bars"] == pages["versus"].replace("Usage: rnnbench versus ", "Usage: rnnbench bars ")


# what a start costs

LIBRARIES = {"numpy", "numba", "torch", "scipy", "pandas", "altair", "msgspec", "psutil", "ml_dtypes"}


def imported(*arguments: str) -> set[str]:
    source = (
        "import sys\nfrom rnnbench.cli.main import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", source, *arguments], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


def test_the_version_is_told_without_any_library_but_typer():
    modules = imported("--version")
    assert "typer" in modules
    assert modules & (LIBRARIES | {"rich", "pydantic"}) == set()


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["train", "--help"]], ids=" ".join)
def test_help_is_shown_without_any_library_that_computes(arguments):
    assert imported(*arguments) & LIBRARIES == set()
