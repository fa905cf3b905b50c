"""Short pieces of compiled work, timed on several threads at once with the clock read next to them."""

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
    """A repeat lasts ``repeat`` seconds or somewhat more; there are so many that they last ``total``, in these bounds."""

    repeat: float
    total: float
    least: int
    most: int

    def repeats(self, duration: float) -> int:
        return int(np.clip(self.total / duration, self.least, self.most))


class Bench:
    """``threads`` that do a piece of work at the same time."""

    def __init__(self, threads: int, effort: Effort) -> None:
        self.threads, self._effort = threads, effort
        self._pool = ThreadPool(threads)

    def seconds(self, work: Any, start: Any, size: int = 0) -> list[float]:
        """For each repeat the seconds that one ``count`` of work(value, data, count, team) takes, a jitted function.

        ``data`` is each thread's own int64 array of ``size`` bytes, all ones.  ``value`` is ``start``, then what ``work``
        returned last.
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
    """For each repeat the seconds of a call from Python of a compiled function that does nothing, the loop's own among them."""
    timer = timeit.Timer("nothing()", globals={"nothing": _nothing})
    _nothing()  # compiles
    count = 1
    while (duration := timer.timeit(count)) < effort.repeat:
        count *= 2
    return [s / count for s in timer.repeat(effort.repeats(duration), count)]


def clock_step() -> float:
    """The least number of seconds between two different readings of Python's performance counter."""
    steps = np.diff(np.array([time.perf_counter_ns() for _ in range(_CLOCK_READINGS)]))
    return float(steps[steps > 0].min()) * 1e-9


@njit
def _nothing():
    pass


_clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.intp))
_MONOTONIC = getattr(time, "CLOCK_MONOTONIC", 0)  # without it nothing here is called


@njit(nogil=True)
def _nanoseconds(timespec):
    _clock_gettime(_MONOTONIC, timespec.ctypes.data)
    return timespec[0] * 1_000_000_000 + timespec[1]


@functools.cache
def _timed(work: Any) -> Any:
    @njit(nogil=True, error_model="numpy")
    def timed(team, data, count, start, stamps, timespec):
        data[:] = 1  # by the thread that reads it: the system takes memory from where the thread runs
        value = start
        for repeat in range(stamps.shape[0]):
            meet(team)
            stamps[repeat, 0] = _nanoseconds(timespec)
            value = work(value, data, count, team)  # from the last value, so that no repeat can be left out
            stamps[repeat, 1] = _nanoseconds(timespec)
        return value

    return timed


def _aligned(size: int) -> np.ndarray:
    """``size`` bytes of int64 at the start of a page: what lies across two cache lines is read more slowly."""
    whole = np.empty(size + _PAGE, np.uint8)
    first = -whole.ctypes.data % _PAGE
    return whole[first : first + size].view(np.int64)
