"""``rnnbench report``: what goes to standard output and what into files, and options that exclude each other.  About 3 s."""

from pathlib import Path

import pytest
from helpers.report_runs import CASE, times, written

from rnnbench.results.rows import Gate


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return written(tmp_path, [Gate(CASE, "a", True, {"y": (1e-7, 1e-6)}, 0.1), *times("a", [1e-3])], backends=["a"])


def test_formats_that_are_text_go_to_standard_output_or_into_a_file(command, results: Path, tmp_path: Path) -> None:
    code, printed, _ = command("report", results, "--format", "csv")
    assert code == 0
    file = tmp_path / "new" / "table.csv"
    assert command("report", results, "--format", "csv", "-o", file)[:2] == (0, f"{file}\n")
    assert file.read_text() == printed
    assert printed.startswith("case,")


def test_charts_are_listed_and_those_without_data_named(command, results: Path, tmp_path: Path) -> None:
    code, out, err = command("report", results, "--charts", tmp_path / "charts", "--as", "svg")
    assert (code, out) == (0, f"{tmp_path / 'charts' / 'gates.svg'}\n")
    assert "Time per step over T: nothing to draw in this run; the suite sequence-length would fill it." in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--as", "png"], "--as is 'png' without --charts; expected both"),
        (["--charts", "c", "--format", "md"], "--charts and --format were given; expected one of them"),
        (["--charts", "c", "-o", "x"], "-o is 'x' with --charts; expected none: the charts go into 'c'"),
        (["--charts", "c", "--history"], "--history and --charts were given; expected one of them"),
        (["again", "--format", "md"], "--format is given with 2 results files; expected one"),
        (["--format", "pdf"], "--format: invalid choice: 'pdf'; expected html, md, csv, json"),
    ],
)
def test_options_that_exclude_each_other_are_refused(command, results: Path, arguments: list[str], complaint: str) -> None:
    code, _, err = command("report", results, *arguments)
    assert (code, err.startswith(f"rnnbench: {complaint}")) == (2, True)


@pytest.mark.parametrize("kind", ["html", "md"])
def test_a_report_never_takes_the_place_of_its_results(command, results: Path, kind: str) -> None:
    before = results.read_bytes()
    code, _, err = command("report", results, "--format", kind, "-o", results)
    assert code == 2
    assert "which holds the results; expected another file" in err
    assert results.read_bytes() == before
