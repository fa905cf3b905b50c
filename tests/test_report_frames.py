"""The frames of a report, its intervals and its sweeps: numbers against hand-computed ones.  About 5 s."""

from pathlib import Path

import numpy as np
import pytest
from helpers.report_runs import CASE, END, said, times, written

from rnnbench.compare.verdicts import ranking
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.reports import to_pandas
from rnnbench.reports.frames import Frames
from rnnbench.reports.intervals import scaling_exponent
from rnnbench.reports.sweeps import scaling, shared, sweeps
from rnnbench.results.rows import End, Failure, Gate, Memory, Time, Truncation
from rnnbench.suite.case import Case

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
    assert "round 6: a time of nan s was left out" in frames.problems[0]
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
        (0.97, 1.03, 12, "same"),
        (1 / 1.05, 1.05, 12, "same"),  # the band itself
        (1.005, 1.045, 12, "same"),  # certainly faster, but within 5%
        (1.005, 1.06, 12, "faster"),
        (0.2, 1.2, 12, "unclear"),  # contains 1, but the middle is far from it
        (0.99, 1.06, 12, "unclear"),
        (1.1, 1.3, 4, "unclear"),
        (0.99, 1.01, 4, "unclear"),
    ],
)
def test_verdicts(low: float, high: float, rounds: int, expected: str) -> None:
    assert ranking(low, high, rounds) == expected
    seen_from_the_other = {"faster": "slower", "slower": "faster"}.get(expected, expected)
    assert ranking(1 / high, 1 / low, rounds) == seen_from_the_other


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


def test_what_all_cases_have_in_common_is_told(tmp_path: Path) -> None:
    cases = [Case("lstm", "step", T, 2, H, H, layers=layers) for T, H, layers in ((4, 8, 1), (5, 16, 2))]
    common = "lstm, step, B = 2, I = H, one direction, tanh, bias, float32, threads = 1"
    assert shared(to_pandas(written(tmp_path, [], cases=cases)).cases) == common


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


def test_a_fitted_exponent_has_an_interval_only_where_each_of_its_points_has_one(data: Frames) -> None:
    """Five rounds give none of 95%, so that a line of such points has none either; its exponent stays."""
    for rounds, has in ((6, True), (5, False)):
        table = scaling(data.summary.assign(rounds=rounds), sweeps(data.cases))
        on_three = table[table["points"] >= 3]
        assert len(on_three)
        assert on_three["exponent"].notna().all()
        assert (on_three[["low", "high"]].notna() == has).all(axis=None)
