"""The interval of a scaling exponent, and what the interval of a speed-up says."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from rnnbench.compare.inference import CONFIDENCE

MIN_ROUNDS = 5
"""With fewer values not even their whole range holds 90%: whatever it says is unclear."""

TIE_BAND = 0.05
"""Times this close are a tie: as much can come from link order and the size of the environment, which all rounds of a run
share (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!"), and none picks a backend
for it."""


class Exponent(NamedTuple):
    """The slope e of y ~ x**e with its interval; ``points`` is the number of distinct x."""

    value: float
    low: float
    high: float
    points: int


def scaling_exponent(x: ArrayLike, y: ArrayLike, confidence: float = CONFIDENCE) -> Exponent:
    """Fit y ~ x**e by least squares on logarithms, with Student's t interval; NaN for fewer than three distinct x."""
    x, y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    points = len(np.unique(x))
    if points < 3:
        return Exponent(np.nan, np.nan, np.nan, points)
    fit = stats.linregress(x, y)
    half = _student(len(x) - 2, confidence) * fit.stderr
    return Exponent(fit.slope, fit.slope - half, fit.slope + half, points)


@lru_cache
def _student(degrees: int, confidence: float) -> float:
    """How many standard errors reach to each side; SciPy takes a millisecond for it, and lines are of a few lengths."""
    return float(stats.t.ppf((1 + confidence) / 2, degrees))


def verdict(low: float, high: float, rounds: int) -> str:
    """What the interval of a speed-up says: faster, slower, tie (it lies within the band around 1) or unclear.

    Unclear: the interval contains 1 and reaches beyond the band, or it comes from fewer than ``MIN_ROUNDS`` rounds.
    The band is the same seen from the other backend: from 1 / (1 + TIE_BAND) to 1 + TIE_BAND.
    """
    if rounds < MIN_ROUNDS:
        return "unclear"
    if low >= 1 / (1 + TIE_BAND) and high <= 1 + TIE_BAND:
        return "tie"
    if low <= 1 <= high:
        return "unclear"
    return "faster" if low > 1 else "slower"
