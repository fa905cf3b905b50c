"""The page of a report as text: names that try to break it, its size, its tables; and the page of asv's results.  10 s."""

import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from helpers.report_runs import CASE, Elements, marks, written
from helpers.synthetic_results import HOSTILE

from rnnbench.errors import StoreError
from rnnbench.reports import page, read_asv, to_pandas, write_asv_html, write_html
from rnnbench.reports.downsample import downsampled
from rnnbench.reports.frames import Frames
from rnnbench.reports.reproduce import source
from rnnbench.reports.summary import summary
from rnnbench.results.rows import Failure, Gate
from rnnbench.suite.case import Case


def test_hostile_names_stay_text(html: str) -> None:
    elements = Elements(html)
    tags = [tag for tag, _ in elements.found]
    assert "img" not in tags
    assert len(elements.scripts) == 9  # rows, library, page, table, filters, case, points, summaries, report
    assert not [attributes for _, attributes in elements.found if any(name.startswith("on") for name in attributes)]
    payload = json.loads(elements.scripts[0])
    assert HOSTILE in payload["backends"]
    assert "{{ 7 * 7 }}" in "".join(elements.text)
    assert "\u2028" not in elements.scripts[0]


def test_the_page_is_one_file_below_its_limit_and_asks_for_nothing(html: str) -> None:
    assert len(html.encode()) < 1.5e6
    elements = Elements(html)
    assert not [attributes for _, attributes in elements.found if {"src", "srcset"} & attributes.keys()]
    links = [attributes["href"] for _, attributes in elements.found if "href" in attributes]
    assert all(link.startswith("#") for link in links)
    policy = [attributes["content"] for _, attributes in elements.found if "http-equiv" in attributes]
    assert policy == ["default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"]


def test_a_page_of_too_many_results_has_a_part_of_the_cases_and_says_so(data: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "downsampled", functools.partial(downsampled, most=600))
    text = page.render(data)
    payload = json.loads(Elements(text).scripts[0])
    kept = payload["cases"]["length"]
    assert kept == 600 * len(data.cases) // (len(data.summary) + len(data.pairs))
    assert f"The charts and the table have {kept} of its {len(data.cases)} cases" in Elements(text).whole()
    # sentences and worst errors are of the whole run
    assert summary(data)[1].text in Elements(text).whole()
    worst = data.gates.loc[data.gates["error_over_tolerance"].idxmax(), "case"]
    label = data.cases.set_index("case").loc[worst, "label"]
    labels = payload["cases"]["columns"]["label"]
    assert label in (labels if isinstance(labels, list) else labels["names"])


def test_long_tables_say_how_much_they_leave_out(tmp_path: Path) -> None:
    cases = [Case("gru", "step", T, 1, 1, 1) for T in range(1, 251)]
    rows = [Failure(case, "a", "load", "error", "x" * 5000) for case in cases]
    text = page.render(to_pandas(written(tmp_path, rows, cases=cases)))
    assert "And 50 more, in the table of cases" in Elements(text).whole()
    assert len(text.encode()) < 1.5e6
    assert "… (5000 characters)" in text


def test_the_page_tells_where_its_numbers_come_from(html: str) -> None:
    text = "".join(Elements(html).text)
    for part in (
        "rnnbench run grid --rounds 12",
        "rnnbench report results",
        "60 GFLOP/s",
        "Wait until it has fallen.",
        "0123456789abcdef",
        "Example CPU, 2 cores",
        "0.68.1",
        "grid.jsonl:",
        "time_limit",
    ):
        assert part in text


def test_the_page_of_a_run_without_results_renders(tmp_path: Path) -> None:
    text = page.render(to_pandas(written(tmp_path, [])))
    assert "Nothing was timed in this run" in text
    assert "cut off" in text


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    gate = Gate(CASE, "a", False, {"y": (None, 1.0), "dx": (1.0, 0.0)}, 0.1)
    text = page.render(to_pandas(written(tmp_path, [gate])))
    payload = json.loads(Elements(text).scripts[0])
    assert payload["rows"]["gates"]["same"]["ratio"] is None


def test_an_output_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        write_html(written(tmp_path, []), tmp_path)


@pytest.mark.parametrize("phase", ["forward", "step", "tbptt"])
def test_the_python_of_a_row_runs_its_case(phase: str) -> None:
    case = Case("jordan", phase, 4, 2, 3, 5, output_size=2, layers=2, dtype="float64", window=2 if phase == "tbptt" else None)
    scope: dict = {}
    exec(source(case, "numpy_ref", seed=7), scope)
    assert scope["spec"] == case.spec()
    y = scope["call"]()[0]
    assert y.shape == (4, 2, 2)
    assert y.dtype == np.float64


def test_a_hostile_backend_stays_a_string_in_python() -> None:
    line = next(line for line in source(CASE, HOSTILE).splitlines() if line.startswith("rnn = "))
    assert eval(line.removeprefix("rnn = rnnbench.load_backend"), {}) == HOSTILE


def test_a_missing_library_is_named_with_its_remedy() -> None:
    code = "import sys; sys.modules['altair'] = None; import rnnbench.reports; rnnbench.reports.write_html"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "reports need altair: pip install -e '.[report]' in the checkout of rnnbench" in done.stderr


# asv


@pytest.fixture
def asv_results(tmp_path: Path) -> Path:
    results = pytest.importorskip("asv.results", reason="asv is not installed")
    runner = pytest.importorskip("asv.runner", reason="asv is not installed")
    for number, commit in enumerate(("a" * 40, "b" * 40)):
        stored = results.Results({"machine": "m"}, {}, commit, 1_700_000_000_000 + number, "3.11", "env", {})
        benchmark = {"name": f"time_step{HOSTILE[:20]}", "version": "1", "params": [["'lstm'", "'gru'"], ["16", "32"]]}
        values = [0.5 + number, float("nan"), 0.25, None]
        result = runner.BenchmarkResult(values, [None] * 4, [None] * 4, 0, "", None)
        stored.add_result(benchmark, result)
        single = runner.BenchmarkResult([2e6], [None], [None], 0, "", None)
        stored.add_result({"name": "peakmem_step", "version": "1", "params": []}, single)
        stored.save(str(tmp_path))
    (tmp_path / "m" / "machine.json").write_text('{"machine": "m", "version": 1}')
    (tmp_path / "benchmarks.json").write_text("{}")
    return tmp_path


def test_asv_results_read_back_as_asv_wrote_them(asv_results: Path) -> None:
    frame = read_asv(asv_results)
    assert len(frame) == 2 * (4 + 1)
    first = frame[(frame["commit"] == "a" * 40) & frame["benchmark"].str.startswith("time_step")].set_index("params")
    assert first.loc["'lstm', 16", "value"] == 0.5
    assert first.loc["'gru', 16", "value"] == 0.25
    assert first["value"].isna().sum() == 2
    assert frame.loc[frame["benchmark"] == "peakmem_step", "value"].tolist() == [2e6, 2e6]
    assert set(frame["machine"]) == {"m"}


def test_the_asv_page_is_one_file_that_asks_for_nothing(asv_results: Path, tmp_path: Path) -> None:
    text = write_asv_html(asv_results, tmp_path / "asv.html").read_text(encoding="utf-8")
    elements = Elements(text)
    assert not [attributes for _, attributes in elements.found if {"src", "srcset"} & attributes.keys()]
    payload = json.loads(elements.scripts[0])
    spec = payload["charts"]["asv"]["spec"] | {"datasets": {"asv": [{"commit_order": 0, "value": 1.0, "benchmark_order": 0}]}}
    assert marks(vl_convert.vegalite_to_svg(spec))["mark-symbol"] == 1


def test_asv_results_of_another_format_are_refused(asv_results: Path, tmp_path: Path) -> None:
    file = next(path for path in asv_results.glob("m/*.json") if path.name != "machine.json")
    file.write_text('{"version": 1}')
    with pytest.raises(StoreError, match="has asv format 1; this version reads format 2"):
        read_asv(asv_results)
    file.write_text('{"version": 2, "results": []}')
    with pytest.raises(StoreError, match="is no asv result"):
        read_asv(asv_results)
    with pytest.raises(StoreError, match="no asv results at"):
        read_asv(tmp_path / "nothing")
