"""The command line: what it prints where, its exit codes, and one line for whatever a user did wrong.  Takes 20 s."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from helpers.one_layer_backends import KEPT, one_layer_file
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check.levels import CHEAP
from rnnbench.measure.plan import Settings, quicker
from rnnbench.networks import registry
from rnnbench.results.reader import Contents, read
from rnnbench.results.rows import Failure, Time
from rnnbench.suite.suite import load_suite, suite_names

TINY = """
name = "tiny"
description = "one small network"
source = "this test"
[settings]
rounds = 1
input = "noise"
seed = 7
time_limit = 240
[[grid]]
cell = "elman"
phase = "step"
T = 3
B = 2
I = 3
H = [3, 4]
"""

WRONG = """
    def record(self, x, state=None):
        y, final, tape = self.net.record(x, state)
        return y * np.float32(1.001), final, tape
"""

RAISES = """
    def forward(self, x, state=None):
        raise ValueError("not today")

    record = forward
"""


@pytest.fixture
def tiny(tmp_path) -> str:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return str(path)


def in_a_process(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


def without_progress(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not line.startswith(("running ", "checking "))]


def assert_one_line(result: tuple[int, str, str], code: int, *said: str) -> None:
    """The command ended with ``code`` and nothing but a line that says so."""
    assert result[0] == code, result
    assert result[1] == ""
    (line,) = without_progress(result[2])
    assert line.startswith("rnnbench: ")
    for part in said:
        assert part in line


# what a user did wrong


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["bench"], "invalid choice: 'bench'"),
        (["run", "--fast"], "unrecognized arguments: --fast"),
        (["run", "--rounds"], "expected one argument"),
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
        (["check", "numpy_ref", "--cell", "ltsm"], "unknown cell 'ltsm'; expected elman, jordan, lstm, gru, gru_reset_before"),
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
        ("load = print", "is no backend: it lacks asarray, to_numpy, synchronize, supports, info"),
    ],
    ids=["syntax", "import", "raises", "lacks"],
)
def test_a_file_that_is_no_backend_is_one_line(command, tmp_path, verb, source, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    result = command("check", str(path)) if verb == "check" else command("run", "quick", "--backends", str(path))
    assert result[0] in (2, 4)
    assert_one_line(result, result[0], str(path), said)


# lists


def test_version(command):
    assert command("--version") == (0, f"rnnbench {rnnbench.__version__}\n", "")


def test_help_names_every_command_and_option(command):
    code, text, _ = command("--help")
    assert code == 0
    verbs = ("backends", "suites", "check", "run", "machine", "report", "bars", "show", "merge", "export", "best", "compare")
    for verb in (*verbs, "self-test"):
        assert f"  {verb}" in text
        assert command(verb, "--help")[0] == 0
    assert "--time-limit S" in command("run", "--help")[1]


def test_backends_lists_each_with_its_facts_or_the_reason_why_not(command):
    code, text, stderr = command("backends", "--facts")
    assert (code, stderr) == (0, "")
    own, _, rest = text.partition("\npeers, to measure against:\n")
    peers, _, choosers = rest.partition("\nchoosers, which run one of the others:\n")
    lines = dict(line.split(maxsplit=1) for line in (own + peers + choosers).splitlines())
    assert [line.split()[0] for line in own.splitlines()] == [entry.name for entry in rnnbench.backends()]
    assert [line.split()[0] for line in peers.splitlines()] == [entry.name for entry in rnnbench.peers()]
    assert [line.split()[0] for line in choosers.splitlines()] == [entry.name for entry in rnnbench.choosers()]
    for entry in rnnbench.backends() + rnnbench.peers() + rnnbench.choosers():
        if entry.available:
            assert "device " in lines[entry.name]
        else:
            assert lines[entry.name] == f"unavailable: {entry.reason}"


def test_suites_lists_each_with_its_cases_its_time_and_its_source(command):
    code, text, stderr = command("suites")
    assert (code, stderr) == (0, "")
    listed = text.split("\n\n")[0]
    heads = re.findall(r"^(\S+) +(\d+) cases +(\S.*?)  (.*)$", listed, re.MULTILINE)
    assert [name for name, *_ in heads] == suite_names()
    for name, count, took, description in heads:
        suite = load_suite(name)
        assert (int(count), description) == (len(suite.cases), suite.description)
        known = r"[\d.]+ m?s|\d+ min|\d+ h \d+ min"
        assert re.fullmatch("not known" if suite.settings.backends else known, took)
        assert " ".join(f"source: {suite.source}".split()) in " ".join(listed.split())


def test_a_suite_is_shown_with_its_source_and_every_case(command, tiny):
    assert command("suites", tiny) == (
        0,
        "tiny: one small network\nsource: this test\n  elman step T3 B2 I3 H3\n  elman step T3 B2 I3 H4\n",
        "",
    )


# check


def test_check_prints_a_table_and_ends_with_0_where_all_is_right(command, tmp_path):
    path = backend_file(tmp_path / "mine.py")
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "gru_reset_before", "--level", "smoke")
    assert code == 0
    assert without_progress(stderr) == []
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:2] == ["numpy_ref: right", f"{path}: right"]
    assert lines[1].startswith("  gradients right     yes, in 4 problems; worst 0.")
    assert [float(ratio) < 1 for ratio in re.findall(r"^ +gru_reset_before +(\S+)$", text, re.MULTILINE)] == [True, True]
    assert f"  calls as promised   yes, {len(CHEAP)} promises kept" in lines
    assert "not examined: results lent, " in text
    assert lines[-1].startswith("8 problems examined, none failed, in ")


def test_check_ends_with_1_where_one_backend_is_wrong_and_says_how_to_see_it(command, tmp_path):
    path = backend_file(tmp_path / "wrong.py", WRONG)
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert without_progress(stderr) == []
    assert f"first failure of {path}: lstm step T7 B3 I4 H5 layers2 bidirectional orthogonal forget bias 3 seed 0" in text
    assert f"backend = rnnbench.load_backend({path!r})" in text
    assert "first failure of numpy_ref" not in text
    # y is scaled in record alone: forward still passes
    assert f"{path}: WRONG numbers\n  gradients right     NO, in 3 of 4 problems" in text
    assert text.splitlines()[-1].startswith("8 problems examined, 3 of them failed, in ")


def test_check_ends_with_1_where_a_backend_supports_nothing(command, tmp_path):
    path = backend_file(tmp_path / "none.py", module="def supports(spec):\n    return 'not ready'\n")
    code, text, _ = command("check", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert text.startswith(f"{path}: nothing was checked: none of it is supported\n  not supported       lstm: not ready\n")
    assert text.splitlines()[-1].startswith("0 problems examined, none failed, in ")


def test_check_ends_with_1_where_a_backend_crashes(command, tmp_path):
    path = backend_file(tmp_path / "crashes.py", "def forward(self, x, state=None):\n    import ctypes; ctypes.string_at(0)\n")
    code, text, stderr = command("check", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert without_progress(stderr) == []
    assert "the call: crashed: was killed by SIGSEGV" in text


def test_cells_may_be_named_several_times_and_trials_drawn_at_random_come_besides(command):
    cells = ["--cell", "gru", "--cell", "lstm", "--cell", "gru"]
    code, text, _ = command("check", "numpy_ref", *cells, "--level", "smoke", "--random", "4", "--seed", "3", "--json")
    assert code == 0
    document = json.loads(text)
    assert (document["level"], document["random"], document["seed"]) == ("smoke", 4, 3)
    asked = [trial["problem"]["case"]["cell"] for trial in document["reports"][0]["trials"]]
    assert asked[:8] == ["gru"] * 4 + ["lstm"] * 4
    assert len(asked) == 12
    assert set(asked) == {"gru", "lstm"}


def test_a_dtype_may_be_named_and_an_unknown_one_is_refused(command):
    code, text, _ = command("check", "numpy_ref", "--cell", "lstm", "--level", "smoke", "--dtype", "float16")
    assert code == 0
    assert re.search(r"^ +error / tolerance +float16\n +lstm +0\.\d+$", text, re.MULTILINE)
    code, text, stderr = command("check", "numpy_ref", "--dtype", "half")
    assert (code, text) == (2, "")
    assert stderr == "rnnbench: unknown dtype 'half'; expected float32, float64, bfloat16, float16\n"


def test_with_json_there_is_nothing_else_on_standard_output(command, tmp_path):
    path = backend_file(tmp_path / "wrong.py", WRONG, "print('hello')")
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "lstm", "--level", "smoke", "--json")
    assert code == 1
    assert without_progress(stderr) == []
    document = json.loads(text)
    assert [report["name"] for report in document["reports"]] == ["numpy_ref", path]
    assert [report["passed"] for report in document["reports"]] == [True, False]
    assert document["totals"] == {"passed": 5, "failed": 3, "skipped": 0}


def test_gradients_alone_may_be_checked_whatever_a_backend_does_about_calls(command, tmp_path):
    path = one_layer_file(tmp_path / "mine.py", KEPT["an update that forgets a weight"])
    options = ["--cell", "gru", "--level", "smoke"]
    code, text, _ = command("check", path, *options)
    assert code == 1
    assert text.startswith(f"{path}: right numbers, but calls do not keep the contract\n")
    assert "\n  gradients right     yes, in 4 problems" in text
    assert "  calls as promised   NO, 1 of 7 promises broken\n" in text
    code, text, _ = command("check", path, *options, "--gradients-only")
    assert code == 0
    assert text.startswith(f"{path}: right numbers; no promise about calls was examined\n")
    assert "calls as promised" not in text
    assert "not examined: the 26 promises about calls\n" in text
    wrong = backend_file(tmp_path / "wrong.py", WRONG)
    assert command("check", wrong, *options, "--gradients-only")[0] == 1


def test_without_names_all_that_can_run_are_checked_and_the_others_named(command):
    code, text, stderr = command("check", "--cell", "elman", "--level", "smoke", "--json")
    assert code == 0
    listing = rnnbench.backends()
    assert [report["name"] for report in json.loads(text)["reports"]] == [entry.name for entry in listing if entry.available]
    told = [f"rnnbench: not checked: {entry.reason}" for entry in listing if not entry.available]
    assert without_progress(stderr) == told


def test_a_check_that_is_interrupted_prints_what_it_knows_and_ends_with_130(tmp_path):
    stuck = "def forward(self, x, state=None):\n    import time; time.sleep(600)\n"
    path = backend_file(tmp_path / "stuck.py", stuck, f"open({str(tmp_path / 'started')!r}, 'w').close()")
    command = [sys.executable, "-m", "rnnbench", "check", path, "--cell", "gru", "--level", "smoke"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(2)  # step and tbptt are done by then, forward never is
        process.send_signal(signal.SIGINT)
        text, stderr = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert text.splitlines()[-1].startswith("3 problems examined, none failed, in ") or "none failed" in text
    assert without_progress(stderr) == ["rnnbench: interrupted; what is printed was known by then"]


def test_the_self_test_prints_its_table_and_tells_whether_a_bug_survived(command, monkeypatch):
    from rnnbench.check import mutation_test as module

    class Outcome:
        passed = True

        def table(self):
            return "2 of 2 planted bugs killed"

    monkeypatch.setattr(module, "self_test", lambda _: Outcome())
    assert command("check", "--self-test")[:2] == (0, "2 of 2 planted bugs killed\n")
    monkeypatch.setattr(Outcome, "passed", False)
    assert command("check", "--self-test")[0] == 1


# run and report


def stored(text: str) -> Contents:
    """What the file holds that the last line of a run's output names."""
    verb, path = text.splitlines()[-1].split(": ", 1)
    assert verb == "results"
    return read(path)


def test_a_run_measures_a_backend_in_a_file_and_names_its_results(command, tiny, tmp_path):
    path = backend_file(tmp_path / "mine.py")
    arguments = ["run", tiny, "--backends", f"numpy_ref,{path}", "-o", "out"]
    code, text, stderr = command(*arguments)
    assert code == 0
    assert without_progress(stderr) == []
    assert re.fullmatch(r"running took \S+ m?s, \d\d?% of it for neither samples nor checks", stderr.splitlines()[-1])
    contents = stored(text)
    assert contents.path.parent.parent == Path("out")
    assert contents.path.name.endswith("-tiny.jsonl")
    assert set(contents.run.backends) == {"numpy_ref", path}
    assert {row.backend for row in contents.rows if isinstance(row, Time)} == {"numpy_ref", path}
    assert contents.run.settings["rounds"] == 1
    assert contents.run.command == ["rnnbench", *arguments]
    assert len(text.splitlines()) > 1  # the summary


def test_what_is_asked_for_on_the_command_line_holds_before_what_a_suite_asks_for(command, tiny, tmp_path):
    (tmp_path / "text.txt").write_text("some text")
    given = ["--rounds", "2", "--seed", "3", "--time-limit", "9.5", "--text", str(tmp_path / "text.txt")]
    settings = stored(command("run", tiny, "--backends", "numpy_ref", *given)[1]).run.settings
    asked = {"rounds": 2, "seed": 3, "time_limit": 9.5, "input": "text", "text_file": str(tmp_path / "text.txt")}
    assert {name: settings[name] for name in asked} == asked


def test_a_quick_run_measures_less_of_the_same(command, tiny):
    """What a network reads is part of what a suite measures; how often it is measured is not."""
    settings = stored(command("run", tiny, "--quick", "--backends", "numpy_ref")[1]).run.settings
    assert (settings["input"], settings["seed"], settings["time_limit"]) == ("noise", 7, 240)
    assert (settings["samples"], settings["shortest_sample"]) == (
        quicker(Settings()).samples,
        quicker(Settings()).shortest_sample,
    )


def test_a_run_in_which_a_case_failed_ends_with_3_and_keeps_the_rest(command, tiny, tmp_path):
    path = backend_file(tmp_path / "raises.py", RAISES)
    code, text, stderr = command("run", tiny, "--backends", f"numpy_ref,{path}")
    assert code == 3
    assert without_progress(stderr) == []
    rows = stored(text).rows
    assert {row.backend for row in rows if isinstance(row, Failure)} == {path}
    assert {row.case.H for row in rows if isinstance(row, Time)} == {3, 4}


def test_a_case_that_a_backend_does_not_support_is_no_failure_of_the_run(command, tiny, tmp_path):
    path = backend_file(tmp_path / "none.py", module="def supports(spec):\n    return 'not ready'\n")
    code, text, _ = command("run", tiny, "--backends", f"numpy_ref,{path}")
    assert code == 0
    failures = [row for row in stored(text).rows if isinstance(row, Failure)]
    assert {(row.backend, row.reason, row.message) for row in failures} == {(path, "unsupported", "not ready")}


def test_lines_of_a_resumed_file_that_do_not_read_are_reported(command, tiny):
    """The row that was torn is measured again, and the user is told of it and of the one that is lost."""
    path = stored(command("run", tiny, "--backends", "numpy_ref")[1]).path
    lines = path.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"end"' not in line and b'"kind":"memory"' not in line]
    path.write_bytes(b"".join([*kept, b"nonsense\n", b'{"kind":"memory","ca']))
    code, text, stderr = command("run", "--resume", str(path))
    assert code == 0
    assert stored(text).path == path
    told = without_progress(stderr)
    for number in (len(kept) + 1, len(kept) + 2):
        assert any(f"{path.name}:{number}: not a row" in line for line in told)


def test_the_report_of_a_folder_is_that_of_its_newest_run_and_its_path_is_printed(command, tiny):
    command("run", tiny, "--backends", "numpy_ref", "-o", "out")
    assert command("report", "out", "-o", "page.html") == (0, "page.html\n", "")
    assert "elman step T3 B2 I3 H4" in Path("page.html").read_text()


# as a process


def test_python_m_rnnbench_is_the_command_line(tmp_path):
    done = in_a_process("-m", "rnnbench", "--version", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"rnnbench {rnnbench.__version__}\n", "")
    wrong = in_a_process("-m", "rnnbench", "suites", "nope", cwd=tmp_path)
    assert_one_line((wrong.returncode, wrong.stdout, wrong.stderr), 2, "unknown suite 'nope'")


WITHOUT_PANDAS = "import sys; sys.modules['pandas'] = None; from rnnbench.cli.main import main; sys.exit(main(sys.argv[1:]))"


def test_without_the_report_extra_a_run_still_gives_results_and_a_report_says_what_to_install(tmp_path, tiny):
    run = in_a_process("-c", WITHOUT_PANDAS, "run", tiny, "--backends", "numpy_ref", cwd=tmp_path)
    needs = "reports need pandas: pip install -e '.[report]' in the checkout of rnnbench"
    assert run.returncode == 0, run.stderr
    (line,) = run.stdout.splitlines()
    path = line.removeprefix("results: ")
    assert read(tmp_path / path).problems == []
    assert without_progress(run.stderr) == [f"rnnbench: no summary: {needs}"]
    report = in_a_process("-c", WITHOUT_PANDAS, "report", path, cwd=tmp_path)
    assert (report.returncode, report.stdout, report.stderr) == (4, "", f"rnnbench: {needs}\n")


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


def test_the_command_line_starts_without_the_libraries_of_backends_and_reports():
    code = "import sys, rnnbench.cli.main; print(sorted({'numba', 'torch', 'pandas', 'altair', 'scipy'} & set(sys.modules)))"
    assert in_a_process("-c", code).stdout == "[]\n"


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


@pytest.mark.parametrize("given", [[], ["--facts"]], ids=["lines", "facts"])
def test_a_listing_imports_no_backend_and_no_library_into_its_own_process(given):
    source = f"import sys; from rnnbench.cli.main import main; main(['backends', *{given!r}]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    modules = done.stdout.splitlines()[-1].split()
    assert [name for name in modules if ".impls." in name or name in ("torch", "jax", "numba", "onnxruntime")] == []


def test_backends_are_listed_with_the_first_line_of_their_modules(command, monkeypatch):
    entries = entry_points(group="rnnbench.backends")
    theirs = EntryPoint("theirs", "their_package.backend", "rnnbench.backends")
    monkeypatch.setattr(registry, "entry_points", lambda group: [*entries, theirs] if group == "rnnbench.backends" else ())
    code, text, stderr = command("backends")
    assert (code, stderr) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in text.splitlines() if line)
    assert lines["torch_nn"] == "torch.nn.RNN, LSTM and GRU: what most people use, as it comes."
    assert "not run on a GPU yet" in lines["numba_cuda"]
    assert lines["theirs"] == "from their_package.backend"  # which would run if it were looked for
    assert text.endswith("rnnbench backends --facts\n")
