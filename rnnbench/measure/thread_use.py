"""Whether a backend kept to the number of threads that its case asks for."""

import sys
from collections.abc import Iterator

import threadpoolctl

MAX_EXCESS = 0.1
"""Cores that may be used beyond the threads, as by a library's own short work beside the call."""

TICK = 0.01
"""Seconds by which the kernel's account of a thread that is running may be wrong: it is brought up to date at ticks."""


def threads_set(threads: int) -> str | None:
    """A sentence where a library was set to another number than ``threads``."""
    found = [f"{name} is set to {number}" for name, number in _numbers() if number != threads]
    return f"the case asks for {threads} threads; {', '.join(found)}" if found else None


def cores_used(threads: int, cpu: float, wall: float) -> str | None:
    """A sentence where a backend used more than ``threads``; seconds of processor and clock, of a few ticks at least."""
    if cpu <= (threads + MAX_EXCESS) * wall + (threads + 1) * TICK:
        return None
    return f"the case asks for {threads} threads; {cpu / wall:.2f} cores were busy"


def _numbers() -> Iterator[tuple[str, int]]:
    """How many threads each library in this process would use; of those that are imported alone."""
    for pool in threadpoolctl.threadpool_info():
        yield pool["internal_api"], pool["num_threads"]
    if "torch" in sys.modules:
        yield "torch", sys.modules["torch"].get_num_threads()
    if "numba" in sys.modules:  # not its get_num_threads, which would start them
        yield "numba", sys.modules["numba"].config.NUMBA_NUM_THREADS
