"""Samples of one backend on one case, each between two readings of a canary.

A core that another machine uses too, or whose clock falls, is slower for milliseconds or for minutes, and no counter tells
it.  A fixed piece of work before and after each sample does: of what comes in bursts, samples are taken again at once, next
to those of the other backends; what lasts is left to the end of the round.
"""

import hashlib
import math
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

MOST_TIMES = 3
"""So many times as many samples are taken as asked for, at most."""

LONGEST_AGAIN = 0.25
"""Seconds.  Of a longer sample the readings beside it say little, and bursts are a part of it like any other."""

_ITERATIONS = 1000  # a fifth of a millisecond


class Samples(NamedTuple):
    """Seconds of the samples that count and of those that do not, and the median of the readings beside those that count."""

    kept: list[float]
    left_out: list[float]
    canary: float


def taken(take: Callable[[], float], count: int, limit: float | None) -> Samples:
    """``count`` samples with no reading beside them above ``limit`` seconds, as far as they come; None: there is no limit yet.

    ``take`` gives the seconds of a sample.  Where the first ``count`` all lie above the limit none is taken again.
    """
    most = math.inf if limit is None else limit
    found: list[tuple[float, float]] = []
    before = canary()
    while _more(found, count, most):
        seconds, after = take(), canary()
        found.append((seconds, max(before, after)))
        before = after
    found.sort(key=lambda sample: sample[1] > most)
    kept, left_out = found[:count], found[count:]
    return Samples([s for s, _ in kept], [s for s, _ in left_out], statistics.median(reading for _, reading in kept))


def _more(found: list[tuple[float, float]], count: int, most: float) -> bool:
    quiet = sum(reading <= most for _, reading in found)
    if len(found) < count:
        return True
    again = 0 < quiet < count and len(found) < MOST_TIMES * count
    return again and found[-1][0] <= LONGEST_AGAIN


def canary() -> float:
    """Seconds of a fixed piece of work within a core's registers, the least of three: they follow the core's speed."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"canary", b"", _ITERATIONS)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
