"""The processors that workers run on: a list is checked, given to a process when it starts, and looked at in it after."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rnnbench.errors import ArgumentError
from rnnbench.machine.topology import cpu_list


def checked(text: str) -> str:
    """A list of processors such as ``0,2-3``, in order and each once; raises ArgumentError unless this process may use all."""
    if not hasattr(os, "sched_getaffinity"):
        raise ArgumentError(f"--affinity is {text!r}; this system does not let a process choose its processors")
    allowed = os.sched_getaffinity(0)
    known = re.fullmatch(r"\d{1,5}(-\d{1,5})?(,\d{1,5}(-\d{1,5})?)*", text, re.ASCII)
    asked = cpu_list(text) if known else set()
    if not asked or not asked <= allowed:
        raise ArgumentError(f"--affinity is {text!r}; expected processors of this process, which may use {_listed(allowed)}")
    return _listed(asked)


@contextmanager
def on_processors(text: str | None) -> Iterator[None]:
    """A process that is started here runs on these processors with all its threads; None: where this thread may run."""
    if text is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpu_list(text))  # of this thread alone; a child begins with what its parent's thread has
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def strayed(text: str) -> str | None:
    """A sentence where a thread of this process may run on other processors than these."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):  # noqa: PTH208  # names alone
        try:
            found |= os.sched_getaffinity(int(thread))
        except ProcessLookupError:
            continue  # it has ended
    if found <= cpu_list(text):
        return None
    return f"the run asks for the processors {text}; threads of this process may run on {_listed(found)}"


def _listed(numbers: Iterable[int]) -> str:
    """In the kernel's notation, as ``topology.cpu_list`` reads it: {0, 2, 3} is "0,2-3"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
