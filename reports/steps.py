"""Steps in a timeline: where the times of a series of runs change their level, by how much and how surely.

The places come from ruptures: of all ways to cut a timeline into pieces of one level each, the one with the least squares
for each number of pieces.  How many pieces there are is chosen by n log(sum of squares / n) + 6 log(n) for each step, the
criterion of Yao (1988, "Estimating the number of change-points via Schwarz' criterion") with a larger penalty, since it
is tried on many timelines of few points: of 100 without a step about one shows one (``tests/test_history.py`` tries it).
A step counts where the comparison of separate runs (``measure.statistics``) finds the points after it beyond 2% of those
before it.
"""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import numpy as np

from rnnbench.compare import inference, verdicts
from rnnbench.errors import MissingLibrary
from rnnbench.installing import how_to_install

MIN_SEGMENT = 3
"""So many points have one level: of fewer a step cannot be told from a noisy run."""

MIN_POINTS = 2 * MIN_SEGMENT

MAX_STEPS = 10

PENALTY = 6.0

NEAREST = 20
"""So many points to each side are compared: beyond it what else changed since counts for more than their number."""

RESOLUTION = 1e-3
"""Of a time: a sample lasts at least 1,000 ticks of the clock.  Spreads below it are none."""


class Step(NamedTuple):
    """``place`` is the first point after the step; ``ratio`` is time after over time before, with its interval and what
    that really holds."""

    place: int
    ratio: float
    low: float
    high: float
    coverage: float


def find_steps(seconds: Sequence[float]) -> list[Step]:
    """The steps of a timeline, one positive time for each run, in order; none for fewer than ``MIN_POINTS``.

    Raises MissingLibrary without ruptures.
    """
    values = np.log(np.asarray(seconds, dtype=float))
    if len(values) < MIN_POINTS:
        return []
    cuts = _cuts(values)
    while cuts:
        steps = [_step(values, *around) for around in zip([0, *cuts], cuts, [*cuts[1:], len(values)], strict=False)]
        doubtful = [step for step, counts in steps if not counts]
        if not doubtful:
            return [step for step, _ in steps]
        cuts.remove(min(doubtful, key=lambda step: abs(math.log(step.ratio))).place)  # and judge its neighbours anew
    return []


def require_ruptures() -> None:
    """Raise MissingLibrary where ruptures is missing."""
    try:
        import ruptures  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"a history needs ruptures, for Python below 3.14: {how_to_install('report')}") from error


def _cuts(values: np.ndarray) -> list[int]:
    """The places at which pieces of one level begin, by the criterion."""
    require_ruptures()
    import ruptures

    n = len(values)
    search = ruptures.KernelCPD(kernel="linear", min_size=MIN_SEGMENT)
    search.fit(values.reshape(-1, 1))
    found: dict[tuple[int, ...], float] = {}
    for steps in reversed(range(min(MAX_STEPS, n // MIN_SEGMENT - 1) + 1)):  # what the most takes holds all others
        cuts = tuple(cast("list[int]", search.predict(n_bkps=steps))[:-1]) if steps else ()
        squares = sum(float(np.var(values[a:b])) * (b - a) for a, b in pairwise([0, *cuts, n]))
        found[cuts] = n * math.log(squares / n + RESOLUTION**2) + PENALTY * steps * math.log(n)
    return list(min(found, key=lambda cuts: found[cuts]))


def _step(values: np.ndarray, start: int, place: int, end: int) -> tuple[Step, bool]:
    """A step, and whether it counts."""
    before, after = values[max(start, place - NEAREST) : place], values[place : min(end, place + NEAREST)]
    threshold = inference.threshold()
    interval, slower, faster = inference.unpaired(before, after, threshold)
    counts = verdicts.change(interval, threshold, slower, faster) in (verdicts.REGRESSION, verdicts.IMPROVEMENT)
    ratio, low, high = (math.exp(value) for value in interval[:3])
    return Step(place, ratio, low, high, interval.coverage), counts
