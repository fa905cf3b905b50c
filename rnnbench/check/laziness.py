"""Whether results are there when ``synchronize`` returns, or are computed when they are read: then a clock saw no work.

No time is compared with one of another machine or moment.  Reading results takes as long as reading copies of them, which
were there before; where they are computed by that it takes as long as a call.  The least of several tries counts, of each,
so that other work on the machine does not.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Caller
from rnnbench.check.problem import Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.text import duration

MIN_READS, TRIES = 3, 10
"""No verdict rests on fewer: what interrupts a copy or a call would hide what reading takes."""

LONG = 0.05
"""Seconds of a call that nothing interrupts for a part of it that counts."""

OF_COPYING, OF_CALLING = 3.0, 0.1
"""Reading takes at most so many times as long as reading copies does, and such a part of a call more.  Here: at most 7 times
a copy where that took 2 microseconds, and 0.2 of a call that took 240 (jax_scan, T 3, H 3), a third of what is allowed."""


def late(call: Callable[[], Mapping[str, Any]], backend: Any) -> str | None:
    """A sentence where what ``call`` returns is computed when it is read, after ``synchronize``; else None."""
    calling = reading = copying = math.inf
    for tries in range(1, TRIES + 1):
        started = time.perf_counter()
        results = call()
        backend.synchronize()
        called = time.perf_counter()
        values = [np.asarray(backend.to_numpy(result)) for result in results.values()]
        read = time.perf_counter()
        copies = [backend.asarray(np.array(value)) for value in values]
        backend.synchronize()
        copied = time.perf_counter()
        for copy in copies:
            np.asarray(backend.to_numpy(copy))
        ended = time.perf_counter()
        calling, reading, copying = min(calling, called - started), min(reading, read - called), min(copying, ended - copied)
        enough = tries >= MIN_READS or calling >= LONG
        if enough and reading <= OF_COPYING * copying + OF_CALLING * calling:
            return None
    return (
        f"results are computed when they are read, not when synchronize() returns: a call takes {duration(calling)}, "
        f"reading its results {duration(reading)}, reading copies of them {duration(copying)}"
    )


def computed(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The promise ``computed``."""
    caller, inputs = Caller(backend, problem), problem.inputs()
    x, state, dy, dstate = (caller.lent(part) for part in inputs)

    def call() -> Mapping[str, Any]:
        y, final, tape = caller.net.record(x, state)
        return named(problem.case, y, final, caller.net.backward(tape, dy, dstate))

    said = late(call, backend)
    return [Finding("results", None if said else 0.0, 0.0, said)]
