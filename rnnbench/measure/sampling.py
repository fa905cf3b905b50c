"""Passes: in each pass every backend takes one sample of a case, between two readings of a canary.

The samples of a pass lie milliseconds apart, so a longer disturbance affects all of them and cancels in their ratios.  A core
that another machine shares, or whose clock rate drops, is slower for milliseconds or minutes, and no counter shows it.  The
canary, a fixed piece of work before and after each sample, does.  Passes with a slow canary are repeated at once; lasting
disturbances are left to the end of the round.
"""

import hashlib
import math
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

MAX_REPEATS = 2
"""Upper bound of the passes made, as a multiple of those requested."""

MAX_SAMPLE_SECONDS = 0.5
"""Longest sample of several calls, in seconds, however many calls the fastest backend needs."""

MAX_REPEAT_SECONDS = 0.25
"""Longest pass that is repeated, in seconds summed over its samples.

Canary readings say little about a longer pass, and repeating it takes long.
"""

_ITERATIONS = 1000  # about 0.2 ms


class Sample(NamedTuple):
    """One sample of a backend: seconds per call, the mean of ``loops`` calls, and the events during it.

    ``device``: seconds per call of another ``loops`` calls by the device's clock; None without a device timer.
    """

    seconds: float
    events: Mapping[str, float] | None = None
    device: float | None = None
    loops: int = 1

    @property
    def canary(self) -> float | None:
        """The slower canary reading beside this sample, in seconds."""
        return (self.events or {}).get("canary_s")


Pass = Mapping[str, Sample]
"""Samples by backend, without failed backends."""


class Passes(NamedTuple):
    """The passes that count and those that do not, each in the order of measurement."""

    kept: list[Pass]
    left_out: list[Pass]


def take_passes(take: Callable[[int], Pass], count: int, limit: float | None) -> Passes:
    """Take passes until ``count`` of them have no canary reading above ``limit`` seconds; None means no limit yet.

    ``take`` takes the pass of the given number.  If the first ``count`` passes are all slow, none is repeated.  A pass in
    which a backend has no reading counts as quiet: the readings of the others would favour those backends.
    """
    slowest = math.inf if limit is None else limit
    passes: list[Pass] = []
    while _needs_more(passes, count, slowest):
        passes.append(take(len(passes)))
    slow = [_is_slow(samples, slowest) for samples in passes]
    chosen = sorted(sorted(range(len(passes)), key=slow.__getitem__)[:count])
    return Passes([passes[n] for n in chosen], [samples for n, samples in enumerate(passes) if n not in chosen])


def _needs_more(passes: list[Pass], count: int, limit: float) -> bool:
    if len(passes) < count:
        return True
    quiet = sum(not _is_slow(samples, limit) for samples in passes)
    duration = sum(sample.seconds * sample.loops for sample in passes[-1].values())
    return 0 < quiet < count and len(passes) < MAX_REPEATS * count and duration <= MAX_REPEAT_SECONDS


def _is_slow(samples: Pass, limit: float) -> bool:
    readings = [sample.canary for sample in samples.values()]
    return None not in readings and any(reading > limit for reading in readings if reading is not None)


def canary() -> float:
    """Time a fixed piece of work within a core's registers; return the shortest of three times, in seconds."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        hashlib.pbkdf2_hmac("sha256", b"canary", b"", _ITERATIONS)
        seconds.append(time.perf_counter() - started)
    return min(seconds)
