"""Confidence interval of a scaling exponent."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rnnbench.compare.inference import CONFIDENCE


class Exponent(NamedTuple):
    """Exponent e of y ~ x**e with its interval; ``points`` is the number of distinct x."""

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
    from scipy import stats  # takes half a second to import, and small runs have no such sweep

    fit = stats.linregress(x, y)
    half = _student(len(x) - 2, confidence) * fit.stderr
    return Exponent(fit.slope, fit.slope - half, fit.slope + half, points)


@lru_cache
def _student(degrees: int, confidence: float) -> float:
    """Half-width in standard errors; cached, since SciPy takes a millisecond and few distinct lengths occur."""
    from scipy import stats

    return float(stats.t.ppf((1 + confidence) / 2, degrees))
