"""Verdicts: what the interval of a ratio allows to claim.

``ranking`` decides which of two backends is faster; differences within 5% do not decide.  ``change`` decides whether a backend
has changed; to guard against many small losses, differences beyond 2% count.  Both call an interval within the band ``same``
and an undecided one ``unclear``.
"""

from rnnbench.compare.intervals import CONFIDENCE, Interval

FASTER, SLOWER, SAME, UNCLEAR = "faster", "slower", "same", "unclear"
REGRESSION, IMPROVEMENT = "regression", "improvement"

CHANGES = (REGRESSION, UNCLEAR, IMPROVEMENT, SAME)
"""The verdicts of ``change``, the most urgent first."""

RANKING_BAND = 0.05
"""Relative difference up to which two backends are the same.  Link order and environment size, which all rounds of a run
share, can cause as much (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!")."""

RANKING_MIN_ROUNDS = 5
"""Fewest rounds for a ranking: with fewer, even the whole range of values has less than 90% coverage."""

CHANGE_BAND = 0.02
"""Relative difference beyond which ``compare`` reports a regression or an improvement."""

CHANGE_MIN_COVERAGE = 0.9
"""Least coverage of an interval that allows a verdict."""


def ranking(low: float, high: float, rounds: int) -> str:
    """Return the verdict on a speed-up's interval: faster, slower, same (within the band around 1) or unclear.

    Unclear: the interval contains 1 and extends beyond the band, or has fewer than ``RANKING_MIN_ROUNDS`` rounds.  The band
    is symmetric in the two backends: from 1 / (1 + RANKING_BAND) to 1 + RANKING_BAND.
    """
    if rounds < RANKING_MIN_ROUNDS:
        return UNCLEAR
    if low >= 1 / (1 + RANKING_BAND) and high <= 1 + RANKING_BAND:
        return SAME
    if low <= 1 <= high:
        return UNCLEAR
    return FASTER if low > 1 else SLOWER


def change(interval: Interval, threshold: float, slower: float, faster: float) -> str:
    """Return the verdict on the interval of a log-ratio: regression, improvement, same or unclear.

    Regression and improvement need an interval wholly beyond the threshold and an adjusted p-value of at most 5%; same
    needs an interval within the threshold.  All else is unclear, as is an interval with too little coverage.
    """
    if interval.coverage < CHANGE_MIN_COVERAGE:
        return UNCLEAR
    if interval.low > threshold and slower <= 1 - CONFIDENCE:
        return REGRESSION
    if interval.high < -threshold and faster <= 1 - CONFIDENCE:
        return IMPROVEMENT
    return SAME if -threshold <= interval.low and interval.high <= threshold else UNCLEAR
