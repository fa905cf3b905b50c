"""Steps in a timeline: where the times of successive runs change level, by how much, and with what certainty.

ruptures finds the least-squares segmentation for each number of segments.  The number of segments minimises
n log(sum of squares / n) + 6 log(n) per step, the criterion of Yao (1988, "Estimating the number of change-points via
Schwarz' criterion") with a larger penalty, because it is applied to many short timelines: about 1 in 100 timelines without a
step shows one (``tests/test_history.py`` checks it).  A step counts only if the comparison of separate runs
(``compare.inference``) finds the points after it more than 2% away from those before it.
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
"""Minimum number of points per level; with fewer, a step cannot be told from a noisy run."""

MIN_POINTS = 2 * MIN_SEGMENT

MAX_STEPS = 10

PENALTY = 6.0

NEAREST = 20
"""Maximum number of points compared on each side of a step; further points reflect other changes more than this one."""

RESOLUTION = 1e-3
"""Relative resolution of a time (a sample lasts at least 1,000 clock ticks); smaller spreads count as zero."""


class Step(NamedTuple):
    """``place``: index of the first point after the step.  ``ratio``: time after / time before, with interval and coverage."""

    place: int
    ratio: float
    low: float
    high: float
    coverage: float


def find_steps(seconds: Sequence[float]) -> list[Step]:
    """Find the steps of a timeline of positive times, one per run, in order; none below ``MIN_POINTS``.

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
        cuts.remove(min(doubtful, key=lambda step: abs(math.log(step.ratio))).place)  # then judge its neighbours again
    return []


def require_ruptures() -> None:
    """Raise MissingLibrary where ruptures is missing."""
    try:
        import ruptures  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"a history needs ruptures, for Python below 3.14: {how_to_install('report')}") from error


def _cuts(values: np.ndarray) -> list[int]:
    """Indices at which levels begin, by the criterion."""
    require_ruptures()
    import ruptures

    n = len(values)
    search = ruptures.KernelCPD(kernel="linear", min_size=MIN_SEGMENT)
    search.fit(values.reshape(-1, 1))
    found: dict[tuple[int, ...], float] = {}
    # most steps first: the search for them covers all smaller numbers
    for steps in reversed(range(min(MAX_STEPS, n // MIN_SEGMENT - 1) + 1)):
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
