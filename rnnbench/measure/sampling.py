"""Passes: in each one every backend takes one sample of a case, between two readings of a canary.

The samples of a pass lie milliseconds apart, so what the machine does for longer is in all of them and not in their ratios.
A core that another machine uses too, or whose clock falls, is slower for milliseconds or for minutes, and no counter tells
it.  A fixed piece of work before and after each sample does: passes in which a core was slow are made again at once; what
lasts is left to the end of the round.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

MAX_REPEATS = 2
"""So many times as many passes are made as asked for, at most: each takes the time of all backends."""

MAX_SAMPLE_SECONDS = 0.5
"""Seconds of a sample of several calls, however many the fastest backend needs, or says that it does."""

MAX_REPEAT_SECONDS = 0.25
"""Seconds of all samples of a pass.  Of longer ones the readings say little, bursts are a part of them, and they take long."""

_ITERATIONS = 1000  # a fifth of a millisecond


class Sample(NamedTuple):
    """Seconds of one sample of a backend, per call of ``loops``, and what the machine did meanwhile, where its worker tells.

    ``device``: seconds per call of as many calls more, by the clock of the backend's device, where it offers a timer.
    """

    seconds: float
    events: Mapping[str, float] | None = None
    device: float | None = None
    loops: int = 1

    @property
    def canary(self) -> float | None:
        """Seconds of the slower one of the readings beside it."""
        return (self.events or {}).get("canary_s")


Pass = Mapping[str, Sample]
"""By backend, without those that failed."""


class Passes(NamedTuple):
    """The passes that count and those that do not, each in the order in which they were made."""

    kept: list[Pass]
    left_out: list[Pass]


def made(make: Callable[[int], Pass], count: int, limit: float | None) -> Passes:
    """``count`` passes with no reading above ``limit`` seconds, as far as they come; None: there is no limit yet.

    ``make`` makes the pass of that number.  Where the first ``count`` all have a reading
    above the limit none is made again.  A pass with a backend of which there is no reading is as good as any: to choose
    by the readings of the others would favour these.
    """
    most = math.inf if limit is None else limit
    found: list[Pass] = []
    while _more(found, count, most):
        found.append(make(len(found)))
    slow = [_slow(one, most) for one in found]
    chosen = sorted(sorted(range(len(found)), key=slow.__getitem__)[:count])
    return Passes([found[n] for n in chosen], [one for n, one in enumerate(found) if n not in chosen])


def _more(found: list[Pass], count: int, most: float) -> bool:
    if len(found) < count:
        return True
    quiet = sum(not _slow(one, most) for one in found)
    lasted = sum(sample.seconds * sample.loops for sample in found[-1].values())
    return 0 < quiet < count and len(found) < MAX_REPEATS * count and lasted <= MAX_REPEAT_SECONDS


def _slow(one: Pass, most: float) -> bool:
    readings = [sample.canary for sample in one.values()]
    return None not in readings and any(reading > most for reading in readings if reading is not None)


def canary() -> float:
    """Seconds of a fixed piece of work within a core's registers, the least of three: they follow the core's speed."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"canary", b"", _ITERATIONS)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
