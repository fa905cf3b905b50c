"""``rnnbench best``: every backend with its time, the choice and why, and what is said where there is none.

Takes 10 s, most of it two runs of real worker processes.
"""

from pathlib import Path

import pytest
from helpers import stored_results
from helpers.two_backends import CASE, measurements, shape, two_backends
from helpers.wrapped_reference import backend_file

from rnnbench.networks.spec import DTYPES
from rnnbench.results.reader import read
from rnnbench.results.rows import Failure, Gate
from rnnbench.suite.case import Case

ASKED = ["best", "--cell", "lstm", "-T", "64", "-B", "8", "-H", "64"]


def results(times, others=()) -> Path:
    folder = Path("results/here")
    folder.mkdir(parents=True)
    return stored_results.write(folder / "run.jsonl", times, others)


def test_best_prints_every_backend_fastest_first_then_the_choice_and_why(command):
    failed = Failure(CASE, "slow", "time", "timeout", "no answer within 120 s", 0)
    results({("b", CASE): [2e-3] * 6, ("a", CASE): [1e-3] * 6}, (failed,))
    code, text, stderr = command(*ASKED)
    assert (code, stderr) == (0, "")
    assert text.splitlines() == [
        "lstm step T64 B8 I64 H64",
        "backend  expected  interval      from",
        "a        1 ms      1 ms to 1 ms  measured, 6 rounds of run",
        "b        2 ms      2 ms to 2 ms  measured, 6 rounds of run",
        "slow     -         -             not chosen: timeout: no answer within 120 s",
        "best: a",
        "a takes 1 ms (1 ms to 1 ms; measured, 6 rounds of run), 2.00 times as fast as b (measured).",
    ]


def test_every_option_is_part_of_the_case(command):
    case = Case("elman", "forward", 64, 8, 3, 64, 2, True, "relu", False, dtype="float64", threads=2)
    results({("a", case): 1.0})
    options = "-I 3 --phase forward --layers 2 --bidirectional --nonlinearity relu --no-bias --dtype float64 --threads 2"
    code, text, _ = command("best", "--cell", "elman", *ASKED[3:], *options.split())
    assert code == 0
    assert text.splitlines()[0] == case.label()
    assert "measured, 1 round of run" in text


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_can_be_asked_for(command, dtype):
    case = shape(dtype=dtype)
    results({("a", case): 1.0})
    assert command(*ASKED, "--dtype", dtype)[1].splitlines()[0] == case.label()


@pytest.mark.parametrize("folder", [None, "results", "other"])
def test_without_results_that_serve_the_way_is_told_and_the_exit_code_is_4(command, folder):
    if folder == "results":
        results({("a", shape(threads=2)): 1.0})
    if folder == "other":
        Path("other").mkdir()
    code, text, stderr = command(*ASKED, *(["--results", folder] if folder == "other" else []))
    assert (code, text) == (4, "")
    (line,) = stderr.splitlines()
    assert line.startswith("rnnbench: no results")
    if folder != "other":
        assert "lstm step T64 B8 I64 H64: add --measure to measure it now, or measure a suite first" in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["best"], "--cell, -T, -B, -H missing; expected --cell, -T, -B, -H, or --regret RESULTS"),
        (["best", "--cell", "lstm", "-B", "8", "-H", "64"], "-T missing"),
        ([*ASKED, "-T", "0"], "'0' is out of range; expected more than 0"),
        ([*ASKED, "--cell", "ltsm"], "cell is 'ltsm'; expected one of elman"),
        ([*ASKED, "--nonlinearity", "relu"], "nonlinearity is 'relu'; expected tanh for lstm"),
        ([*ASKED, "--phase", "tbptt"], "invalid choice: 'tbptt'"),
        ([*ASKED, "--backends", "numba_cpu"], "--backends is 'numba_cpu' without --measure; expected both"),
        ([*ASKED, "--measure", "--backends", "nope"], "unknown backend 'nope'"),
        (["best", "--regret", "results", "-T", "5"], "-T is 5 with --regret; expected none"),
        (["best", "--regret", "results", "--no-bias"], "--no-bias is True with --regret; expected none"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_one_line_and_exit_code_2(command, arguments, said):
    code, text, stderr = command(*arguments)
    assert (code, text) == (2, "")
    (line,) = stderr.splitlines()
    assert line.startswith("rnnbench: ")
    assert said in line


def test_with_measure_the_case_is_run_and_stored_and_answers(command, tmp_path):
    """The run is a run like any other: gated, with the settings of --quick, beside earlier results."""
    mine = backend_file(tmp_path / "mine.py")
    asked = ["best", "--cell", "elman", "-T", "3", "-B", "2", "-H", "3", "--measure", "--backends", f"numpy_ref,{mine}"]
    code, text, stderr = command(*asked, "--results", "out")
    assert code == 0
    assert [line for line in stderr.splitlines() if not line.startswith("measuring ")] == []
    (path,) = Path("out").rglob("*.jsonl")
    contents = read(path)
    assert contents.run.cases == [Case("elman", "step", 3, 2, 3, 3)]
    assert contents.run.settings["rounds"] == 5
    assert {row.backend for row in contents.rows if isinstance(row, Gate) and row.passed} == {"numpy_ref", mine}
    assert text.count(f"measured, 5 rounds of {path.stem}\n") == 2
    assert command(*asked[:-3], "--results", "out")[1] == text


def test_a_backend_that_fails_while_it_is_measured_is_named_and_the_exit_code_is_3(command, tmp_path):
    wrong = backend_file(tmp_path / "wrong.py", "def forward(self, x, state=None):\n    raise ValueError('not today')\n")
    asked = ["best", "--cell", "elman", "-T", "3", "-B", "2", "-H", "3", "--phase", "forward", "--measure"]
    code, text, _ = command(*asked, "--backends", f"numpy_ref,{wrong}")
    assert code == 3
    assert "best: numpy_ref\n" in text
    assert "not chosen: error: ValueError: not today" in text


def test_the_regret_is_printed(command):
    path = results(two_backends())
    code, text, stderr = command("best", "--regret", str(path))
    assert (code, stderr) == (0, "")
    lines = text.splitlines()
    assert lines[0].startswith("27 shapes, each left out and chosen for from the others")
    assert [line.split()[0] for line in lines[1:4]] == ["geometric", "worst", "within"]
    assert " instead of " in lines[2]
    assert command("best", "--regret", "results")[1] == text
    assert command("best", "--regret", "nope")[0] == 4


def test_lines_that_do_not_read_are_told_on_standard_error(command):
    path = results({("a", CASE): 1.0})
    with path.open("a") as file:
        file.write("nonsense\n")
    code, text, stderr = command(*ASKED)
    assert code == 0
    assert "best: a" in text
    assert stderr.startswith(f"rnnbench: {path.name}:3: not a row")


# devices


@pytest.mark.parametrize("device", ["a GPU", "cpu"])
def test_a_choice_between_devices_says_so(tmp_path, command, device):
    times = {("here", CASE): [2e-3] * 6, ("there", CASE): [1e-3] * 6}
    found = measurements(tmp_path, times, about={"there": {"device": device}})
    choice = found.choose(CASE)
    assert {prediction.backend: prediction.device for prediction in choice.predictions} == {"here": "cpu", "there": device}
    across = device != "cpu"
    assert ("there on a GPU takes " in choice.why, "as fast as here on cpu" in choice.why) == (across, across)
    elsewhere = shape(T=128)
    assert {prediction.device for prediction in found.predictions(elsewhere)[0]} == {"cpu", device}
    sizes = ("-T", "64", "-B", "8", "-H", "64")
    code, out, _ = command("best", "--cell", "lstm", *sizes, "--results", str(tmp_path / "run.jsonl"))
    assert code == 0
    assert ("there on a GPU  " in out) == across
