"""What the interval of a ratio allows to be said, in one set of words at two bands.

Which of two backends is faster (``ranking``) picks a backend, and a difference within 5% picks none.  Whether a backend has
changed (``change``) guards against many small losses: a difference counts beyond 2%.  What cannot be told apart is the
``same``, what was measured too little ``unclear``.
"""

from rnnbench.compare.intervals import CONFIDENCE, Interval

FASTER, SLOWER, SAME, UNCLEAR = "faster", "slower", "same", "unclear"
REGRESSION, IMPROVEMENT = "regression", "improvement"

CHANGES = (REGRESSION, UNCLEAR, IMPROVEMENT, SAME)
"""All that ``change`` says, what needs attention first."""

RANKING_BAND = 0.05
"""Times this close are the same: as much can come from link order and the size of the environment, which all rounds of a run
share (Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong!")."""

RANKING_MIN_ROUNDS = 5
"""With fewer values not even their whole range holds 90%: whatever it says is unclear."""

CHANGE_BAND = 0.02
"""A difference no larger than this is none: the least that ``compare`` calls a regression."""

CHANGE_MIN_COVERAGE = 0.9
"""An interval that holds less, for want of rounds, gives no verdict."""


def ranking(low: float, high: float, rounds: int) -> str:
    """What the interval of a speed-up says: faster, slower, same (it lies within the band around 1) or unclear.

    Unclear: the interval contains 1 and reaches beyond the band, or it comes from fewer than ``RANKING_MIN_ROUNDS`` rounds.
    The band is the same seen from the other backend: from 1 / (1 + RANKING_BAND) to 1 + RANKING_BAND.
    """
    if rounds < RANKING_MIN_ROUNDS:
        return UNCLEAR
    if low >= 1 / (1 + RANKING_BAND) and high <= 1 + RANKING_BAND:
        return SAME
    if low <= 1 <= high:
        return UNCLEAR
    return FASTER if low > 1 else SLOWER


def change(interval: Interval, threshold: float, slower: float, faster: float) -> str:
    """What the interval of a log-ratio says: ``regression`` or ``improvement`` where it lies wholly beyond the threshold and
    the adjusted p-value of that claim is at most 5%, ``same`` where it lies within, else ``unclear``, as for an interval
    with too little coverage."""
    if interval.coverage < CHANGE_MIN_COVERAGE:
        return UNCLEAR
    if interval.low > threshold and slower <= 1 - CONFIDENCE:
        return REGRESSION
    if interval.high < -threshold and faster <= 1 - CONFIDENCE:
        return IMPROVEMENT
    return SAME if -threshold <= interval.low and interval.high <= threshold else UNCLEAR
