"""Detection of lazy results: results computed when they are read, after ``synchronize``, escape a timer around the call.

Finished results take as long to read as copies of them; lazy results take as long as a call.  Call, reading and copying
are timed together on the same machine.  The minimum over several tries counts, which excludes other load.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Probe
from rnnbench.check.problem import Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.text import duration

MIN_TRIES, MAX_TRIES = 3, 10
"""Number of tries; with fewer, an interruption of the call or of reading copies could hide the time of reading results."""

LONG_CALL = 0.05
"""Duration of a call, in seconds, from which one try suffices: interruptions are short in comparison."""

COPY_FACTOR, CALL_FRACTION = 3.0, 0.1
"""Reading results may take COPY_FACTOR times the time of reading copies, plus CALL_FRACTION of the time of a call.

Largest values seen: 7 times a copy of 2 microseconds, and 0.2 of a call of 240 (jax_scan, T 3, H 3), a third of the limit.
"""


def late(call: Callable[[], Mapping[str, Any]], backend: Any) -> str | None:
    """Return a message if the results of ``call`` are computed when they are read, after ``synchronize``; else None."""
    calling = reading = copying = math.inf
    for tries in range(1, MAX_TRIES + 1):
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
        enough = tries >= MIN_TRIES or calling >= LONG_CALL
        if enough and reading <= COPY_FACTOR * copying + CALL_FRACTION * calling:
            return None
    return (
        f"results are computed when they are read, not before synchronize() returns: a call takes {duration(calling)}, "
        f"reading its results {duration(reading)}, reading copies of them {duration(copying)}"
    )


def computed(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Test the promise "computed" on one training step."""
    probe, inputs = Probe(backend, problem), problem.inputs()
    x, state, dy, dstate = (probe.to_backend(part) for part in inputs)

    def call() -> Mapping[str, Any]:
        y, final, tape = probe.net.record(x, state)
        return named(problem.case, y, final, probe.net.backward(tape, dy, dstate))

    reason = late(call, backend)
    return [Finding("results", None if reason else 0.0, 0.0, reason)]
