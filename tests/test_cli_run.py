"""``rnnbench run`` and the report of what it stored: what they print where, and their exit codes.  Takes 10 s."""

import re
from pathlib import Path

import pytest
from helpers.command_lines import in_a_process, tiny_suite, without_progress
from helpers.wrapped_reference import backend_file

from rnnbench.measure.plan import Settings, quicker
from rnnbench.results.reader import Contents, read
from rnnbench.results.rows import Failure, Time

RAISES = """
    def forward(self, x, state=None):
        raise ValueError("not today")

    record = forward
"""


@pytest.fixture
def tiny(tmp_path) -> str:
    return tiny_suite(tmp_path)


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
