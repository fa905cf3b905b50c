"""What reaches a terminal: no control character of a file, text in any encoding, and one line where nothing can be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import synthetic_results
from helpers.stored_results import write

import rnnbench.processes.platforms
from rnnbench.machine.facts import machine_name
from rnnbench.results.rows import Failure
from rnnbench.suite.case import Case

STEERING = "\x1b[31mred\x1b]0;title\x07\x9b2J\x7f\u202e\r\ntwo"

GOOD = Case("lstm", "step", 16, 4, 8, 8)
BAD = Case(f"lstm{STEERING}", "step", 16, 4, 8, 8)


def rnnbench_(*arguments: object, flags: tuple[str, ...] = (), **more) -> subprocess.CompletedProcess:
    command = [sys.executable, *flags, "-m", "rnnbench", *map(str, arguments)]
    return subprocess.run(command, **{"capture_output": True, "check": False, "timeout": 1800} | more)


@pytest.fixture
def steering(tmp_path) -> Path:
    """Two runs of this machine, in which a backend, a case, a suite, a version and a failure steer a terminal."""
    folder = tmp_path / "steering"
    for name, factor in (("a", 1.0), ("b", 1.5)):
        times: dict[tuple[str, Case], float | list[float]] = {
            (backend, case): [factor * seconds + 1e-4 * number for number in range(12)]
            for case in (GOOD, BAD)
            for backend, seconds in (("numpy_ref", 0.2), (f"other{STEERING}", 0.1))
        }
        failure = Failure(GOOD, f"third{STEERING}", "time", "error", STEERING)
        facts = {"cpu": f"cpu{STEERING}", "os": STEERING, "versions": {STEERING: STEERING}}
        folder.mkdir(exist_ok=True)
        write(folder / f"{name}.jsonl", times, (failure,), machine=machine_name(), environment=facts, commit=name * 40)
    with (folder / "a.jsonl").open("ab") as file:
        file.write(f'{{"kind": "{STEERING}"}}\n'.encode())
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        "show {0}",
        "best --cell lstm -T 16 -B 4 -I 8 -H 8 --results {0}",
        "best --regret {0}/a.jsonl",
        "compare {0}/a.jsonl {0}/b.jsonl",
        "compare {0}/a.jsonl --backends numpy_ref OTHER",
        "merge {0}/a.jsonl {0}/b.jsonl -o {0}/merged",
        "bars {0}/a.jsonl --backend numpy_ref",
        "report {0}/a.jsonl --charts {0}/charts",
        "report {0}/a.jsonl --format md",
        "report {0}/a.jsonl --format csv",
        "export csv {0} -o {0}/out.csv",
        "export pyperf {0}/a.jsonl",
        "export bencher {0}/a.jsonl",
    ],
)
def test_no_control_character_of_a_file_reaches_a_terminal(command, steering, arguments):
    words = [word.format(steering).replace("OTHER", f"other{STEERING}") for word in arguments.split()]
    code, out, err = command(*words)
    assert code in (0, 2, 4), err
    assert out or err
    assert [line for line in (out + err).split("\n") if not line.isprintable()] == []


def test_a_terminal_gets_a_document_without_control_characters(steering):
    """What goes to a file as it is."""
    script = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) != 0)"
    command = [sys.executable, "-c", script, sys.executable, "-m", "rnnbench", "export", "csv", str(steering / "a.jsonl")]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=1800)
    assert b"lstm\\x1b[31mred" in done.stdout
    assert b"\x1b" not in done.stdout
    piped = rnnbench_("export", "csv", steering / "a.jsonl").stdout
    assert STEERING.replace("\r\n", "\n").encode() in piped.replace(b"\r\n", b"\n")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    return synthetic_results.write(tmp_path_factory.mktemp("results") / "run.jsonl", rounds=1)


@pytest.mark.parametrize("encoding", ["ascii", "cp932"])
@pytest.mark.parametrize("arguments", ["show", "suites"])
def test_text_is_shown_in_any_encoding(results, encoding, arguments):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = rnnbench_(arguments, *([results] if arguments == "show" else []), env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode(encoding)


def test_a_document_is_utf_8_whatever_the_terminal_has(results):
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = rnnbench_("report", "--format", "md", results, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "×" in done.stdout.decode("utf-8")  # noqa: RUF001  # the multiplication sign
    assert done.stdout == rnnbench_("report", "--format", "md", results).stdout


def test_a_report_that_needs_docstrings_says_so(results):
    done = rnnbench_("report", results, "--format", "md", flags=("-OO",), text=True)
    said = "rnnbench: this report needs Altair, which reads its own docstrings: run Python without -OO\n"
    assert (done.returncode, done.stdout, done.stderr) == (4, "", said)


@pytest.mark.parametrize("arguments", [["--help"], ["suites"], ["check", "--help"], ["show"]], ids=" ".join)
def test_help_lists_and_tables_need_no_docstrings(arguments, results):
    done = rnnbench_(*arguments, *([results] if arguments == ["show"] else []), flags=("-OO",))
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["suites"], ["--help"], ["--version"], ["suites", "deepbench-train"]], ids=" ".join)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_an_output_that_is_full_is_one_line_and_exit_code_4(arguments):
    with Path("/dev/full").open("wb") as full:
        done = rnnbench_(*arguments, stdout=full, capture_output=False, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (4, "rnnbench: cannot write to standard output: No space left on device\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_standard_error_does_not_end_a_command(tmp_path):
    with Path("/dev/full").open("wb") as full:
        done = rnnbench_("show", tmp_path / "absent", stderr=full, capture_output=False, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (4, b"")


def test_a_closed_output_is_refused_before_any_work(tmp_path):
    """Else the first file that is opened gets its number, and what a library prints goes into it."""
    script = 'exec "$0" -m rnnbench run quick -o "$1" >&-'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, str(tmp_path / "results")], stderr=subprocess.PIPE, text=True, check=False
    )
    said = "rnnbench: standard output is closed; expected one to write to, such as /dev/null\n"
    assert (done.returncode, done.stderr) == (4, said)
    assert not (tmp_path / "results").exists()


def test_with_a_closed_standard_error_nothing_is_told_on_standard_output(tmp_path):
    script = 'exec "$0" -m rnnbench show "$1" 2>&-'
    done = subprocess.run(["sh", "-c", script, sys.executable, str(tmp_path)], stdout=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stdout) == (4, "")


@pytest.mark.parametrize("system", ["win32", "emscripten"])
def test_another_system_is_refused_with_those_that_are_supported(command, monkeypatch, system):
    monkeypatch.setattr(rnnbench.processes.platforms, "sys", type("sys", (), {"platform": system}))
    code, out, err = command("suites")
    assert (code, out) == (4, "")
    assert err.startswith(f"rnnbench: this system is {system}; expected Linux or macOS: ")
