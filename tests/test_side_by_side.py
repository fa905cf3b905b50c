"""Runs side by side: the verdicts of ``rnnbench compare``, other machines told as such, and a page that draws.

About 10 s, most of it in a browser; those tests are skipped without playwright or Chromium.
"""

from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import stored_results
from helpers.browser import Opened
from helpers.synthetic_results import HOSTILE

from rnnbench.compare.comparison import compare_runs
from rnnbench.compare.comparison import times as read_times
from rnnbench.reports import write_side_by_side
from rnnbench.reports.side_by_side import (
    ABSENT,
    difference_sentences,
    fact_table,
    render,
    short_labels,
    sides,
    states,
    summary,
    verdict_text,
)
from rnnbench.results.reader import read
from rnnbench.results.rows import Failure
from rnnbench.suite.case import Case

CASES = [Case("lstm", "step", T, 8, 64, H) for T in (16, 64) for H in (32, 128)]
FACTS = {"cpu": "Some CPU", "os": "Linux 6.1", "versions": {"rnnbench": "0.1", "numpy": "2.4"}, "dirty": False}
NOISE = 0.003


def writer(folder: Path):
    """Writes runs into a folder, from how much slower than 1 ms each backend is in each case; gives their paths."""
    number = 0

    def write(
        factors: dict[str, list[float]], others: tuple = (), *, cases: list[Case] = CASES, rounds: int = 12, **options: Any
    ) -> Path:
        nonlocal number
        number += 1
        random = np.random.default_rng(number)
        seconds = {
            (backend, case): [1e-3 * factor * random.lognormal(0, NOISE) for _ in range(rounds)]
            for backend, of in factors.items()
            for case, factor in zip(cases, of, strict=False)
        }
        whole = {"machine": "some-2c", "settings": {"input": "text", "rounds": 12}} | options
        whole["environment"] = FACTS | whole.get("environment", {})
        return stored_results.write(folder / f"{number}.jsonl", seconds, others, **whole)

    return write


@pytest.fixture
def run(tmp_path: Path):
    return writer(tmp_path)


def words(side: Any) -> dict[tuple[str, int, int], str]:
    return {(row.backend, row.case.T, row.case.H): verdict_text(side, row) for row in side.rows}


class Elements(HTMLParser):
    """The names of all elements and the text outside scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.names.append(tag)

    def handle_data(self, data: str) -> None:
        if self.names and self.names[-1] not in ("script", "style"):
            self.text += data


def test_the_verdicts_are_those_of_compare_and_regressions_stand_first(run) -> None:
    a, b = run({"x": [1, 1, 1, 1]}), run({"x": [1.1, 1, 0.9, 1.02]}, commit="f" * 40)
    _, side = sides([a, b])
    assert side.rows == compare_runs(read_times(read(a)), read_times(read(b))).rows
    assert words(side) == {
        ("x", 16, 32): "regression",
        ("x", 16, 128): "same",
        ("x", 64, 32): "improvement",
        ("x", 64, 128): "unclear",
    }
    (answer,) = summary(sides([a, b]))
    assert answer.text == "B against A, 4 comparisons: 1 regression, 1 improvement, 1 same, 1 unclear."
    assert answer.details[0].startswith("lstm step T16 B8 I64 H32, x: 1.")
    (said,) = difference_sentences(sides([a, b]))
    assert said == (
        "B was measured on the same machine as A, with the same packages; "
        "the code differs: commit ffffffffff against 0123456789."
    )


def test_too_few_rounds_are_said_to_be(run) -> None:
    (answer,) = summary(sides([run({"x": [1]}, rounds=2), run({"x": [2]}, rounds=2)]))
    assert answer.text == "B against A, 1 comparison: 1 unclear."
    assert answer.details[0].startswith("1 of 1 intervals have too few rounds to hold the ratio with 95%: the least is 66.7%")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"machine": "other-8c"}, "B was measured on a different machine than A (other-8c against some-2c)"),
        ({"environment": {"cpu": "Other CPU"}}, "B was measured on a different machine than A (different cpu)"),
        (
            {"environment": {"versions": {"numpy": "2.5"}}},
            "B was measured on the same machine as A, but with different numpy",
        ),
        ({"about": {"x": {"device": "gpu"}}}, "but with different x's device"),
    ],
)
def test_what_was_not_measured_alike_is_no_regression(run, options: dict, said: str) -> None:
    found = sides([run({"x": [1, 1, 1]}), run({"x": [2, 0.5, 1]}, **options)])
    assert list(words(found[1]).values()) == ["slower", "faster", "same"]
    (sentence,) = difference_sentences(found)
    assert said in sentence
    assert sentence.endswith(": no difference between them is called a regression.")
    assert "regression" not in summary(found)[0].text


def test_runs_with_other_numbers_of_threads_meet_case_by_case(run) -> None:
    doubled = [Case("lstm", "step", case.T, 8, 64, case.H, threads=2) for case in CASES]
    failed = Failure(doubled[3], "x", "time", "crashed", "killed")
    found = sides([run({"x": [1, 1, 1, 1]}), run({"x": [0.6, 0.6, 0.6]}, (failed,), cases=doubled)])
    assert found[1].differing == ["threads"]
    assert list(words(found[1]).values()) == ["faster"] * 3
    assert states(found) == [(CASES[3].label(), "x", ["measured", "crashed (killed)"])]
    table = fact_table([side.times for side in found])
    assert table["Threads"] == [("threads", ["1", "2"], True)]


def test_cases_that_only_one_run_has_and_failures_are_named_failures_first(run) -> None:
    crashed = Failure(CASES[0], "x", "time", "crashed", "killed", 3)
    found = sides([run({"x": [1, 1], "y": [1]}), run({"x": [1, 1, 1]}, (crashed,)), run({"x": [1, 1, 1]})])
    assert states(found) == [
        (CASES[0].label(), "x", ["measured", "crashed (killed)", "measured"]),
        (CASES[0].label(), "y", ["measured", ABSENT, ABSENT]),
        (CASES[2].label(), "x", [ABSENT, "measured", "measured"]),
    ]


def test_the_facts_that_differ_stand_first_with_the_values_of_each_run(run) -> None:
    one, other = run({"x": [1]}), run({"x": [1]}, commit="e" * 40, environment={"dirty": True}, settings={"input": "text"})
    table = fact_table([read_times(read(path)) for path in (one, other)])
    assert table["Code"] == [
        ("commit", ["0123456789", "e" * 40], True),
        ("uncommitted changes", ["no", "yes"], True),
        ("rnnbench", ["0.1", "0.1"], False),
    ]
    assert table["Protocol"] == [("rounds", ["12", ""], True), ("input", ["text", "text"], False)]
    assert all(not differs for _, _, differs in table["Machine"])


def test_labels_leave_out_what_all_share() -> None:
    pairs = [("lstm step T16 B8", "x"), ("lstm step T64 B8", "x")]
    assert short_labels(pairs) == (["T16", "T64"], "lstm step B8 with x")
    assert short_labels(pairs[:1]) == (["lstm step T16 B8 with x"], "")


def test_hostile_names_make_no_elements(run) -> None:
    case = Case(HOSTILE, "step", 4, 1, 1, 1)
    failed = Failure(CASES[1], HOSTILE, "time", "crashed", HOSTILE)
    options = {"cases": [CASES[0], case], "commit": HOSTILE, "environment": {"cpu": HOSTILE, HOSTILE: HOSTILE}}
    html = render(sides([run({HOSTILE: [1, 1]}, (failed,), **options), run({HOSTILE: [1, 1.1]}, **options | {"commit": "a"})]))
    found = Elements(html)
    assert "img" not in found.names
    assert found.names.count("script") == 6  # the data, the bundle of the charts, page.js and three of this page
    assert HOSTILE in found.text


# the command


def test_two_results_give_one_page_and_its_path(run, tmp_path: Path, command) -> None:
    output = tmp_path / "page.html"
    assert command("report", run({"x": [1]}), run({"x": [1]}), "-o", output) == (0, f"{output}\n", "")
    assert "2 runs side by side" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("A A", "1.jsonl is given twice; expected different results files"),
        ("A B", "1.jsonl and 2.jsonl have no times of one case and backend in common"),
        ("A C", "A was run with input 'text' and B with 'noise'; expected the same"),
        ("A A A A A A A A A", "9 results files given to compare side by side; expected 2 to 8"),
        ("A C --asv folder", "expected either a results file or --asv DIR"),
        ("A C --repository https://example.org", "--repository is 'https://example.org' without --history; expected both"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(run, tmp_path: Path, command, arguments: str, said: str) -> None:
    paths = {"A": run({"x": [1]}), "B": run({"y": [1]}), "C": run({"x": [1]}, settings={"input": "noise"})}
    code, out, err = command("report", *(paths.get(word, word) for word in arguments.split()), "-o", tmp_path / "page.html")
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "page.html").exists()


# the page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs of two backends, one of them with a hostile name."""
    folder = tmp_path_factory.mktemp("results")
    run = writer(folder)
    a = run({"x": [1, 1, 1, 1], HOSTILE: [1, 1, 1, 1]})
    b = run({"x": [1.1, 1, 1, 1], HOSTILE: [1, 0.9, 1]}, commit=HOSTILE)
    c = run({"x": [2, 2, 2, 2]}, machine=HOSTILE)
    return write_side_by_side([a, b, c], folder / "page.html")


@pytest.mark.parametrize(("theme", "width"), [("light", 1280), ("dark", 400)])
def test_the_page_draws_filters_and_sorts_in_silence(browser: Any, page: Path, theme: str, width: int) -> None:
    with Opened(browser, page, width=width, theme=theme) as opened:
        assert opened.marks(".mark-symbol") == 7 + 4  # comparisons of B, with one missing, and of C
        opened.pick("run", "C")
        assert opened.marks(".mark-symbol") == 4
        assert set(opened.column("run")) == {"C"}
        assert set(opened.column("verdict")) == {"slower"}
        opened.pick("run", "B")
        assert opened.column("verdict")[0] == "regression"
        opened.pick("verdict", "improvement")
        assert opened.column("backend") == [HOSTILE]
        assert opened.marks(".mark-symbol") == 1
        opened.pick("verdict", "")
        opened.page.locator("#table thead button", has_text="time / A's").click()
        ratios = [float(value) for value in opened.column("time / A's")]
        assert ratios == sorted(ratios)
        assert len(ratios) == 7
        opened.page.fill("#find", "T16 H128")
        assert len(opened.column("case")) == 2
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
        assert opened.page.locator("img").count() == 0
        assert opened.nameless_controls() == 0
        assert opened.complaints == []
        assert opened.requests == [page.as_uri()]


def test_the_keyboard_reaches_filters_chart_and_table(browser: Any, page: Path) -> None:
    with Opened(browser, page) as opened:
        assert {"theme", "run", "verdict", "backend", "chart", "find", "scroll"} <= opened.reached_by_tab(40)
