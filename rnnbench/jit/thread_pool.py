"""Threads that run compiled code at the same time, each on a processor of its own."""

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
_processor: Callable[[], int] = ctypes.CDLL(None).sched_getcpu if _CAN_MOVE else threading.get_ident  # differs in each thread


class ThreadPool:
    """``threads`` threads, the calling one among them; None means the process's setting, NUMBA_NUM_THREADS or the number of
    cores.  A forked child has new ones.

    Raises ArgumentError for a number that is none.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = check_threads(threads) or numba.get_num_threads()
        self._start()
        _ALIVE.add(self)

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads - 1, "rnnbench") if self.threads > 1 else None
        self._busy = threading.Lock()

    def run(self, kernel: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> None:
        """Call ``kernel`` with each tuple of arguments, all at the same time, the first one in the calling thread.

        Nothing that can fail may be left to do: a team would wait for ever for a thread that does not come.
        """
        first, *others = arguments
        if self._pool is None or not others:
            kernel(*first)
            return
        with self._busy:  # a second caller's shares, queued between those of a team, would keep it apart for ever
            taken = {_processor()}
            futures = [self._pool.submit(_elsewhere, taken, kernel, *other) for other in others]
            kernel(*first)
            for future in futures:
                future.result()

    def submit(self, call: Callable[[], Any]) -> "Future[Any]":
        """Call in another thread, on a processor other than this one; there must be two threads."""
        assert self._pool is not None
        return self._pool.submit(_elsewhere, {_processor()}, call)


_ALIVE: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def _start_again() -> None:
    """In a forked child: it has none of its parent's threads, and a lock that one of them held stays locked."""
    for pool in _ALIVE:
        pool._start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)


def _elsewhere(taken: set[int], call: Callable[..., Any], *arguments: Any) -> Any:
    """Call on a processor that no other thread of this call has taken, where there is one.

    The system wakes a thread on the processor of the one that wakes it, and may leave both there for many calls, which then
    take twice as long.  The thread is moved, not bound: it may run anywhere afterwards.
    """
    if _CAN_MOVE and _processor() in taken:
        with suppress(OSError):  # the processors of this process have just changed
            allowed = os.sched_getaffinity(0)
            if free := allowed - taken:
                os.sched_setaffinity(0, free)
                os.sched_setaffinity(0, allowed)
    taken.add(_processor())
    return call(*arguments)
