"""Time short compiled work on several threads at once, with the clock read in compiled code."""

import functools
import time
import timeit
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types

from rnnbench.jit.barrier import Team, meet
from rnnbench.jit.thread_pool import ThreadPool

_CLOCK_READINGS = 20_000
_PAGE = 4096


class Effort(NamedTuple):
    """How long to measure.

    ``repeat``: least duration of a repeat, in seconds.  ``total``: duration of all repeats, whose number stays between
    ``least`` and ``most``.
    """

    repeat: float
    total: float
    least: int
    most: int

    def repeats(self, duration: float) -> int:
        return int(np.clip(self.total / duration, self.least, self.most))


class ThreadedTimer:
    """Times work that ``threads`` threads do at the same time."""

    def __init__(self, threads: int, effort: Effort) -> None:
        self.threads, self._effort = threads, effort
        self._pool = ThreadPool(threads)

    def seconds(self, work: Any, start: Any, size: int = 0) -> list[float]:
        """Time a jitted work(value, data, count, team); return seconds per count for each repeat.

        ``data``: each thread's int64 array of ``size`` bytes, all ones.  ``value``: ``start``, then the last return value.
        """
        arrays = [_aligned(size) for _ in range(self.threads)]
        timed = _timed(work)
        self._repeats(timed, arrays, start, 0, 0)  # compiles
        count = 1
        while (duration := self._repeats(timed, arrays, start, count, 1)[0]) < self._effort.repeat:
            count = int(count * min(64.0, 1 + 1.2 * self._effort.repeat / duration))
        return [s / count for s in self._repeats(timed, arrays, start, count, self._effort.repeats(duration))]

    def _repeats(self, timed: Any, arrays: Sequence[np.ndarray], start: Any, count: int, repeats: int) -> list[float]:
        team = Team.of(self.threads)
        stamps = np.zeros((self.threads, repeats, 2), np.int64)
        each = zip(arrays, stamps, strict=True)
        self._pool.run(timed, [(team, data, count, start, stamp, np.zeros(2, np.int64)) for data, stamp in each])
        return ((stamps[:, :, 1].max(0) - stamps[:, :, 0].min(0)) * 1e-9).tolist()


def empty_call(effort: Effort) -> list[float]:
    """Time calls from Python of an empty compiled function, loop overhead included; return seconds for each repeat."""
    timer = timeit.Timer("nothing()", globals={"nothing": _nothing})
    _nothing()  # compiles
    count = 1
    while (duration := timer.timeit(count)) < effort.repeat:
        count *= 2
    return [s / count for s in timer.repeat(effort.repeats(duration), count)]


def clock_step() -> float:
    """Return the smallest step of Python's performance counter, in seconds."""
    steps = np.diff(np.array([time.perf_counter_ns() for _ in range(_CLOCK_READINGS)]))
    return float(steps[steps > 0].min()) * 1e-9


@njit
def _nothing():
    pass


_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)  # systems without it never use this timer


@njit(nogil=True)
def _nanoseconds(timespec):
    _clock_gettime(_MONOTONIC, timespec.ctypes.data)
    return timespec[0] * 1_000_000_000 + timespec[1]


@functools.cache
def _timed(work: Any) -> Any:
    @njit(nogil=True, error_model="numpy")
    def timed(team, data, count, start, stamps, timespec):
        data[:] = 1  # first touch by the reading thread places memory near it
        value = start
        for repeat in range(stamps.shape[0]):
            meet(team)
            stamps[repeat, 0] = _nanoseconds(timespec)
            value = work(value, data, count, team)  # depends on the last value: no repeat can be optimised away
            stamps[repeat, 1] = _nanoseconds(timespec)
        return value

    return timed


def _aligned(size: int) -> np.ndarray:
    """Return a page-aligned int64 array of ``size`` bytes, as reads across cache lines are slower."""
    whole = np.empty(size + _PAGE, np.uint8)
    first = -whole.ctypes.data % _PAGE
    return whole[first : first + size].view(np.int64)
