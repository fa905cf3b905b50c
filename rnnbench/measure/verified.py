"""Whether a backend kept to the number of threads that its case asks for."""

import sys
from collections.abc import Iterator

import threadpoolctl

MOST_BEYOND = 0.1
"""Cores that may be used beyond the threads, as by a library's own short work beside the call."""

TICK = 0.01
"""Seconds by which the kernel's account of a thread that is running may be wrong: it is brought up to date at ticks."""


def threads_used(threads: int, cpu: float, wall: float) -> str | None:
    """A sentence where a backend used, or was set to, another number than ``threads``; seconds of processor and clock.

    What lasted no longer than a few ticks is judged by the settings alone.
    """
    found = [f"{name} is set to {number}" for name, number in _numbers() if number != threads]
    if cpu > (threads + MOST_BEYOND) * wall + (threads + 1) * TICK:
        found.insert(0, f"{cpu / wall:.2f} cores were busy")
    return f"the case asks for {threads} threads; {', '.join(found)}" if found else None


def _numbers() -> Iterator[tuple[str, int]]:
    """How many threads each library in this process would use; of those that are imported alone."""
    for pool in threadpoolctl.threadpool_info():
        yield pool["internal_api"], pool["num_threads"]
    if "torch" in sys.modules:
        yield "torch", sys.modules["torch"].get_num_threads()
    if "numba" in sys.modules:  # not its get_num_threads, which would start them
        yield "numba", sys.modules["numba"].config.NUMBA_NUM_THREADS
