"""The charts of a report: what they draw, and the rows behind them.  About 10 s."""

import xml.etree.ElementTree as ET
from pathlib import Path

import altair
import numpy as np
import pytest
import vl_convert
from helpers.report_runs import ALL_CHARTS, END, Elements, marks, times, written
from helpers.synthetic_results import HOSTILE

from rnnbench.reports import all_charts, charts, curves, page, theme, to_pandas
from rnnbench.reports.charts import pictures, static
from rnnbench.reports.frames import Frames
from rnnbench.reports.rows import case_rows, chart_rows, samples, shown_backends
from rnnbench.reports.sweeps import sweeps
from rnnbench.results.rows import Time
from rnnbench.suite.case import Case


@pytest.mark.parametrize("name", ALL_CHARTS)
def test_every_chart_draws_its_marks(data: Frames, name: str) -> None:
    cases = case_rows(data, sweeps(data.cases))
    shown = pictures(data, cases)
    assert list(shown.drawn) == ALL_CHARTS
    spec = static(data, cases, shown.drawn[name])
    rows = next(iter(spec["datasets"].values()))
    counts = marks(vl_convert.vegalite_to_svg(spec))
    if name == "map_T":
        # 3 cells x 4 H x 4 T and the hostile case, 4 backends beside the baseline, without the 9 that have no time
        assert counts["mark-rect"] == 49 * 4 - 9
        assert counts["mark-text"] == 49 * 4
        # torch_nn and its twin with the hostile name: a tie on lstm at H = 128, unclear on gru at H = 64, four T each
        assert counts["mark-symbol"] == 2 * 4 + 2 * 4
    elif name in ("length", "hidden", "window_time", "window_memory"):
        assert counts["mark-symbol"] == sum(row["status"] == "measured" for row in rows)
    elif name == "window_error":
        assert counts["mark-symbol"] == 3 * 4
        assert counts["mark-text"] == 3
    elif name == "startup":
        assert counts["mark-symbol"] == 5 * 5
    elif name == "roofline":
        assert counts["mark-symbol"] == sum(row["status"] == "measured" and row["gflops"] is not None for row in rows)
        # L1 to L3 and memory whose ridge lies in the picture, and the peak
        assert counts["mark-rule"] == len(spec["datasets"]["roofs"])
    else:
        assert counts["mark-symbol"] == len(rows)


def test_a_tie_and_an_unclear_case_have_marks_of_their_own_in_the_map(data: Frames) -> None:
    cases = case_rows(data, sweeps(data.cases))
    svg = ET.fromstring(vl_convert.vegalite_to_svg(static(data, cases, pictures(data, cases).drawn["map_T"])))
    tiles = [group for group in svg.iter("{http://www.w3.org/2000/svg}g") if "role-mark" in group.get("class", "")]
    texts = [text for group in tiles if "mark-text" in group.get("class", "") for text in group]
    hatches = {path.get("d") for group in tiles if "mark-symbol" in group.get("class", "") for path in group}
    assert [text.text for text in texts].count("≈") == 2 * 4
    assert len(hatches) == 2
    unclear = [text for text in texts if (text.text or "").endswith("?")]
    assert len(unclear) == 2 * 4
    # the noisy backend has numba_cpu's time times 1.5 in half of the rounds and divided by it in the others
    assert all(1 / 1.6 < float((text.text or "")[:-1]) < 1.6 for text in unclear)
    assert {text.get("fill") for text in unclear} == {theme.TILE_INK["light"]["muted"]}


def test_a_point_of_the_roofline_is_its_operations_over_the_bytes_moved_once(data: Frames) -> None:
    cases = case_rows(data, sweeps(data.cases))
    (row,) = [row for row in cases if row["label"] == "lstm step T64 B16 I64 H128"]
    weights, traffic = 4 * 128 * (64 + 128), 64 * 16 * (64 + 128)
    biases = 2 * 4 * 128
    # float32, each with its gradient; four digits are kept
    assert row["intensity"] == pytest.approx(3 * 2 * weights * 64 * 16 / (2 * 4 * (weights + biases + traffic)), rel=1e-3)
    assert row["peak"] == 60.0
    lines = {line["name"]: line for line in chart_rows(data, cases)["roofs"] if line["dtype"] == "float32"}
    memory = lines["memory: 10 GB/s"]
    assert memory["y"] == pytest.approx(10 * memory["x"], rel=1e-3)
    assert (memory["x2"], memory["y2"]) == (6.0, 60.0)  # the ridge: 60 GFLOP/s over 10 GB/s


def test_a_noisy_case_is_marked_in_the_map(tmp_path: Path) -> None:
    cases = [Case("gru", "forward", T, 2, 16, H) for T in (8, 16) for H in (16, 32)]
    rows = [row for case in cases for row in (*times("a", [1.0] * 6, case), *times("b", [2.0] * 6, case))]
    disturbed = [Time(cases[0], name, i, 0, 1, [9.0], None, True) for name in "ab" for i in range(2)]
    frames = to_pandas(written(tmp_path, [*disturbed, *rows, END], cases=cases))
    cases_shown = case_rows(frames, sweeps(frames.cases))
    svg = vl_convert.vegalite_to_svg(static(frames, cases_shown, pictures(frames, cases_shown).drawn["map_T"]))
    assert [text.text for text in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")].count("!") == 1
    assert "gru forward T8 B2 I16 H16" in Elements(page.render(frames)).whole().split("Noisy", 1)[1]


def test_the_page_has_every_sample(data: Frames) -> None:
    cases = case_rows(data, sweeps(data.cases))
    rows = chart_rows(data, cases)["times"]
    drawn, whole = samples(data, rows)
    assert whole
    keys = list(data.cases["case"])
    for row, rounds in zip(rows[:200], drawn, strict=False):
        stored = list(data.samples.get((keys[row["case"]], row["backend"]), {}).values())
        if rounds is None:
            assert row["seconds"] is None or not stored
            continue
        # half of a ten-thousandth of the time of the row
        again = [[row["seconds"] * (1 + sample / 1e4) for sample in of_round] for of_round in rounds]
        np.testing.assert_allclose(again, stored, rtol=0, atol=0.51e-4 * row["seconds"])


def test_a_page_of_too_many_samples_has_the_median_of_each_round(data: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnbench.reports.rows.MAX_SAMPLES", 1000)
    rows = chart_rows(data, case_rows(data, sweeps(data.cases)))["times"]
    drawn, whole = samples(data, rows)
    assert not whole
    assert {len(of_round) for rounds in drawn if rounds for of_round in rounds} == {1}


def test_a_chart_without_data_is_left_out_with_the_suite_that_would_fill_it(tmp_path: Path) -> None:
    frames = to_pandas(written(tmp_path, [*times("a", [1.0] * 6), *times("b", [2.0] * 6), END]))
    shown = pictures(frames, case_rows(frames, sweeps(frames.cases)))
    assert not shown.drawn
    assert "the suite truncation would fill it" in shown.left_out["window_error"]
    assert "the suite startup would fill it" in page.render(frames)


def test_a_chart_that_is_listed_is_on_the_page_and_in_the_gallery(data: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    further = curves.LENGTH._replace(name="further", title="A further chart")
    monkeypatch.setattr(charts, "CHARTS", (*charts.CHARTS, further))
    text = page.render(data)
    assert 'data-chart="further"' in text.split('id="length"', 1)[1].split('id="hidden"', 1)[0]
    assert '"further":{"spec":' in text
    assert all_charts(data)["further"].to_dict()["title"]["text"] == "A further chart"


def test_the_map_over_batch_appears_where_the_batch_varies(tmp_path: Path) -> None:
    cases = [Case("gru", "forward", 8, B, 16, H) for B in (1, 2) for H in (16, 32)]
    rows = [row for case in cases for row in (*times("a", [1.0] * 6, case), *times("b", [2.0] * 6, case))]
    frames = to_pandas(written(tmp_path, rows, cases=cases))
    cases_shown = case_rows(frames, sweeps(frames.cases))
    picture = pictures(frames, cases_shown).drawn["map_B"]
    assert marks(vl_convert.vegalite_to_svg(static(frames, cases_shown, picture)))["mark-rect"] == 4


def test_a_backend_that_cannot_run_here_takes_no_room_in_charts(data: Frames) -> None:
    assert shown_backends(data) == ["numpy_ref", "numba_cpu", "torch_nn", "torch_eager", HOSTILE]


def test_charts_and_their_library_speak_the_same_version() -> None:
    assert altair.SCHEMA_VERSION.removeprefix("v").rsplit(".", 1)[0] in vl_convert.get_vegalite_versions()
