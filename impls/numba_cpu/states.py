"""The states after every step, from the buffers of a forward pass."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from rnnbench.impls.numba_cpu.rows import ShareRows
from rnnbench.impls.numba_cpu.workers import Share
from rnnbench.networks.contract import State
from rnnbench.networks.spec import Spec


def states_of_all_steps(
    spec: Spec, steps: int, batch: int, of_shares: Iterable[tuple[Share, ShareRows, Any]], reverse: bool
) -> State:
    """Copy the states of one layer and direction, each (T, B, size), with zeros where a row has no step.

    ``of_shares``: of each share, its rows, and the ``Kept`` that its forward loop wrote.
    """
    carries_memory, size = spec.kind.carries == "c", spec.state_size
    sizes = (size, spec.hidden_size) if carries_memory else (size,)
    found = tuple(np.zeros((steps, batch, part), spec.numpy_dtype) for part in sizes)
    after = slice(0, -1) if reverse else slice(1, None)
    for share, rows, kept in of_shares:
        of_share = np.arange(share.rows.stop - share.rows.start)
        active = np.diff(rows.starts)[:, None, None] > of_share[:, None]
        run = slice(len(active))
        found[0][run, rows.batch] = np.where(active, kept.recurrent[after, :, :size], 0)
        if carries_memory:
            found[1][run, rows.batch, share.units] = np.where(active, kept.memory[after], 0)
    return found
