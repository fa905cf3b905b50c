"""Division of a layer's work among threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from rnnbench.jit.thread_pool import ThreadPool
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import one_by_one

_MIN_ROWS = 4
"""Minimum number of batch rows per thread; with fewer, loading the weights dominates."""

_MIN_FLOPS_PER_STEP = 100_000
"""Minimum number of operations per thread and time step at which dividing the units pays for a barrier after every step."""

_MIN_FLOPS_PER_CALL = 8_000_000
"""Minimum number of operations in one direction's recurrent products at which both directions run at the same time."""

MIN_TERMS = 1 << 16
"""Minimum number of elements of a sum that threads divide."""


class Share(NamedTuple):
    """The batch rows and hidden units that one thread computes."""

    rows: slice
    units: slice


class Workers(ThreadPool):
    """Threads that divide the work of a layer."""

    def directions_at_once(self, spec: Spec, steps: int, batch: int) -> bool:
        """Whether both directions run at the same time, one thread each.

        They do if the batch is too small for two threads, no more threads are available, and a call is long compared with
        the start of a thread.
        """
        flops = 2 * steps * batch * len(spec.kind.gates) * spec.hidden_size * spec.state_size
        return spec.bidirectional and self.threads in (2, 3) and batch < 2 * _MIN_ROWS and flops >= _MIN_FLOPS_PER_CALL

    def shares(self, spec: Spec, steps: int, batch: int) -> list[Share]:
        """Divide batch rows where there are enough, else hidden units where a time step is long enough."""
        cell, size = spec.kind, spec.hidden_size
        by_rows = min(self.threads, batch // _MIN_ROWS)
        if by_rows > 1 or self.threads == 1 or self.directions_at_once(spec, steps, batch):
            return [Share(rows, slice(0, size)) for rows in divided(batch, max(1, by_rows))]
        flops = 2 * batch * len(cell.gates) * size * size
        # these cells would need several barriers per step
        alone = cell.inner_gates or cell.feeds_back_output or cell.normalised
        by_units = 1 if alone else max(1, min(self.threads, flops // _MIN_FLOPS_PER_STEP, size))
        return [Share(slice(0, batch), units) for units in divided(size, by_units)]

    def add(self, total: np.ndarray, term: np.ndarray) -> None:
        """total += term, divided among the threads where it is large."""
        total, term = total.reshape(-1), term.reshape(-1)
        parts = divided(total.size, self.threads if total.size >= MIN_TERMS else 1)
        self.run(np.add, [(total[part], term[part], total[part]) for part in parts])

    def run_directions(self, spec: Spec, calls: Sequence[Callable[[], Any]], steps: int, batch: int) -> list[Any]:
        """Run the directions of a layer (``rnnbench.networks.stacked.Runner`` for one Spec)."""
        if self._pool is None or not self.directions_at_once(spec, steps, batch):
            return one_by_one(calls, steps, batch)
        second = self.submit(calls[1])
        try:
            return [calls[0](), second.result()]
        finally:
            wait([second])


def divided(size: int, count: int) -> list[slice]:
    bounds = [size * part // count for part in range(count + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]
