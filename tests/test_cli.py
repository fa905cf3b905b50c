"""The command line: its exit codes, and one line for whatever a user did wrong.  Takes 5 s."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.command_lines import assert_one_line, in_a_process, tiny_suite

import rnnbench
from rnnbench.networks.cells import CELLS


@pytest.fixture
def tiny(tmp_path) -> str:
    return tiny_suite(tmp_path)


# what a user did wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "missing command; see rnnbench --help"),
        (["bench"], "unknown command 'bench'; expected check, run, latency, train, tune, sample, study, report, show, "),
        (["run", "--fast"], "no such option: --fast"),
        (["run", "--rounds"], "option '--rounds' requires an argument; see rnnbench run --help"),
        (["run", "--rounds", "0"], "'0' is out of range; expected more than 0"),
        (["run", "--rounds", "some"], "'some' is no int"),
        (["run", "--rounds", "2.5"], "'2.5' is no int"),
        (["run", "--seed", "-1"], "'-1' is out of range; expected 0 or more"),
        (["run", "--time-limit", "nan"], "'nan' is out of range"),
        (["run", "--time-limit", "inf"], "'inf' is out of range"),
        (["run", "--input", "pictures"], "invalid choice: 'pictures'"),
        (["run", "nope"], "unknown suite 'nope'; known are "),
        (["run", "nope.toml"], "cannot read nope.toml: No such file or directory"),
        (["run", "--backends", "nope"], "unknown backend 'nope'; registered are "),
        (["run", "--backends", "numpy_ref,"], "unknown backend ''"),
        (["run", "--backends", "nope.py"], "no file 'nope.py'"),
        (["run", "--text", "nope.txt"], "cannot read the text 'nope.txt': No such file or directory"),
        (["run", "--text", "nope.txt", "--input", "noise"], "--text is 'nope.txt' with --input noise; expected one of both"),
        (["run", "quick", "--resume", "a.jsonl"], "suite is 'quick' with --resume; expected none"),
        (["suites", "nope"], "unknown suite 'nope'"),
        (["check", "nope"], "unknown backend 'nope'; registered are "),
        (["check", "nope.py"], "no file 'nope.py'; expected a registered backend or the path of a module"),
        (["check", "numpy_ref", "--cell", "ltsm"], f"unknown cell 'ltsm'; expected {', '.join(CELLS)}"),
        (["check", "--device", "tpu"], "invalid choice: 'tpu'"),
        (["check", "--level", "most"], "invalid choice: 'most'"),
        (["check", "--random", "0"], "'0' is out of range; expected more than 0"),
        (["check", "--time-limit", "never"], "'never' is no float"),
        (["check", "--seed", "1"], "--seed is 1 without --random; expected both"),
        (["check", "--device", "simulator", "--level", "full"], "level is 'full' for the simulator"),
        (["check", "--device", "simulator", "--random", "3"], "--random is 3 with --device simulator; expected none"),
        (["check", "--self-test", "numpy_ref"], "the backend is ['numpy_ref'] with --self-test; expected none"),
        (["check", "--self-test", "--level", "full"], "--level is 'full' with --self-test; expected none"),
        (["check", "--self-test", "--json"], "--json is True with --self-test; expected none"),
        (["report"], "expected either a results file or --asv DIR"),
        (["report", "a.jsonl", "--asv", "b"], "expected either a results file or --asv DIR"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_slip_is_one_line_and_exit_code_2(command, arguments, said):
    assert_one_line(command(*arguments), 2, said)


@pytest.mark.parametrize(
    "option",
    [
        "--rounds 3",
        "--backends numpy_ref",
        "--quick",
        "--rigorous",
        "--input noise",
        "--seed 1",
        "--time-limit 3",
        "--text a.txt",
        "-o other",
        "--filter H4",
        "--threads 1",
        "--fit 1m",
        "--affinity 0",
        "--dry-run",
    ],
)
def test_an_option_that_a_resumed_run_would_pass_over_is_refused(command, option):
    result = command("run", "--resume", "a.jsonl", *option.split())
    assert_one_line(result, 2, "with --resume")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--resume", "nope.jsonl"], "cannot read nope.jsonl: No such file or directory"),
        (["run", "--resume", "."], "cannot read .: Is a directory"),
        (["report", "nope"], "no results at nope; expected a .jsonl file, or a folder that holds some"),
        (["report", "."], "no results at .; expected a .jsonl file, or a folder that holds some"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_file_that_is_not_there_is_one_line_and_exit_code_4(command, arguments, said):
    assert_one_line(command(*arguments), 4, said)


def test_a_results_folder_that_cannot_be_made_is_one_line_and_exit_code_4(command, tiny):
    Path("results").write_text("a file")
    assert_one_line(command("run", tiny, "--backends", "numpy_ref"), 4, "cannot write results/", ": Not a directory")


def test_a_backend_that_cannot_run_here_is_one_line_that_says_why(command):
    unavailable = [entry for entry in rnnbench.backends() if not entry.available]
    if not unavailable:
        pytest.skip("every registered backend can run here")
    name = unavailable[0].name
    assert_one_line(command("check", name), 4, name)
    assert_one_line(command("run", "--backends", name), 2, name)


@pytest.mark.parametrize("verb", ["check", "run"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def load(:", "SyntaxError"),
        ("import a_library_that_is_not_installed", "a_library_that_is_not_installed"),
        ("raise RuntimeError('no device')", "no device"),
        ("load = print", "is not a backend: it lacks asarray, to_numpy, synchronize, supports, info"),
    ],
    ids=["syntax", "import", "raises", "lacks"],
)
def test_a_file_that_is_no_backend_is_one_line(command, tmp_path, verb, source, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    result = command("check", str(path)) if verb == "check" else command("run", "quick", "--backends", str(path))
    assert result[0] in (2, 4)
    assert_one_line(result, result[0], str(path), said)


@pytest.mark.parametrize("name", ["run", "check"])
def test_a_variable_that_is_not_set_is_refused_before_anything_starts(command, monkeypatch, name):
    monkeypatch.delenv("A_BACKEND_S_OWN", raising=False)
    code, out, err = command(name, "--env", "PATH", "--env", "A_BACKEND_S_OWN")
    assert (code, out) == (2, "")
    assert err == "rnnbench: --env is 'A_BACKEND_S_OWN'; expected the name of a variable that is set\n"


def test_a_number_of_threads_is_no_variable_to_pass_on(command):
    code, _, err = command("run", "--env", "OMP_NUM_THREADS")
    assert code == 2
    assert "--env is 'OMP_NUM_THREADS'; expected another variable: each case sets its number of threads" in err


# as a process


def test_python_m_rnnbench_is_the_command_line(tmp_path):
    done = in_a_process("-m", "rnnbench", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"rnnbench {rnnbench.__version__}\n", "")
    wrong = in_a_process("-m", "rnnbench", "suites", "nope", cwd=tmp_path)
    assert_one_line((wrong.returncode, wrong.stdout, wrong.stderr), 2, "unknown suite 'nope'")


@pytest.mark.parametrize("arguments", [["suites"], ["suites", "deepbench-train"]], ids=["short", "long"])
def test_a_reader_that_goes_away_is_no_error(arguments):
    read_end, write_end = os.pipe()
    os.close(read_end)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    try:
        command = [sys.executable, "-m", "rnnbench", *arguments]
        done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
    finally:
        os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")
