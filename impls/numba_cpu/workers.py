"""Threads, and how they share a layer's work."""

import ctypes
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from itertools import pairwise
from typing import Any, NamedTuple

import numba
import numpy as np

from rnnbench.spec import Spec
from rnnbench.stack import one_by_one
from rnnbench.threads import check_threads

_LEAST_ROWS = 4
"""Of a thread: with fewer, a product reads its weights for too little work."""

_LEAST_FLOPS = 100_000
"""Of a thread in a step, for the threads to share units and meet after every step."""


_LEAST_FLOPS_OF_A_CALL = 8_000_000
"""Of one direction's recurrent products, for the directions to run at the same time."""


_LEAST_TERMS = 1 << 16
"""Of a sum, for threads to share it."""


_CAN_MOVE = sys.platform == "linux"
_processor: Callable[[], int] = ctypes.CDLL(None).sched_getcpu if _CAN_MOVE else threading.get_ident  # differs in each thread


class Share(NamedTuple):
    """What one thread computes: some rows of the batch and some hidden units."""

    rows: slice
    units: slice


class Workers:
    """``threads`` of them; None means the process's setting, NUMBA_NUM_THREADS or the number of cores.

    Raises ArgumentError for a number that is none.
    """

    def __init__(self, threads: int | None) -> None:
        self.threads = check_threads(threads) or numba.get_num_threads()
        self._start()
        _ALIVE.add(self)

    def _start(self) -> None:
        self._pool = ThreadPoolExecutor(self.threads - 1, "rnnbench") if self.threads > 1 else None
        self._busy = threading.Lock()

    def directions_at_once(self, spec: Spec, steps: int, batch: int) -> bool:
        """Whether both run at the same time, each on one thread: where rows do not occupy two, no more are there, and a
        call is long beside the time in which another thread begins."""
        flops = 2 * steps * batch * len(spec.kind.gates) * spec.hidden_size * spec.state_size
        return spec.bidirectional and self.threads in (2, 3) and batch < 2 * _LEAST_ROWS and flops >= _LEAST_FLOPS_OF_A_CALL

    def shares(self, spec: Spec, steps: int, batch: int) -> list[Share]:
        """Rows for each thread, for the whole sequence, where there are enough; else hidden units, where a step is long."""
        cell, size = spec.kind, spec.hidden_size
        by_rows = min(self.threads, batch // _LEAST_ROWS)
        if by_rows > 1 or self.threads == 1 or self.directions_at_once(spec, steps, batch):
            return [Share(rows, slice(0, size)) for rows in _parts(batch, max(1, by_rows))]
        flops = 2 * batch * len(cell.gates) * size * size
        alone = cell.inner_gates or cell.feeds_back_output  # these would have to meet several times a step
        by_units = 1 if alone else max(1, min(self.threads, flops // _LEAST_FLOPS, size))
        return [Share(slice(0, batch), units) for units in _parts(size, by_units)]

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

    def add(self, total: np.ndarray, term: np.ndarray) -> None:
        """total += term, shared where it is large."""
        total, term = total.reshape(-1), term.reshape(-1)
        parts = _parts(total.size, self.threads if total.size >= _LEAST_TERMS else 1)
        self.run(np.add, [(total[part], term[part], total[part]) for part in parts])

    def run_directions(self, spec: Spec, calls: Sequence[Callable[[], Any]], steps: int, batch: int) -> list[Any]:
        """``rnnbench.stack.Runner`` of one Spec."""
        if self._pool is None or not self.directions_at_once(spec, steps, batch):
            return one_by_one(calls, steps, batch)
        second = self._pool.submit(_elsewhere, {_processor()}, calls[1])
        try:
            return [calls[0](), second.result()]
        finally:
            wait([second])


_ALIVE: weakref.WeakSet[Workers] = weakref.WeakSet()


def _start_again() -> None:
    """In a forked child: it has none of its parent's threads, and a lock that one of them held stays locked."""
    for workers in _ALIVE:
        workers._start()


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


def _parts(size: int, count: int) -> list[slice]:
    bounds = [size * part // count for part in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]
