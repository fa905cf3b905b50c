"""Statistics of comparisons: intervals of ratios, tests, corrections for many cases, and when to stop measuring.

The unit is the round: one fresh process per backend, and one number per pair, the ratio of their times in that round.  Samples
from one process are correlated, so a test on pooled samples finds differences where there are none.  All ratios are
logarithms, so that twice as slow and twice as fast lie equally far from 0.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnnbench.compare.intervals import CONFIDENCE, MAX_ROUNDS, MIN_ROUNDS, Interval, median_interval, order_statistic
from rnnbench.compare.verdicts import CHANGE_BAND
from rnnbench.results.valid import log_ratio

NARROW = 0.015
"""Relative half-width of a ratio's interval at which a case has enough rounds."""


class Evidence(NamedTuple):
    """The interval of a log-ratio, and the p-values of the two claims.

    ``slower`` and ``faster``: the probability of rounds at least this extreme if the ratio does not exceed the threshold on
    that side.
    """

    interval: Interval
    slower: float
    faster: float


# intervals


def shift_interval(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """Estimate the shift from a to b: the median of all differences b_j - a_i, with the interval of the Mann-Whitney test.

    For unpaired values, such as the rounds of two runs.  The coverage is exact if both distributions differ only by a shift.
    For 12 normal values each it is 95% if one standard deviation is twice the other, and 93% if it is four times the other.
    With unequal sizes it is higher if the wider sample is larger, and lower if it is smaller (87% for 12 against 40 at four
    times); a run that continues until its interval is narrow avoids that.  All values are NaN if either sample is empty.
    Hodges and Lehmann 1963, "Estimates of location based on rank tests"; Hollander, Wolfe and Chicken 2014,
    "Nonparametric Statistical Methods", section 4.3.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    differences = np.sort(np.subtract.outer(b, a), axis=None)
    if len(differences) == 0:
        return Interval(np.nan, np.nan, np.nan, 0.0)
    below = np.cumsum(_mann_whitney(len(a), len(b)))  # below[u] = P(U <= u)
    k = max(int(np.searchsorted(below, (1 - confidence) / 2, side="right")), 1)
    coverage = max(0.0, 1 - 2 * float(below[k - 1]))
    return Interval(float(np.median(differences)), float(differences[k - 1]), float(differences[-k]), coverage)


@lru_cache(maxsize=4096)
def _mann_whitney(m: int, n: int) -> np.ndarray:
    """Return P(U = u) for u = 0 .. m*n if all orders of m and n values are equally likely.

    The largest value is one of the m with probability m / (m + n), and then exceeds all n.
    Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the other".
    """
    if m == 0 or n == 0:
        return np.ones(1)
    probabilities = np.zeros(m * n + 1)
    probabilities[n:] = _mann_whitney(m - 1, n) * (m / (m + n))
    probabilities[: m * (n - 1) + 1] += _mann_whitney(m, n - 1) * (n / (m + n))
    return probabilities


# one comparison


def log_ratios(a: Mapping[int, Sequence[float]], b: Mapping[int, Sequence[float]]) -> np.ndarray:
    """Return log(b / a) of every common round (``valid.log_ratio``); ``a`` and ``b`` are samples by round."""
    return np.array([log_ratio(a[number], b[number]) for number in sorted(a.keys() & b.keys())])


def paired(ratios: ArrayLike, threshold: float, confidence: float = CONFIDENCE) -> Evidence:
    """Return the evidence of within-round log-ratios, by the sign test; ``threshold`` is a log-ratio, 0 or more."""
    ratios = np.asarray(ratios, dtype=float)
    return Evidence(median_interval(ratios, confidence), _sign_test(ratios - threshold), _sign_test(-ratios - threshold))


def _sign_test(values: np.ndarray) -> float:
    """Return the p-value of the claim that the median is above 0."""
    from scipy import stats  # takes half a second to import, and a run needs none of it

    return float(stats.binomtest(int((values > 0).sum()), len(values), alternative="greater").pvalue) if len(values) else 1.0


def unpaired(a: ArrayLike, b: ArrayLike, threshold: float, confidence: float = CONFIDENCE) -> Evidence:
    """Return the evidence of the log-times of two runs, by the Mann-Whitney test."""
    from scipy import stats

    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    slower, faster = (
        float(stats.mannwhitneyu(above, below + threshold, alternative="greater", method="exact").pvalue)
        for above, below in ((b, a), (a, b))
    )
    return Evidence(shift_interval(a, b, confidence), slower, faster)


def threshold(noise: float = 0.0) -> float:
    """Return the log-ratio beyond which a difference counts: 2%, or the case's A/A noise (a log-ratio) if larger."""
    return max(math.log1p(CHANGE_BAND), noise)


def aa_p99(ratios: ArrayLike) -> float:
    """Return the 99th percentile of the absolute median log-ratio of a backend to itself, over the same number of rounds.

    The two names are interchangeable, so the sign of every round is random: 10,000 draws of signs, from a fixed seed.
    """
    ratios = np.asarray(ratios, dtype=float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (10_000, len(ratios)))
    return float(np.quantile(np.abs(np.median(signs * ratios, axis=1)), 0.99))


# many comparisons


def shared_confidence(backends: int) -> float:
    """Return the confidence of each of a case's intervals such that all hold together with 95% (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / backends


def adjusted_p_values(p_values: Sequence[float], backends: Sequence[int]) -> np.ndarray:
    """Adjust the p-values of one claim over the cases of one backend; values up to 5% are discoveries.

    Each is multiplied by the number of backends compared on its case (Bonferroni).  Then the false discovery rate over the
    cases is controlled (Benjamini and Hochberg 1995, "Controlling the false discovery rate").
    """
    from scipy import stats

    return stats.false_discovery_control(np.minimum(1.0, np.asarray(p_values) * np.asarray(backends)), method="bh")


# when to stop


def may_stop_after(rounds: int) -> bool:
    """Return whether a run may stop after ``rounds`` rounds if its intervals are narrow.

    True for 12, 15, 17, 20 and so on up to 40, where the interval uses an order statistic further inside than with one round
    less.  There its coverage is closest to 95% (at most 96.5%), and fewer looks leave less room for stopping by luck.
    """
    return MIN_ROUNDS <= rounds <= MAX_ROUNDS and order_statistic(rounds)[0] > order_statistic(rounds - 1)[0]


def enough(ratios: ArrayLike) -> bool:
    """Return whether a case needs no further round: its interval is narrow, or it has had 40 rounds.

    The rule looks at the width of the interval, never at its position: stopping at the first significant difference would
    always find one.
    """
    rounds = len(np.asarray(ratios))
    if rounds >= MAX_ROUNDS:
        return True
    return may_stop_after(rounds) and median_interval(ratios).half_width <= math.log1p(NARROW)
