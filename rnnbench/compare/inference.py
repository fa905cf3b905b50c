"""Comparisons of times: intervals of ratios, when enough rounds were measured, and what may be said of many cases.

The unit is the round: one fresh process of each backend, and one number of two of them, their ratio in that round.  Samples
of one process are like each other, so a test on pooled samples finds differences where there are none.  All ratios are
logarithms, so that twice as slow and twice as fast lie equally far from 0.
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rnnbench.compare.intervals import CONFIDENCE, MAX_ROUNDS, MIN_ROUNDS, Interval, median_interval, order_statistic
from rnnbench.compare.verdicts import CHANGE_BAND
from rnnbench.results.valid import log_ratio

NARROW = 0.015
"""Half-width of a ratio's interval at which a case has been measured long enough."""


class Evidence(NamedTuple):
    """What the rounds say of one log-ratio: its interval, and the p-values of the two claims that can be made.

    ``slower`` and ``faster`` are the probabilities of such rounds, or clearer ones, if the ratio did not lie beyond the
    threshold on that side.
    """

    interval: Interval
    slower: float
    faster: float


# intervals


def shift_interval(a: ArrayLike, b: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """How far b lies above a: the median of all differences b_j - a_i, with the interval of the Mann-Whitney test.

    For values that have no partners, as the rounds of two separate runs.  The coverage is exact where both have one
    distribution, shifted.  Of twice 12 normal values it is 95% where one spreads twice as wide as the other, and 93% for
    four times; where the wider has more values it is higher, where it has fewer, lower (87% for 12 against 40, four times),
    which a run that goes on until its interval is narrow avoids.  All is NaN where either is empty.
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
    """P(U = u) for u = 0 .. m*n where all orders of m and n values are equally likely.

    The largest of all values is one of the m with probability m / (m + n), and then it lies above all n.
    Mann and Whitney 1947, "On a test of whether one of two random variables is stochastically larger than the other".
    """
    if m == 0 or n == 0:
        return np.ones(1)
    chances = np.zeros(m * n + 1)
    chances[n:] = _mann_whitney(m - 1, n) * (m / (m + n))
    chances[: m * (n - 1) + 1] += _mann_whitney(m, n - 1) * (n / (m + n))
    return chances


# one comparison


def log_ratios(a: Mapping[int, Sequence[float]], b: Mapping[int, Sequence[float]]) -> np.ndarray:
    """log(b / a) of every round that both have (``valid.log_ratio``); ``a`` and ``b`` are samples by round."""
    return np.array([log_ratio(a[number], b[number]) for number in sorted(a.keys() & b.keys())])


def paired(ratios: ArrayLike, threshold: float, confidence: float = CONFIDENCE) -> Evidence:
    """The evidence of within-round log-ratios, by the sign test; ``threshold`` is a log-ratio, 0 or more."""
    ratios = np.asarray(ratios, dtype=float)
    return Evidence(median_interval(ratios, confidence), _sign_test(ratios - threshold), _sign_test(-ratios - threshold))


def _sign_test(values: np.ndarray) -> float:
    """The p-value of a median above 0."""
    return float(stats.binomtest(int((values > 0).sum()), len(values), alternative="greater").pvalue) if len(values) else 1.0


def unpaired(a: ArrayLike, b: ArrayLike, threshold: float, confidence: float = CONFIDENCE) -> Evidence:
    """The evidence of logarithms of times of two separate runs, by the Mann-Whitney test."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    slower, faster = (
        float(stats.mannwhitneyu(above, below + threshold, alternative="greater", method="exact").pvalue)
        for above, below in ((b, a), (a, b))
    )
    return Evidence(shift_interval(a, b, confidence), slower, faster)


def threshold(noise: float = 0.0) -> float:
    """The log-ratio beyond which a difference counts: 2%, or the case's own A/A noise (a log-ratio) where that is more."""
    return max(math.log1p(CHANGE_BAND), noise)


def aa_p99(ratios: ArrayLike) -> float:
    """How far from 0 the median of a backend's log-ratios to itself lies in all but 1% of comparisons of so many rounds.

    Neither of the two names is anything special, so the sign of every round is a coin: 10,000 throws, always the same.
    """
    ratios = np.asarray(ratios, dtype=float)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (10_000, len(ratios)))
    return float(np.quantile(np.abs(np.median(signs * ratios, axis=1)), 0.99))


# many comparisons


def shared_confidence(backends: int) -> float:
    """The confidence of each interval of a case so that all its backends' hold together with 95% (Bonferroni)."""
    return 1 - (1 - CONFIDENCE) / backends


def discoveries(p_values: Sequence[float], backends: Sequence[int]) -> np.ndarray:
    """p-values of one claim over the cases of one backend, adjusted for all of them; found are those up to 5%.

    Each is multiplied by the number of backends compared in its case (Bonferroni), then the share of false ones among
    the found is controlled over the cases (Benjamini and Hochberg 1995, "Controlling the false discovery rate").
    """
    return stats.false_discovery_control(np.minimum(1.0, np.asarray(p_values) * np.asarray(backends)), method="bh")


# when to stop


def worth_a_look(rounds: int) -> bool:
    """Whether a run may stop after so many rounds if its intervals are narrow.

    12, 15, 17, 20 and so on up to 40: where the interval can use an order statistic further inside than with one round
    less.  There its coverage is least above 95% (at most 96.5%), and fewer looks leave less room for stopping by luck.
    """
    return MIN_ROUNDS <= rounds <= MAX_ROUNDS and order_statistic(rounds)[0] > order_statistic(rounds - 1)[0]


def enough(ratios: ArrayLike) -> bool:
    """Whether a case needs no further round: its interval is narrow, or there have been 40.

    It depends on the interval's width alone and never on where the interval lies: to stop at the first significant
    difference is to find one.
    """
    rounds = len(np.asarray(ratios))
    if rounds >= MAX_ROUNDS:
        return True
    return worth_a_look(rounds) and median_interval(ratios).half_width <= math.log1p(NARROW)
