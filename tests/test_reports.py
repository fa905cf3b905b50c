"""Reports: numbers against hand-computed ones, sentences, charts that draw, and names that try to break the page.

About 15 s.
"""

import functools
import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import altair
import numpy as np
import pytest
import synthetic_results
import vl_convert
from synthetic_results import HOSTILE

from rnnbench.errors import ArgumentError, StoreError
from rnnbench.reports import page, read_asv, summary_text, theme, to_pandas, write_asv_html, write_html
from rnnbench.reports.answers import answers
from rnnbench.reports.charts import pictures, static
from rnnbench.reports.frames import Frames
from rnnbench.reports.intervals import scaling_exponent, verdict
from rnnbench.reports.reproduce import source
from rnnbench.reports.rows import case_rows, chart_rows, samples, shown_backends
from rnnbench.reports.sweeps import scaling, sweeps
from rnnbench.reports.thinned import thinned
from rnnbench.store import Case, End, Failure, Gate, Memory, Row, Run, Startup, Time, Truncation, Writer

ALL_CHARTS = ["map_T", "length", "hidden", "window_time", "window_error", "window_memory", "roofline", "startup", "gates"]
CASE = Case("lstm", "step", 4, 2, 3, 5)


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    synthetic_results.write_roofs(folder)
    return synthetic_results.write(folder / "grid.jsonl")


@pytest.fixture(scope="module")
def data(grid: Path) -> Frames:
    return to_pandas(grid)


@pytest.fixture(scope="module")
def html(grid: Path) -> str:
    return write_html(grid, grid.with_suffix(".html")).read_text(encoding="utf-8")


def written(
    path: Path,
    rows: Sequence[Row],
    *,
    cases: Sequence[Case] = (CASE,),
    backends: Sequence[str] = ("a", "b"),
    machine: str = "m",
) -> Path:
    """A results file of one run with these rows."""
    info: dict = {name: {} for name in backends}
    run = Run("r", "2025-01-01T00:00:00Z", "own", ["rnnbench", "run"], {"seed": 3}, {"machine": machine}, info, list(cases))
    with Writer(path / "own.jsonl") as writer:
        for row in (run, *rows):
            writer.append(row)
    return path / "own.jsonl"


def times(backend: str, medians: Sequence[float], case: Case = CASE) -> list[Time]:
    """One row per round; the median of its samples is the given number, their mean is not."""
    return [Time(case, backend, i, 0, 1, [0.5 * m, m, 9 * m]) for i, m in enumerate(medians)]


END = End("2025-01-01T01:00:00Z", 3600.0, 1.0)


# frames


def test_summary_agrees_with_hand_computed_numbers(tmp_path: Path) -> None:
    a = [2.0, 2.2, 1.8, 2.0, 2.1, 1.9]
    factors = [1.5, 3.0, 2.0, 2.5, 4.0, 1.6]  # b / a in each round
    b = [x * f for x, f in zip(a, factors, strict=True)]
    memory = Memory(CASE, "a", 1234)
    summary = to_pandas(written(tmp_path, [*times("a", a), *times("b", b), memory]), baseline="b").summary
    row = summary[summary["backend"] == "a"].iloc[0]
    assert row["status"] == "measured"
    assert row["rounds"] == 6
    assert row["seconds"] == pytest.approx(2.0)
    # 6 values: the pair of order statistics for 95% is the smallest and the largest, P = 1 - 2 / 2**6
    assert (row["seconds_low"], row["seconds_high"]) == pytest.approx((1.8, 2.2))
    assert row["coverage"] == pytest.approx(1 - 2 / 64)
    assert row["step_seconds"] == pytest.approx(0.5)
    # an LSTM's step: 3 * 8 B T H (I + H)
    assert row["gflops"] == pytest.approx(3 * 8 * 2 * 4 * 5 * (3 + 5) / 2.0 / 1e9)
    assert row["peak_bytes"] == 1234
    # the median of the within-round ratios is taken on logarithms: sqrt(2.0 * 2.5), not 2.25
    assert row["speedup"] == pytest.approx(np.sqrt(2.0 * 2.5))
    assert (row["speedup_low"], row["speedup_high"]) == pytest.approx((1.5, 4.0))
    assert row["verdict"] == "faster"


def test_a_ratio_pairs_rounds_and_ignores_rounds_that_one_backend_lacks(tmp_path: Path) -> None:
    # b drifts by a factor of 10 with the rounds and so does a: within a round b is always twice as slow
    drift = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    b = [*times("b", [2 * d for d in drift]), Time(CASE, "b", 77, 0, 1, [1e-9])]
    frames = to_pandas(written(tmp_path, [*times("a", drift), *b]), baseline="a")
    row = frames.summary[frames.summary["backend"] == "b"].iloc[0]
    assert row["speedup"] == pytest.approx(0.5)
    assert (row["speedup_low"], row["speedup_high"]) == pytest.approx((0.5, 0.5))
    assert frames.pairs["rounds"].tolist() == [6]


def test_times_that_no_clock_gives_are_left_out_and_named(tmp_path: Path) -> None:
    bad = [Time(CASE, "a", 6, 0, 1, []), Time(CASE, "a", 7, 0, 1, [0.0])]
    frames = to_pandas(written(tmp_path, [*times("a", [1.0] * 6), *bad, Time(CASE, "a", 0, 0, 1, [2.0])]))
    assert frames.summary["rounds"].tolist() == [6, 0]
    assert len(frames.problems) == 3
    assert "round 6: a time of nan s from 0 samples" in frames.problems[0]
    assert "round 0: timed twice" in frames.problems[2]


def test_a_failed_backend_keeps_its_row_and_its_reason(tmp_path: Path) -> None:
    cases = [Case("gru", "step", T, 1, 1, 1) for T in (1, 2, 3, 4)]
    rows = [
        Failure(cases[0], "a", "time", "timeout", "too slow", 3),
        *times("a", [1.0] * 6, cases[0]),
        Gate(cases[1], "a", False, {"y": (2.0, 1.0)}, 0.1),
        *times("a", [1.0] * 6, cases[1]),
        Failure(cases[2], "a", "memory", "error", "no /proc"),
        *times("a", [1.0] * 6, cases[2]),
    ]
    frames = to_pandas(written(tmp_path, rows, cases=cases, backends=["a"]))
    assert frames.summary["status"].tolist() == ["timeout", "wrong", "measured", "missing"]
    assert frames.failures["reason"].tolist() == ["timeout", "error"]


def test_error_over_tolerance_survives_zeros_and_missing_numbers(tmp_path: Path) -> None:
    errors = {"half": (0.5, 1.0), "none": (None, 1.0), "exact": (0.0, 0.0), "over": (1.0, 0.0)}
    gates = to_pandas(written(tmp_path, [Gate(CASE, "a", False, errors, 0.1)])).gates.set_index("tensor")
    np.testing.assert_array_equal(gates["error_over_tolerance"], [0.5, np.nan, 0.0, np.inf])


def test_truncation_error_reaches_every_dtype_and_thread_count(tmp_path: Path) -> None:
    one = Case("lstm", "tbptt", 8, 1, 1, 1, window=2)
    other = Case("lstm", "tbptt", 8, 1, 1, 1, window=2, dtype="float64", threads=4)
    wider = Case("lstm", "tbptt", 8, 1, 1, 1, window=4)
    frames = to_pandas(written(tmp_path, [Truncation(one, 0.25, {})], cases=[one, other, wider], backends=["a"]))
    np.testing.assert_array_equal(frames.truncation["relative_error"], [0.25, 0.25, np.nan])


def test_operations_are_unknown_where_steps_run_twice_or_no_network_exists(tmp_path: Path) -> None:
    cases = [
        Case("lstm", "tbptt", 8, 1, 1, 1, window=4),
        Case("lstm", "tbptt", 8, 1, 1, 1, window=4, stride=2),
        Case("nothing", "step", 8, 1, 1, 1),
    ]
    flops = to_pandas(written(tmp_path, [], cases=cases)).cases["flops"]
    np.testing.assert_array_equal(flops, [cases[0].spec().step_flops(8, 1), np.nan, np.nan])


def test_the_default_baseline_is_fastest_in_most_cases(data: Frames) -> None:
    assert data.baseline == "numba_cpu"


def test_a_wrong_baseline_is_refused(grid: Path) -> None:
    with pytest.raises(ArgumentError, match="baseline is 'fast'; expected one of numpy_ref"):
        to_pandas(grid, baseline="fast")


def test_a_folder_with_two_files_is_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        written(tmp_path / name, [])
    with pytest.raises(StoreError, match="holds 2 results files"):
        to_pandas(tmp_path)


def test_frames_of_a_run_without_results_have_their_columns(tmp_path: Path) -> None:
    empty = to_pandas(written(tmp_path, []))
    assert empty.summary["status"].tolist() == ["missing", "missing"]
    assert {"case", "T", "backend", "round", "seconds"} <= set(empty.times.columns)
    assert empty.baseline is None


# intervals


@pytest.mark.parametrize(
    ("low", "high", "rounds", "expected"),
    [
        (1.1, 1.3, 12, "faster"),
        (0.7, 0.9, 12, "slower"),
        (0.97, 1.03, 12, "tie"),
        (1 / 1.05, 1.05, 12, "tie"),  # the band itself
        (1.005, 1.045, 12, "tie"),  # certainly faster, but within 5%
        (1.005, 1.06, 12, "faster"),
        (0.2, 1.2, 12, "unclear"),  # contains 1, but the middle is far from it
        (0.99, 1.06, 12, "unclear"),
        (1.1, 1.3, 4, "unclear"),
        (0.99, 1.01, 4, "unclear"),
    ],
)
def test_verdicts(low: float, high: float, rounds: int, expected: str) -> None:
    assert verdict(low, high, rounds) == expected
    seen_from_the_other = {"faster": "slower", "slower": "faster"}.get(expected, expected)
    assert verdict(1 / high, 1 / low, rounds) == seen_from_the_other


def test_scaling_exponent_is_the_slope_on_logarithms() -> None:
    x = np.array([16, 32, 64, 128, 256])
    assert scaling_exponent(x, 3 * x**1.5) == pytest.approx((1.5, 1.5, 1.5, 5), abs=1e-6)
    noisy = scaling_exponent(x, 3 * x**1.5 * np.array([1.1, 0.9, 1.0, 0.9, 1.1]))
    assert noisy.low < 1.5 < noisy.high
    assert np.isnan(scaling_exponent(x[:2], x[:2]).value)


# sweeps


def test_a_line_holds_all_else_fixed(data: Frames) -> None:
    groups = sweeps(data.cases)
    for picture, shown in (
        ("T", {"T", "cell"}),
        ("H", {"H", "cell"}),
        ("map_T", {"T", "H", "cell"}),
        ("window", {"window", "cell"}),
    ):
        numbered = data.cases.assign(sweep=data.cases["case"].map(groups.index[picture])).dropna(subset=["sweep"])
        for _, group in numbered.groupby("sweep"):
            varying = {name for name in Case.__struct_fields__ if group[name].nunique(dropna=False) > 1}
            assert varying <= shown


def test_a_cell_with_one_length_makes_no_line(tmp_path: Path) -> None:
    cases = [*(Case("gru", "step", T, 1, 8, 8) for T in (16, 32)), Case("lstm", "step", 16, 1, 8, 8)]
    groups = sweeps(to_pandas(written(tmp_path, [], cases=cases)).cases)
    assert set(groups.index["T"]) == {case.key() for case in cases[:2]}


def test_a_run_that_went_on_ends_where_it_ended_last(tmp_path: Path) -> None:
    rows = [End("2025-01-01T01:00:00Z", 1.0, 0.0, interrupted=True), *times("a", [1.0] * 6), END]
    assert "interrupted" not in said(written(tmp_path, rows))


def test_input_size_follows_hidden_size_where_that_is_the_longer_line(tmp_path: Path) -> None:
    tied = [Case("gru", "step", 8, 1, H, H) for H in (16, 32, 64)]
    fixed = [Case("gru", "step", 8, 2, 32, H) for H in (16, 32, 64)]
    groups = sweeps(to_pandas(written(tmp_path, [], cases=tied + fixed)).cases)
    numbers = [groups.index["H"][case.key()] for case in tied + fixed]
    assert numbers in ([0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0])
    assert sorted(groups.labels["H"]) == ["B = 1, I = H", "B = 2, I = 32"]


def test_the_fitted_exponent_uses_one_line_at_a_time(data: Frames) -> None:
    groups = sweeps(data.cases)
    fits = scaling(data.summary, groups)
    line = fits[(fits["picture"] == "H") & (fits["cell"] == "gru") & (fits["backend"] == "numpy_ref")].iloc[0]
    cases = [key for key, number in groups.index["H"].items() if number == line["sweep"]]
    rows = data.summary[data.summary["case"].isin(cases) & (data.summary["cell"] == "gru")]
    rows = rows[rows["backend"] == "numpy_ref"]
    assert len(rows) == 4
    slope = np.polyfit(np.log(rows["H"].astype(float)), np.log(rows["step_seconds"]), 1)[0]
    assert line["exponent"] == pytest.approx(slope)


# sentences


def said(path: Path) -> str:
    return "\n".join(line for answer in answers(to_pandas(path)) for line in (answer.text, *answer.details))


def test_a_win_a_tie_and_a_loss_are_called_so(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30)]
    wobble = [1.0, 1.01, 0.99, 1.0, 1.02, 0.98]
    rows = [
        *times("a", [1.0] * 6, cases[0]), *times("b", [3.0] * 6, cases[0]),
        *times("a", [1.0] * 6, cases[1]), *times("b", wobble, cases[1]),
        *times("a", [2.0] * 6, cases[2]), *times("b", [1.0] * 6, cases[2]),
        END,
    ]  # fmt: skip
    text = said(written(tmp_path, rows, cases=cases))
    assert (
        "For a training step (forward and BPTT), a is fastest in 1 of 3 cases, b in 1; 1 case is tied between a and b." in text
    )
    assert "lstm: a is fastest in 1 of 3 cases, b in 1 (T = 30); 1 case is tied between a and b (T = 20)." in text
    assert "b runs at 1× the speed of a (0.33× to 2×): faster in 1, slower in 1, tied in 1 of 3 cases." in text  # noqa: RUF001
    assert "Every backend completed every case." in text


NOISE = [0.3, 2.0, 0.5, 0.4, 3.0, 0.5]  # median 0.5, interval from 0.3 to 3


def test_a_noisy_comparison_is_unclear_and_no_tie(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 1, 1, 1) for T in (10, 20, 30, 40)]
    rows = [row for case in cases for row in times("a", [1.0] * 6, case)]
    rows += [*times("b", [3.0] * 6, cases[0]), *times("b", [1.01] * 6, cases[1])]
    rows += [row for case in cases[2:] for row in times("b", NOISE, case)]
    text = said(written(tmp_path, [*rows, END], cases=cases))
    assert "a is fastest in 1 of 4 cases; 1 case is tied between a and b, 2 are unclear." in text
    assert "1 case is tied between a and b (T = 20), 2 are unclear (T = 30; T = 40)." in text
    assert "slower in 1, tied in 1, unclear in 2 of 4 cases." in text


def test_a_tie_with_one_rival_is_unclear_while_another_may_be_faster(tmp_path: Path) -> None:
    rows = [*times("a", [1.0] * 6), *times("b", [1.01] * 6), *times("c", [2.2 * x for x in NOISE])]
    text = said(written(tmp_path, [*rows, END], backends=["a", "b", "c"]))
    assert "no backend is clearly fastest in the only case; 1 case is unclear." in text


def test_backends_that_were_never_timed_in_one_round_are_unclear(tmp_path: Path) -> None:
    other = [Time(CASE, "b", 10 + i, 0, 1, [5.0]) for i in range(6)]
    assert "1 case is unclear" in said(written(tmp_path, [*times("a", [1.0] * 6), *other, END]))


def test_a_slow_starter_catches_up_only_where_it_is_clearly_faster(tmp_path: Path) -> None:
    clear, noisy = Case("lstm", "step", 10, 1, 1, 1), Case("lstm", "step", 20, 1, 1, 1)
    rows = [*times("a", [1.0] * 6, clear), *times("b", [0.5] * 6, clear)]
    rows += [*times("a", [1.0] * 6, noisy), *times("b", NOISE, noisy)]
    for case in (clear, noisy):
        rows += [Startup(case, "a", 0, True, 0.5, 0.25, 0.25), Startup(case, "b", 0, True, 5.0, 2.0, 3.0)]
    text = said(written(tmp_path, [*rows, END], cases=[clear, noisy]))
    # 1 + (n - 1) * 1.0 = 10 + (n - 1) * 0.5 at n = 19
    assert "b, started with an empty cache, has caught up with a after 19 calls, where it is the faster one (1 case)." in text


def test_too_few_rounds_are_unclear(tmp_path: Path) -> None:
    text = said(written(tmp_path, [*times("a", [1.0] * 3), *times("b", [3.0] * 3), END]))
    assert "1 case is unclear" in text
    assert "Below 5 rounds every comparison is unclear." in text
    assert "a is fastest" not in text
    assert "with care: 3 rounds at most." in text
    assert "holds the median with 75.0%" in text


def test_failures_are_called_failures(grid: Path) -> None:
    text = summary_text(grid)
    assert "numba_cuda could not run on this machine: numba_cuda needs an NVIDIA GPU: none was found" in text
    assert "torch_nn does not support 4 cases." in text
    assert "numpy_ref ran out of time on 2 cases." in text
    assert "torch_eager crashed on 1 case." in text
    assert "torch_eager gave wrong results on 1 case." in text
    assert "3 lines of the results file could not be used" in text


def test_a_wrong_backend_does_not_win(tmp_path: Path) -> None:
    gate = Gate(CASE, "a", False, {"y": (2.0, 1.0), "dx": (0.1, 1.0)}, 0.1)
    text = said(written(tmp_path, [gate, *times("a", [0.1] * 6), *times("b", [1.0] * 6), END]))
    assert "a is fastest" not in text
    assert "1 of 1 check against the reference failed: a." in text
    assert "a on lstm step T4 B2 I3 H5: y." in text


def test_what_truncation_buys_and_costs_is_said(grid: Path) -> None:
    text = summary_text(grid)
    # errors of the made-up file: 2 exp(-window / 40) = 8.2% at 128, above 10% at 32 and 8
    assert "Truncated BPTT keeps the gradient within 10% of full BPTT from a window of 128 steps on." in text
    # peak memory 2 MB + window * B * H * gates * 8: (2 + 8.39) / (2 + 67.1) for lstm
    assert (
        "lstm (T = 1024, H = 128): a window of 128 keeps the gradient within 8.2% of full BPTT; numba_cpu then needs 15% of"
        in text
    )


def test_a_run_that_was_cut_off_says_so(tmp_path: Path) -> None:
    path = written(tmp_path, times("a", [1.0] * 6))
    assert "with care: the run was interrupted." in said(path)


def test_a_run_without_times_says_so(tmp_path: Path) -> None:
    text = said(written(tmp_path, []))
    assert "Nothing was timed in this run" in text
    assert "Correctness was not checked" in text


def test_names_cannot_steer_a_terminal(tmp_path: Path) -> None:
    name = "red\x1b[31m\u202e"
    text = summary_text(written(tmp_path, times(name, [1.0] * 6), backends=[name]))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "red\\x1b[31m" in text


def test_a_quiet_run_says_what_its_numbers_rest_on(tmp_path: Path) -> None:
    case = Case("lstm", "step", 10, 1, 1, 1)
    # the ratios' interval is from 1.9 to 2.1: half of its width on logarithms is sqrt(2.1 / 1.9) - 1 = 5.1% ...
    rows = [*times("a", [1.0] * 12, case), *times("b", [1.9, 2.1] * 6, case)]
    assert "half of the speeds are known no better than to 5.1%" in said(written(tmp_path, [*rows, END], cases=[case]))
    # ... and from 1.98 to 2.02 it is 1.0%
    (tmp_path / "quiet").mkdir()
    rows = [*times("a", [1.0] * 12, case), *times("b", [1.98, 2.02] * 6, case)]
    text = said(written(tmp_path / "quiet", [*rows, END], cases=[case]))
    assert "Nothing in this run speaks against its numbers. These numbers rest on 12 rounds of fresh processes," in text
    assert "half of the speeds against a are known to within 1% and no round was disturbed." in text


def test_what_rnnbench_machine_found_wrong_is_told(grid: Path) -> None:
    assert "rnnbench machine found 1 thing wrong for measuring" in summary_text(grid)


def test_the_part_of_the_peak_is_told_and_a_roof_that_is_too_low_is_called_so(tmp_path: Path) -> None:
    case = Case("lstm", "step", 10, 16, 64, 128)
    flops = 3 * 8 * 16 * 10 * 128 * (64 + 128)
    synthetic_results.write_roofs(tmp_path)  # 60 GFLOP/s with one thread in float32
    rows = [*times("a", [flops / 30e9] * 6, case), *times("b", [flops / 90e9] * 6, case), END]
    text = said(written(tmp_path, rows, cases=[case], machine="example"))
    assert "At best b reaches 150% of the machine's measured multiply-add peak (float32, 1 thread)." in text
    assert "the roof was measured too low (float32, 1 thread): measure it again." in text
    assert "float32, 1 thread, peak 60 GFLOP/s: b 150% (lstm step T10 B16 I64 H128) and a 50% (" in text


def test_the_roofs_of_another_machine_are_left_alone(tmp_path: Path) -> None:
    synthetic_results.write_roofs(tmp_path)
    frames = to_pandas(written(tmp_path, [*times("a", [1.0] * 6), END]))
    assert (frames.look, frames.roofs) == (None, None)
    assert "rnnbench machine measures and stores them" in Elements(page.render(frames)).whole()


# charts


def marks(svg: str) -> dict[str, int]:
    """How many marks of each kind an SVG holds; axes and legends are none."""
    counts: dict[str, int] = {}
    for group in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}g"):
        kind, *roles = group.get("class", "none").split()
        if "role-mark" in roles:
            counts[kind] = counts.get(kind, 0) + len(group)
    return counts


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
        stored = data.samples.get((keys[row["case"]], row["backend"]), [])
        if rounds is None:
            assert row["seconds"] is None or not stored
            continue
        # half of a ten-thousandth of the time of the row
        again = [[row["seconds"] * (1 + sample / 1e4) for sample in of_round] for of_round in rounds]
        np.testing.assert_allclose(again, stored, rtol=0, atol=0.51e-4 * row["seconds"])


def test_a_page_of_too_many_samples_has_the_median_of_each_round(data: Frames, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rnnbench.reports.rows.MOST_SAMPLES", 1000)
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


def test_the_map_over_batch_appears_where_the_batch_varies(tmp_path: Path) -> None:
    cases = [Case("gru", "forward", 8, B, 16, H) for B in (1, 2) for H in (16, 32)]
    rows = [row for case in cases for row in (*times("a", [1.0] * 6, case), *times("b", [2.0] * 6, case))]
    frames = to_pandas(written(tmp_path, rows, cases=cases))
    cases_shown = case_rows(frames, sweeps(frames.cases))
    picture = pictures(frames, cases_shown).drawn["map_B"]
    assert marks(vl_convert.vegalite_to_svg(static(frames, cases_shown, picture)))["mark-rect"] == 4


def test_a_backend_that_cannot_run_here_takes_no_room_in_charts(data: Frames) -> None:
    assert shown_backends(data) == ["numpy_ref", "numba_cpu", "torch_nn", "torch_eager", HOSTILE]


# the page


class Elements(HTMLParser):
    """The elements of a page, and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.scripts: list[str] = []
        self.text: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def whole(self) -> str:
        return "".join(self.text)

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.text.append(data)


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
    monkeypatch.setattr(page, "thinned", functools.partial(thinned, most=600))
    text = page.render(data)
    payload = json.loads(Elements(text).scripts[0])
    kept = payload["cases"]["length"]
    assert kept == 600 * len(data.cases) // (len(data.summary) + len(data.pairs))
    assert f"The charts and the table have {kept} of its {len(data.cases)} cases" in Elements(text).whole()
    # sentences and worst errors are of the whole run
    assert answers(data)[1].text in Elements(text).whole()
    worst = data.gates.loc[data.gates["error_over_tolerance"].idxmax(), "case"]
    label = data.cases.set_index("case").loc[worst, "label"]
    labels = payload["cases"]["columns"]["label"]
    assert label in (labels if isinstance(labels, list) else labels["names"])


def test_long_tables_say_how_much_they_leave_out(tmp_path: Path) -> None:
    cases = [Case("gru", "step", T, 1, 1, 1) for T in range(1, 251)]
    rows = [Failure(case, "a", "load", "error", "x" * 5000) for case in cases]
    text = page.render(to_pandas(written(tmp_path, rows, cases=cases)))
    assert "And 50 more, which are in the table of cases" in Elements(text).whole()
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
    assert "reports need altair: pip install 'rnnbench[report]'" in done.stderr


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


def test_charts_and_their_library_speak_the_same_version() -> None:
    assert altair.SCHEMA_VERSION.removeprefix("v").rsplit(".", 1)[0] in vl_convert.get_vegalite_versions()
