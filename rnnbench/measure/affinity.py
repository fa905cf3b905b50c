"""Bind worker processes to a list of processors."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rnnbench.errors import ArgumentError
from rnnbench.machine.topology import cpu_list


def checked(text: str) -> str:
    """Normalise a list of processors such as ``0,2-3``: sorted, without duplicates.

    Raises ArgumentError unless this process may use all of them.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise ArgumentError(f"--affinity is {text!r}; this system does not let a process choose its processors")
    allowed = os.sched_getaffinity(0)
    well_formed = re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text, re.ASCII)
    requested = cpu_list(text) if well_formed else set()
    if not requested or not requested <= allowed:
        raise ArgumentError(
            f"--affinity is {text!r}; expected processors of this process, which may use {_format_cpu_list(allowed)}"
        )
    return _format_cpu_list(requested)


@contextmanager
def on_processors(text: str | None) -> Iterator[None]:
    """Bind processes that are started inside to these processors; None changes nothing."""
    if text is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpu_list(text))  # affects this thread only; a child inherits it
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def affinity_violation(processors: str) -> str | None:
    """Return a sentence if a thread of this process may run on other processors than these."""
    used: set[int] = set()
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # names alone
        try:
            used |= os.sched_getaffinity(int(thread))
        except ProcessLookupError:
            continue  # the thread has ended
    if used <= cpu_list(processors):
        return None
    return f"the run asks for the processors {processors}; threads of this process may run on {_format_cpu_list(used)}"


def _format_cpu_list(numbers: Iterable[int]) -> str:
    """Format numbers in the kernel's notation, which ``topology.cpu_list`` reads: {0, 2, 3} is "0,2-3"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
