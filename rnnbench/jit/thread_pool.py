"""Threads that run compiled code in parallel, each on its own processor."""

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numba

from rnnbench.networks.threads import check_threads

_CAN_MOVE = sys.platform == "linux"
_processor: Callable[[], int] = (
    ctypes.CDLL(None).sched_getcpu if _CAN_MOVE else threading.get_ident
)  # without sched_getcpu: unique per thread


class ThreadPool:
    """A pool of ``threads`` threads, including the calling one.

    ``threads=None`` is the process's setting: NUMBA_NUM_THREADS or the number of cores.  A forked child starts new threads.
    Raises ArgumentError for an invalid number.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = check_threads(threads) or numba.get_num_threads()
        self._start()
        _ALIVE.add(self)

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads - 1, "rnnbench") if self.threads > 1 else None
        self._busy = threading.Lock()

    def run(self, kernel: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Call ``kernel`` with each tuple of arguments in parallel, the first one in the calling thread.

        The kernel must not raise: the other threads of a team would wait forever at their barrier.
        """
        first, *others = arguments
        if self._pool is None or not others:
            kernel(*first)
            return
        with self._busy:  # shares of two callers queued in between each other would deadlock at their barriers
            taken = {_processor()}
            futures = [self._pool.submit(_elsewhere, taken, kernel, *other) for other in others]
            kernel(*first)
            for future in futures:
                future.result()

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Call in another thread, on another processor; needs at least two threads."""
        assert self._pool is not None
        return self._pool.submit(_elsewhere, {_processor()}, call)


_ALIVE: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def _start_again() -> None:
    """Restart the pools in a forked child, which inherits no threads but may inherit a locked lock."""
    for pool in _ALIVE:
        pool._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def _elsewhere(taken: set[int], call: Callable[..., Any], *arguments: Any) -> Any:
    """Call on a processor that no other thread of this call has taken, if there is one.

    The kernel wakes a thread on the processor of its waker, and may leave both there for many calls, which then take twice
    as long.  The thread is moved, not bound: it may run anywhere afterwards.
    """
    if _CAN_MOVE and _processor() in taken:
        with suppress(OSError):  # the allowed processors have just changed
            allowed = os.sched_getaffinity(0)
            if free := allowed - taken:
                os.sched_setaffinity(0, free)
                os.sched_setaffinity(0, allowed)
    taken.add(_processor())
    return call(*arguments)
