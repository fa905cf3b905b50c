"""The two intervals of the report: of a median, by the exact sign test, and of a scaling exponent, by least squares."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

CONFIDENCE = 0.95
FEWEST_ROUNDS = 5
"""With fewer values not even their whole range holds 90%, and no verdict is given."""


class Interval(NamedTuple):
    """A median with its interval; ``coverage`` is the exact probability with which the interval holds the true median."""

    median: float
    low: float
    high: float
    coverage: float


class Exponent(NamedTuple):
    """The slope e of y ~ x**e with its interval; ``points`` is the number of distinct x."""

    value: float
    low: float
    high: float
    points: int


def median_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The median of n values with the narrowest symmetric pair of order statistics that holds it with ``confidence``.

    The k-th smallest and k-th largest value hold the median with probability 1 - 2 P(Bin(n, 1/2) <= k - 1), whatever the
    distribution.  Below 6 values no pair reaches 95%: the interval is then the whole range, and ``coverage`` says
    what it is worth; all is NaN for no values.
    Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0.0)
    k, coverage = _order_statistic(n, confidence)
    return Interval(float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k]), coverage)


@lru_cache
def _order_statistic(n: int, confidence: float) -> tuple[int, float]:
    """The largest k >= 1 whose pair keeps the confidence (1 if none does), and what that pair's coverage is."""
    k = max(int(stats.binom.ppf((1 - confidence) / 2, n, 0.5)), 1)
    return k, max(0.0, 1 - 2 * float(stats.binom.cdf(k - 1, n, 0.5)))


def scaling_exponent(x: ArrayLike, y: ArrayLike, confidence: float = CONFIDENCE) -> Exponent:
    """Fit y ~ x**e by least squares on logarithms, with Student's t interval; NaN for fewer than three distinct x."""
    x, y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    points = len(np.unique(x))
    if points < 3:
        return Exponent(np.nan, np.nan, np.nan, points)
    fit = stats.linregress(x, y)
    half = float(stats.t.ppf((1 + confidence) / 2, len(x) - 2)) * fit.stderr
    return Exponent(fit.slope, fit.slope - half, fit.slope + half, points)
