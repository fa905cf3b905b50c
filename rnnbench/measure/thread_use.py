"""Check that a backend kept to the number of threads of its case."""

import sys
from collections.abc import Iterator

import threadpoolctl

MAX_EXCESS = 0.1
"""Cores that may be busy beyond the threads, for a library's short work outside the call."""

TICK = 0.01
"""Error of a running thread's processor time, in seconds: the kernel updates it at ticks."""


def threads_set(threads: int) -> str | None:
    """Return a sentence if a library is set to another number of threads."""
    found = [f"{name} is set to {number}" for name, number in _pool_sizes() if number != threads]
    return f"the case asks for {threads} threads; {', '.join(found)}" if found else None


def cores_used(threads: int, cpu: float, wall: float) -> str | None:
    """Return a sentence if a backend used more cores than ``threads``.

    ``cpu`` and ``wall``: processor and wall-clock seconds, a few ticks or more.
    """
    if cpu <= (threads + MAX_EXCESS) * wall + (threads + 1) * TICK:
        return None
    return f"the case asks for {threads} threads; {cpu / wall:.2f} cores were busy"


def _pool_sizes() -> Iterator[tuple[str, int]]:
    """Yield each imported library with the number of threads it would use."""
    for pool in threadpoolctl.threadpool_info():
        yield pool["internal_api"], pool["num_threads"]
    if "torch" in sys.modules:
        yield "torch", sys.modules["torch"].get_num_threads()
    if "numba" in sys.modules:  # numba.get_num_threads would start the threads
        yield "numba", sys.modules["numba"].config.NUMBA_NUM_THREADS
