"""The interval of a median, by order statistics: what every table, chart and choice says of a handful of rounds."""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

CONFIDENCE = 0.95

MIN_ROUNDS, MAX_ROUNDS = 12, 40
"""Rounds: a run does not stop before the one, nor goes on after the other."""


class Interval(NamedTuple):
    """A median with its interval; ``coverage`` is the exact probability with which the interval holds the true median."""

    median: float
    low: float
    high: float
    coverage: float

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def held(rounds: int) -> str:
    """With how much the interval of so many rounds holds the median, for a heading: 95% from 6 rounds on, else what is true."""
    return f"{math.floor(100 * min(CONFIDENCE, order_statistic(rounds)[1]))}%" if rounds else "0%"


def median_interval(values: ArrayLike, confidence: float = CONFIDENCE) -> Interval:
    """The median of n values with the narrowest symmetric pair of order statistics that holds it with ``confidence``.

    The k-th smallest and k-th largest value hold the median with probability 1 - 2 P(Bin(n, 1/2) <= k - 1), whatever the
    distribution: the interval of the sign test.  ``coverage`` is that probability, so it is ``confidence`` or a little
    more: 96.1% for 12 values, 97.7% for 13, 95.9% for 20.  Interpolating between order statistics would give 95% for any n,
    but only nearly, and 93% once a run stops when the interval is narrow (``rnnbench self-test statistics``).
    Below 6 values no pair reaches 95%: the interval is then the whole range; all is NaN for no values.
    Conover 1999, "Practical Nonparametric Statistics", section 3.2.
    """
    ordered = np.sort(np.asarray(values, dtype=float)).tolist()
    n = len(ordered)
    if n == 0:
        return Interval(np.nan, np.nan, np.nan, 0.0)
    k, coverage = order_statistic(n, confidence)
    # numpy.median takes ten times as long for a handful of values; a NaN, which sorts last, is the median there too
    median = math.nan if math.isnan(ordered[-1]) else (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    return Interval(median, ordered[k - 1], ordered[n - k], coverage)


@lru_cache
def order_statistic(n: int, confidence: float = CONFIDENCE) -> tuple[int, float]:
    """The largest k >= 1 whose pair keeps the confidence (1 if none does), and what that pair's coverage is.

    Counted in whole numbers: scipy.stats has the binomial distribution too, and takes a second to import.
    """
    k, tail = 1, 1  # 2^n P(Bin(n, 1/2) <= k - 1)
    while k < n / 2 and 2 * (tail + math.comb(n, k)) <= (1 - confidence) * 2**n:
        tail += math.comb(n, k)
        k += 1
    return k, max(0.0, 1 - 2 * tail / 2**n)
