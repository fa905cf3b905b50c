"""Formats of a report: CSV, JSON, Markdown, charts as files, and the names that notebooks import.

About 20 s, most of it the libraries' imports and the drawing of charts.
"""

import csv
import io
import json
import re
import shlex
import struct
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
import zlib
from html.parser import HTMLParser
from pathlib import Path

import altair
import msgspec
import pytest
from helpers import synthetic_results
from helpers.synthetic_results import HOSTILE
from markdown_it import MarkdownIt

from rnnbench import reports
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.reports import formats, to_csv, to_json, to_markdown, to_pandas, write_charts
from rnnbench.reports.frames import CASE_FIELDS, Frames
from rnnbench.results.rows import Failure, Gate, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "＝1+1", "'=1"]  # noqa: RUF001  # full width
NAMES = [*FORMULAS, "a,b", 'a"b', "a\rb", "a\nb", "a\u2028b", "a\x1b[31mb", "a|b", "`a`", "*a*", "<b>a</b>", HOSTILE]
CASE = Case("lstm", "step", 4, 2, 3, 5)
ALL_CHARTS = {"map_T", "length", "hidden", "window_time", "window_error", "window_memory", "roofline", "startup", "gates"}


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of the made-up results, five rounds."""
    with pytest.MonkeyPatch.context() as patch:
        for name, part in {
            "CELLS": ("lstm",),
            "LENGTHS": (16, 64, 1024),
            "HIDDEN": (64, 128, 256),
            "WINDOWS": (8, 1024),
        }.items():
            patch.setattr(synthetic_results, name, part)
        folder = tmp_path_factory.mktemp("results")
        synthetic_results.write_roofs(folder)
        return synthetic_results.write(folder / "grid.jsonl", rounds=5)


@pytest.fixture(scope="module")
def data(grid: Path) -> Frames:
    return to_pandas(grid)


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Frames:
    """A run whose backends, reasons and environment have every awkward name."""
    path = tmp_path_factory.mktemp("named") / "named.jsonl"
    environment = {"machine": NAMES[0], "cpu": "".join(NAMES), "python": HOSTILE, "versions": {name: name for name in NAMES}}
    run = Run("r", "2025-01-01", HOSTILE, ["rnnbench", *NAMES, "```"], {}, environment, {name: {} for name in NAMES}, [CASE])
    with Writer(path) as writer:
        writer.append(run)
        for name in NAMES:
            writer.append(Time(CASE, name, 0, 0, 1, [1e-3]))
            writer.append(Gate(CASE, name, True, {name: (None, 0.0)}, 0.1))
            writer.append(Failure(CASE, name, "memory", "error", name))
    return to_pandas(path)


# CSV


def test_every_row_of_a_csv_file_is_a_pair_and_its_numbers_are_those_of_the_frame(data: Frames) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(data))))
    assert [(row["case"], row["backend"][:9]) for row in rows] == [
        (case, name[:9]) for case, name in zip(data.summary["case"], data.summary["backend"], strict=True)
    ]
    measured = [index for index, status in enumerate(data.summary["status"]) if status == "measured"]
    assert [float(rows[index]["seconds"]) for index in measured] == list(data.summary["seconds"].iloc[measured])
    assert any(row["relative_error"] for row in rows)
    assert any(row["message"] == "no answer after 60 s" for row in rows)


def test_no_text_in_a_csv_file_is_a_formula_and_none_ends_its_row(named: Frames) -> None:
    text = to_csv(named)
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert len(rows) == len(NAMES)
    for row, name in zip(rows, NAMES, strict=True):
        for value in (row["backend"], row["message"]):
            assert not value.startswith(tuple("=+-@\t\r\n＝＋－＠")), (name, value)  # noqa: RUF001
            assert value.isprintable()
    assert len(text.splitlines()) == len(NAMES) + 1


# JSON


def test_a_json_document_is_strict_json_with_every_row(data: Frames) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    document = json.loads(to_json(data), parse_constant=refuse)
    for name in ("cases", "times", "summary", "pairs", "gates", "failures", "truncation", "startup"):
        assert len(document[name]) == len(getattr(data, name)) > 0
    assert set(CASE_FIELDS) <= document["cases"][0].keys()
    known = {case["case"] for case in document["cases"]}
    assert {row["case"] for row in document["summary"]} == known
    missing = [row for row in document["summary"] if row["status"] == "unavailable"]
    assert missing
    assert all(row["seconds"] is None for row in missing)
    assert HOSTILE in document["run"]["backends"]
    assert document["run"]["command"] == data.run.command
    assert [row["seconds"] for row in document["times"]] == list(data.times["seconds"])


# Markdown


class _Seen(HTMLParser):
    """The tags of a page and the text of its elements, by tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.cells: list[str] = []

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.add(tag)
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        self.open.remove(tag)

    def handle_data(self, data: str) -> None:
        if "td" in self.open or "th" in self.open:
            self.cells[-1] += data


def _seen(markdown: str) -> _Seen:
    """As GitHub shows it: tables, and HTML that stands in the text is HTML."""
    seen = _Seen()
    seen.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    return seen


OWN_TAGS = {"h1", "h2", "p", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "strong", "pre", "code"}


def test_markdown_shows_every_name_letter_by_letter_and_none_becomes_markup(named: Frames) -> None:
    seen = _seen(to_markdown(named))
    assert seen.tags <= OWN_TAGS
    heads = [formats.printable(name) for name in NAMES]
    assert seen.cells[: len(NAMES) + 1] == ["Case", *heads]
    assert set(heads) <= set(seen.cells[len(NAMES) + 1 :])  # the messages of the failures


@pytest.mark.parametrize(
    "text",
    [
        *NAMES, "# a", "1. a", "12) a", "1.", "- a", "+ a", "> a", "a  \\", "[a](http://b)", "![a](b)", "<http://a.b>", "&lt;",
        "a~~b~~", "http://a.b", "www.a.b", "__a__", "_a_", "\\*", "a\\|b", "***", "===", "    a", "$x$", "[^1]",
        "<!-- a", "&#42;",
    ],
)  # fmt: skip
def test_an_escaped_text_is_read_back_as_it_was(text: str) -> None:
    shown = " ".join(formats.printable(text).split())
    for place in ("{}", "- {}", "x {}"):
        seen = _Seen()
        seen.feed(MarkdownIt("gfm-like", {"html": True}).disable("linkify").render(place.format(formats.escaped(text))))
        assert seen.tags <= {"p", "ul", "li"}, (text, place)
    cell = _seen(f"| a |\n| --- |\n| {formats.escaped(text)} |").cells[1]
    assert " ".join(cell.split()) == shown


def test_markdown_says_how_to_repeat_the_run_in_one_block_of_code(named: Frames) -> None:
    text = to_markdown(named)
    *_, line, block = MarkdownIt("commonmark").parse(text)
    assert (block.type, line.type) == ("fence", "paragraph_close")
    assert shlex.split(block.content) == ["rnnbench", *map(formats.printable, NAMES), "```"]


def test_markdown_marks_ties_and_names_failures_in_the_place_of_times(data: Frames) -> None:
    lines = to_markdown(data).splitlines()
    row = next(line for line in lines if line.startswith("| lstm step T1024 B16 I64 H256 "))
    assert row.count("| timeout |") == 1
    tied = next(line for line in lines if line.startswith("| lstm step T64 B16 I64 H128 "))
    assert " ≈" in tied
    assert "**" not in tied
    won = next(line for line in lines if line.startswith("| lstm forward T64 B16 I64 H64 "))
    assert won.count("**") == 2


# charts


def test_every_chart_of_the_page_is_a_file_of_its_own_and_every_sweep_too(data: Frames, tmp_path: Path) -> None:
    files = write_charts(data, tmp_path / "new" / "charts").written
    names = [file.stem for file in files]
    assert set(names) >= ALL_CHARTS
    assert {f"length-{number}" for number in range(2, 7)} <= set(names)  # two phases at three hidden sizes
    assert sorted(tmp_path.rglob("*.*")) == sorted(files)
    drawn = {file.stem: ET.fromstring(file.read_bytes()) for file in files}
    for name, tree in drawn.items():
        assert len(list(tree.iter("{http://www.w3.org/2000/svg}path"))) > 10, name
    titles = {name: " ".join(tree.itertext()) for name, tree in drawn.items()}
    assert "step, H = 128" in titles["length-5"]
    assert "baseline numba_cpu" in titles["map_T"]


def test_a_run_that_ended_before_it_timed_anything_has_no_chart(tmp_path: Path) -> None:
    with Writer(tmp_path / "early.jsonl") as writer:
        writer.append(Run("r", "2025-01-01", "own", ["rnnbench"], {}, {}, {"a": {}}, [CASE]))
        writer.append(Gate(CASE, "a", True, {"y": (1e-7, 1e-6)}, 0.1))
    charts = write_charts(to_pandas(tmp_path / "early.jsonl"), tmp_path)
    assert charts.written == []
    assert len(charts.left_out) == len(ALL_CHARTS)


def test_no_chart_holds_a_character_that_would_end_the_process_that_draws_it(tmp_path: Path) -> None:
    bad = "a\x00b\x1b[31m\uffff"
    with Writer(tmp_path / "bad.jsonl") as writer:
        cases = [msgspec.structs.replace(CASE, cell=bad, T=length) for length in (4, 8)]
        writer.append(Run("r", "2025-01-01", bad, ["rnnbench"], {}, {}, {bad: {}, "b": {}}, cases))
        for case in cases:
            for number in range(6):
                writer.append(Time(case, bad, number, 0, 1, [1.0]))
                writer.append(Time(case, "b", number, 1, 1, [2.0]))
    data = to_pandas(tmp_path / "bad.jsonl")
    assert data.baseline == bad
    drawn = reports.all_charts(data)
    assert set(drawn) >= {"map_T", "length"}
    for name, chart in drawn.items():
        text = json.dumps(chart.to_dict(), ensure_ascii=False)
        assert not re.search(r"\\u00[01]|\uffff", text), name  # before it is drawn: a failure there ends pytest
        chart.save(tmp_path / f"{name}.svg")
        assert "a\ufffdb" in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")


def test_two_sweeps_of_a_chart_hold_different_cases(data: Frames) -> None:
    charts = [reports.time_over_length(data, sweep) for sweep in (0, 1)]
    cases = [{row["label"] for row in chart.to_dict()["datasets"]["times"]} for chart in charts]
    assert cases[0]
    assert cases[1]
    assert not cases[0] & cases[1]


def _chunk(png: bytes, kind: bytes) -> bytes:
    """The content of all chunks of a kind (PNG specification, 5.3)."""
    found, at = b"", 8
    while at < len(png):
        (size,) = struct.unpack(">I", png[at : at + 4])
        found += png[at + 8 : at + 8 + size] if png[at + 4 : at + 8] == kind else b""
        at += 12 + size
    return found


def test_png_files_are_png_on_white(named: Frames, tmp_path: Path) -> None:
    (file,) = write_charts(named, tmp_path, "png").written
    assert file.name == "gates.png"
    assert file.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert set(zlib.decompress(_chunk(file.read_bytes(), b"IDAT"))[1:5]) == {255}  # the first pixel, behind its row's filter
    with pytest.raises(ArgumentError, match="kind is 'gif'; expected svg or png"):
        write_charts(named, tmp_path, "gif")


# notebooks


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (reports.speed_map, ("gain", "speedup")),
        (reports.time_over_length, ("sequence length T",)),
        (reports.time_over_hidden_size, ("hidden size H",)),
        (reports.time_over_window, ("window",)),
        (reports.error_over_window, ("relative_error",)),
        (reports.memory_over_window, ("peak memory",)),
        (reports.speed_under_roofs, ("roofs",)),
        (reports.startup_times, ("stage_order",)),
        (reports.errors_over_tolerances, ("tensor_order",)),
    ],
)
def test_each_function_for_a_chart_returns_an_altair_chart_that_stands_alone(function, names, data: Frames) -> None:
    chart = function(data)
    assert isinstance(chart, altair.TopLevelMixin)
    specification = chart.to_dict()
    assert all(name in json.dumps(specification) for name in names)
    assert any(specification["datasets"].values())


def test_the_example_for_notebooks_runs_as_it_is_written(
    grid: Path, data: Frames, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "reports.md").read_text()
    example = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "a.jsonl").write_bytes(grid.read_bytes())
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"a\.jsonl:\d+: not a row", UserWarning)  # which the made-up run has on purpose
        exec(example, {})
    assert (tmp_path / "length.svg").read_bytes().startswith(b"<svg")
    assert list((tmp_path / "charts").glob("*.svg"))
    named = set(re.findall(r"`(\w+)(?:\(|`)", text)) & set(dir(reports))
    assert {name for name in reports._HOMES["gallery"] if name != "all_charts"} <= named
    told = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    frames = {name for name in Frames._fields if hasattr(getattr(data, name), "columns")}
    assert frames <= told <= {*Frames._fields, *dir(reports)}


def test_scaling_exponents_name_what_is_fixed(data: Frames) -> None:
    table = reports.scaling_exponents(data)
    flat = table[(table["picture"] == "T") & (table["backend"] == "numba_cpu")]
    assert len(flat) == 6
    assert flat["fixed"].str.contains("H = 128").sum() == 2  # a step and a forward pass
    assert flat["exponent"].between(-0.1, 0.02).all()  # made up as T times a cost, and 20 µs: at T = 16 less than 20% of it


def test_a_chart_that_a_run_cannot_fill_is_refused_by_name(named: Frames, data: Frames) -> None:
    with pytest.raises(ArgumentError, match="this run has no chart 'length'; it has gates"):
        reports.time_over_length(named)
    with pytest.raises(ArgumentError, match="no chart 'map_T-3'"):
        reports.speed_map(data, sweep=2)
    with pytest.raises(ArgumentError, match="across is 'H'; expected 'T' or 'B'"):
        reports.speed_map(data, across="H")


def test_every_public_name_of_the_reports_exists_has_one_home_and_a_docstring() -> None:
    assert sorted(name for names in reports._HOMES.values() for name in names) == sorted(reports.__all__) == dir(reports)
    for name in reports.__all__:
        assert getattr(reports, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        reports.nope  # noqa: B018


def test_the_reports_are_imported_when_they_are_used_and_say_what_is_missing() -> None:
    code = (
        "import sys; sys.modules['altair'] = None; from rnnbench import reports; assert 'pandas' not in sys.modules\n"
        "reports.to_pandas\n"
        "try: reports.all_charts\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == (
        f"{MissingLibrary.__name__} reports need altair: pip install -e '.[report]' in the checkout of rnnbench\n",
        "",
    )
