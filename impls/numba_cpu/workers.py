"""How threads share a layer's work."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnbench.jit.thread_pool import ThreadPool
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import one_by_one

_MIN_ROWS = 4
"""Of a thread: with fewer, a product reads its weights for too little work."""

_MIN_FLOPS_PER_STEP = 100_000
"""Of a thread in a step, for the threads to share units and meet after every step."""


_MIN_FLOPS_PER_CALL = 8_000_000
"""Of one direction's recurrent products, for the directions to run at the same time."""


_MIN_TERMS = 1 << 16
"""Of a sum, for threads to share it."""


class Share(NamedTuple):
    """What one thread computes: some rows of the batch and some hidden units."""

    rows: slice
    units: slice


class Workers(ThreadPool):
    """Threads that share the work of a layer."""

    def directions_at_once(self, spec: Spec, steps: int, batch: int) -> bool:
        """Whether both run at the same time, each on one thread: where rows do not occupy two, no more are there, and a
        call is long beside the time in which another thread begins."""
        flops = 2 * steps * batch * len(spec.kind.gates) * spec.hidden_size * spec.state_size
        return spec.bidirectional and self.threads in (2, 3) and batch < 2 * _MIN_ROWS and flops >= _MIN_FLOPS_PER_CALL

    def shares(self, spec: Spec, steps: int, batch: int) -> list[Share]:
        """Rows for each thread, for the whole sequence, where there are enough; else hidden units, where a step is long."""
        cell, size = spec.kind, spec.hidden_size
        by_rows = min(self.threads, batch // _MIN_ROWS)
        if by_rows > 1 or self.threads == 1 or self.directions_at_once(spec, steps, batch):
            return [Share(rows, slice(0, size)) for rows in _parts(batch, max(1, by_rows))]
        flops = 2 * batch * len(cell.gates) * size * size
        alone = cell.inner_gates or cell.feeds_back_output  # these would have to meet several times a step
        by_units = 1 if alone else max(1, min(self.threads, flops // _MIN_FLOPS_PER_STEP, size))
        return [Share(slice(0, batch), units) for units in _parts(size, by_units)]

    def add(self, total: np.ndarray, term: np.ndarray) -> None:
        """total += term, shared where it is large."""
        total, term = total.reshape(-1), term.reshape(-1)
        parts = _parts(total.size, self.threads if total.size >= _MIN_TERMS else 1)
        self.run(np.add, [(total[part], term[part], total[part]) for part in parts])

    def run_directions(self, spec: Spec, calls: Sequence[Callable[[], Any]], steps: int, batch: int) -> list[Any]:
        """``rnnbench.networks.stacked.Runner`` of one Spec."""
        if self._pool is None or not self.directions_at_once(spec, steps, batch):
            return one_by_one(calls, steps, batch)
        second = self.submit(calls[1])
        try:
            return [calls[0](), second.result()]
        finally:
            wait([second])


def _parts(size: int, count: int) -> list[slice]:
    bounds = [size * part // count for part in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]
