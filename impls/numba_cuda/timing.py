"""Two times of a call on the GPU: as called, and of its kernels alone, queued behind a sleeping kernel."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from rnnbench.impls.numba_cuda.launching import Kernel

WARM_UPS, ROUNDS = 3, 10

MIN_LENGTH, MAX_LENGTH = 1, 64
"""Duration of the sleeping kernel in milliseconds; doubled each time a call was not fully queued when it woke up."""


class Times(NamedTuple):
    """Medians in microseconds; ``kernels`` is None for a call that waits for the GPU or overflows the queue of launches."""

    called: float
    kernels: float | None


def times(call: Callable[[], Any], least: float = 0.2) -> Times:
    """Time a call on the default stream by CUDA events, after three warm-up calls.

    ``called`` is over at least ten calls and ``least`` seconds, ``kernels`` over ten queued calls.
    """
    for _ in range(WARM_UPS):
        call()
    return Times(_called(call, least), _queued(call))


def _called(call: Callable[[], Any], least: float) -> float:
    found: list[float] = []
    while len(found) < ROUNDS or sum(found) < least * 1e6:
        start, end = cuda.event(), cuda.event()
        start.record()
        call()
        end.record()
        end.synchronize()
        found.append(1e3 * cuda.event_elapsed_time(start, end))
    return float(np.median(found))


def _queued(call: Callable[[], Any]) -> float | None:
    """Time the kernels alone: the host has submitted the whole call before the GPU starts it."""
    found: list[float] = []
    length = MIN_LENGTH
    while len(found) < ROUNDS:
        start, end = cuda.event(), cuda.event()
        SLEEP.launch(1, 1, 0, length)
        start.record()
        call()
        end.record()
        late = start.query()
        end.synchronize()
        if not late:
            found.append(1e3 * cuda.event_elapsed_time(start, end))
        elif length < MAX_LENGTH:
            length *= 2
        else:
            return None
    return float(np.median(found))


def _sleep(milliseconds):
    for _ in range(milliseconds):
        cuda.nanosleep(1_000_000)


SLEEP = Kernel(_sleep, 1)
