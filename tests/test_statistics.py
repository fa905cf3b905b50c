"""Intervals hold what they promise, verdicts follow from them, and rounds stop on width alone.

Takes 6 s, most of it for the simulation of 40,000 runs.
"""

import itertools

import numpy as np
import pytest
from scipy import stats

from rnnbench.compare.inference import (
    MAX_ROUNDS,
    MIN_ROUNDS,
    aa_p99,
    adjusted_p_values,
    enough,
    log_ratios,
    may_stop_after,
    paired,
    shared_confidence,
    shift_interval,
    threshold,
    unpaired,
)
from rnnbench.compare.intervals import Interval, coverage_label, median_interval, order_statistic
from rnnbench.compare.verdicts import change
from rnnbench.results.valid import log_ratio
from rnnbench.selftests import interval_coverage
from rnnbench.selftests.interval_coverage import KINDS, coverage

RNG = np.random.default_rng(1)


# intervals


@pytest.mark.parametrize("n", [6, 7, 12, 13, 25, 40])
def test_the_interval_of_a_median_is_the_exact_sign_test(n: int) -> None:
    values = np.random.default_rng(n).lognormal(size=n)
    ours, theirs = median_interval(values), stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert (ours.low, ours.high) == (theirs.low, theirs.high)
    assert ours.coverage >= 0.95


def test_fewer_than_six_values_give_their_range_and_its_true_worth() -> None:
    assert median_interval([3, 1, 2, 5, 4]) == (3, 1, 5, 1 - 2 / 2**5)
    assert median_interval([2.0]) == (2, 2, 2, 0)
    assert np.isnan(median_interval([]).median)


def test_the_stated_coverage_of_12_values_is_the_count_over_all_signs() -> None:
    """Whether each value lies above the median is a fair coin: 4096 equally likely outcomes, counted."""
    k, stated = order_statistic(12)
    held = sum(k <= sum(signs) <= 12 - k for signs in itertools.product((0, 1), repeat=12))
    assert stated == pytest.approx(held / 2**12, abs=1e-12)
    assert stated == pytest.approx(0.9614, abs=5e-5)


@pytest.mark.parametrize(("m", "n"), [(5, 5), (4, 9), (12, 12), (12, 5)])
def test_the_interval_of_a_shift_holds_what_the_exact_mann_whitney_test_does_not_reject(m: int, n: int) -> None:
    """A shift is in the interval where the two-sided test of a moved by it against b has a p-value of 5% or more."""
    rng = np.random.default_rng([m, n])
    a, b = rng.normal(size=m), rng.normal(0.5, size=n)
    interval = shift_interval(a, b)
    edges = np.sort(np.subtract.outer(b, a), axis=None)
    for shift in (edges[1:] + edges[:-1]) / 2:
        p = stats.mannwhitneyu(b, a + shift, method="exact").pvalue
        assert interval.holds(shift) == (p >= 0.05)
    assert interval.median == np.median(edges)


def test_the_coverage_of_a_shift_is_stated_for_few_values_too() -> None:
    """Of the 20 orders of three and three values, one has all of b above a and one all below: the range holds 90%."""
    interval = shift_interval([1.0, 2.0, 4.0], [3.0, 7.0, 9.0])
    assert interval == (5.0, -1.0, 8.0, pytest.approx(0.9))
    assert np.isnan(shift_interval([], [1.0]).median)
    assert shift_interval([], [1.0]).coverage == 0


def test_turning_a_and_b_turns_the_interval() -> None:
    a, b = RNG.normal(size=12), RNG.normal(size=9)
    there, back = shift_interval(a, b), shift_interval(b, a)
    assert (there.low, there.median, there.high) == pytest.approx((-back.high, -back.median, -back.low))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_94_to_97_of_100_intervals_hold_the_true_ratio(kind: interval_coverage.Kind) -> None:
    """10,000 draws tell a share to 0.4 points (two standard errors); ``passed`` has the bar of 94 to 97%."""
    found = coverage(kind)
    assert found.passed, found
    for rounds, share in found.by_rounds.items():  # not only between the bars: what theory says, to four standard errors
        if kind.name != "drifting":  # the alternation balances the signs a little better than chance
            assert share == pytest.approx(order_statistic(rounds)[1], abs=4 * (0.04 * 0.96 / interval_coverage.DRAWS) ** 0.5)
    assert MIN_ROUNDS < found.mean_rounds < MAX_ROUNDS


def test_two_runs_on_a_drifting_machine_are_said_to_fail() -> None:
    """The table says that no interval helps there; it must not be said of what would pass."""
    (drifting,) = (kind for kind in KINDS if kind.name == interval_coverage.UNPAIRED_FAILS)
    found = coverage(drifting, draws=1000)
    assert found.two_runs < interval_coverage.BAR[0]
    assert "*" in interval_coverage.table([found], 1000)


def test_the_simulation_repeats_itself_and_fails_where_intervals_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    clustered = KINDS[-1]
    assert coverage(clustered, draws=300) == coverage(clustered, draws=300)
    assert coverage(clustered, draws=300) != coverage(clustered, draws=300, seed=1)
    monkeypatch.setattr(interval_coverage, "median_interval", lambda values: median_interval(values, 0.85))
    assert not coverage(clustered, draws=1000).passed


# evidence and verdicts


def test_only_rounds_that_both_have_are_paired() -> None:
    a, b = {0: [1.0], 1: [2.0], 3: [5.0]}, {1: [4.0], 2: [9.0], 0: [1.0]}
    assert log_ratios(a, b) == pytest.approx([0.0, np.log(2)])
    assert len(log_ratios({0: [1.0]}, {1: [1.0]})) == 0


def test_the_ratio_of_a_round_is_that_of_samples_taken_in_one_turn() -> None:
    """The machine halved its speed after the second sample of b and the third of a: the ratio of the medians is 2."""
    a, b = [1.0, 1.0, 1.0, 2.0, 2.0], [1.0, 1.0, 2.0, 2.0, 2.0]
    assert log_ratio(a, b) == 0.0
    assert log_ratio([1.0, 2.0, 4.0], [3.0, 6.0, 12.0]) == pytest.approx(np.log(3))


@pytest.mark.parametrize(
    ("a", "b"), [([1.0, 2.0, 3.0], [4.0]), ([0.0, 2.0, 2.0], [4.0, 4.0, np.inf]), ([2.0] * 2, [-1.0, 9.0])]
)
def test_samples_of_no_common_turns_are_compared_by_their_medians(a, b) -> None:
    assert log_ratio(a, b) == pytest.approx(np.log(2))


def test_the_p_values_are_those_of_claims_beyond_the_threshold() -> None:
    ratios = np.full(12, 0.03)
    assert paired(ratios, 0.02)[1:] == pytest.approx((2**-12, 1.0))
    assert paired(-ratios, 0.02)[1:] == pytest.approx((1.0, 2**-12))
    assert paired(ratios, 0.04)[1:] == pytest.approx((1.0, 1.0))
    assert paired([], 0.02)[1:] == (1.0, 1.0)
    a, b = np.linspace(0, 0.01, 5), np.linspace(0, 0.01, 5) + 0.0401
    assert unpaired(a, b, 0.02)[1:] == pytest.approx((1 / 252, 1.0))
    assert unpaired(b, a, 0.02)[1:] == pytest.approx((1.0, 1 / 252))
    assert unpaired(a, b, 0.06)[1:] == pytest.approx((1.0, 1.0))  # apart, and by less than the threshold


LIMIT = threshold()


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (LIMIT * 1.01, 0.5, "regression"),
        (LIMIT * 0.99, 0.5, "unclear"),
        (-0.5, -LIMIT * 1.01, "improvement"),
        (-0.5, -LIMIT * 0.99, "unclear"),
        (0.001, LIMIT * 0.99, "same"),  # significantly different, and too little to matter
        (-LIMIT, LIMIT, "same"),
        (-LIMIT * 1.01, LIMIT, "unclear"),
        (-0.5, 0.5, "unclear"),
    ],
)
def test_a_verdict_follows_from_where_the_interval_lies(low: float, high: float, expected: str) -> None:
    assert change(Interval((low + high) / 2, low, high, 0.96), LIMIT, 0.001, 0.001) == expected


def test_a_difference_needs_its_adjusted_p_value_and_an_interval_worth_its_name() -> None:
    clear = Interval(0.1, 0.09, 0.11, 0.96)
    assert change(clear, LIMIT, 0.05, 1.0) == "regression"
    assert change(clear, LIMIT, 0.051, 0.0) == "unclear"
    assert change(clear._replace(coverage=0.89), LIMIT, 0.0, 0.0) == "unclear"
    assert change(Interval(np.nan, np.nan, np.nan, 0.0), LIMIT, 1.0, 1.0) == "unclear"


def test_the_threshold_is_2_percent_or_the_case_s_own_noise() -> None:
    assert threshold() == threshold(0.01) == pytest.approx(np.log(1.02))
    assert threshold(0.07) == 0.07


def test_backends_share_the_5_percent_of_a_case_and_cases_the_share_of_false_finds() -> None:
    assert shared_confidence(1) == pytest.approx(0.95)
    assert shared_confidence(5) == pytest.approx(0.99)
    assert adjusted_p_values([0.01, 0.04, 0.5], [1, 1, 1]) == pytest.approx([0.03, 0.06, 0.5])
    assert adjusted_p_values([0.01, 0.04, 0.5], [2, 2, 3]) == pytest.approx([0.06, 0.12, 1.0])


def test_among_many_equal_cases_hardly_ever_one_is_found_different() -> None:
    """1000 suites of 100 cases without a difference: in at most 5% of them may a claim be made (BH's promise), and
    without the adjustment one would be in 88%: 1 - P(Bin(20, 1/2) < 15) ** 100."""
    rng = np.random.default_rng(2)
    suites = 1000
    p = stats.binom.sf(rng.binomial(20, 0.5, (suites, 100)) - 1, 20, 0.5)  # the sign test of 20 rounds
    found = sum(bool((adjusted_p_values(list(row), [1] * 100) <= 0.05).any()) for row in p)
    assert found / suites <= 0.05 + 3 * (0.05 * 0.95 / suites) ** 0.5
    assert (p <= 0.05).any(axis=1).mean() == pytest.approx(0.877, abs=0.03)


def test_the_99th_percentile_of_an_aa_comparison_is_that_of_fresh_ones() -> None:
    """From one A/A of 40 rounds, against the medians of 4000 others; one sample tells such a percentile to a third or so,
    as it tells the density at the median that the percentile depends on."""
    rng = np.random.default_rng(3)
    fresh = np.quantile(np.abs(np.median(rng.normal(0, 0.01, (4000, 40)), axis=1)), 0.99)
    guessed = [aa_p99(rng.normal(0, 0.01, 40)) for _ in range(20)]
    assert np.median(guessed) == pytest.approx(fresh, rel=0.2)
    assert aa_p99([0.01, -0.01, 0.01]) == pytest.approx(0.01)


# when to stop


def test_a_run_looks_where_its_interval_moves_inward() -> None:
    looks = [n for n in range(1, 60) if may_stop_after(n)]
    assert looks == [12, 15, 17, 20, 23, 25, 28, 30, 33, 35, 37, 40]
    assert all(0.95 <= order_statistic(n)[1] <= 0.97 for n in looks)


def test_rounds_stop_on_width_and_never_on_significance() -> None:
    narrow, wide = np.linspace(-0.004, 0.004, 12), np.linspace(-0.2, 0.2, 12)
    assert enough(narrow)
    assert enough(narrow + 5.0)
    assert not enough(wide)
    assert not enough(wide + 5.0)  # a difference beyond all doubt, and still not known to 1.5%
    assert not enough(narrow[:11])
    assert not enough(np.append(narrow, 0.0))  # 13 rounds: not a look
    assert not enough(np.resize(wide, 39))
    assert enough(np.resize(wide, 40))


@pytest.mark.parametrize(("half_width", "stops"), [(0.0149, True), (0.0151, False)])
def test_the_width_that_stops_is_1_5_percent(half_width: float, stops: bool) -> None:
    values = np.repeat([-1.0, 1.0], 6) * np.log1p(half_width)
    assert enough(values) is stops


@pytest.mark.parametrize(
    ("rounds", "said"), [(0, "0%"), (1, "0%"), (2, "50%"), (3, "75%"), (5, "93%"), (6, "95%"), (40, "95%")]
)
def test_no_interval_is_said_to_hold_more_than_its_rounds_carry(rounds, said):
    """1 - 2^(1 - n) for the whole range of n rounds, rounded down."""
    assert coverage_label(rounds) == said
