"""The rows of a results file.

A run leaves ``results/<machine>/<run>.jsonl``, one JSON object a line.  The first row is the ``Run``; every other row is a fact
about one case and one backend.
"""

from typing import Any, Literal

import msgspec

from rnnbench.suite.case import Case
from rnnbench.suite.limits import Bytes, Count, Number

SCHEMA = 1


class Row(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """Base of all rows; ``kind`` in the file is the class's name in lower case."""


class Run(Row, frozen=True):
    """The first row: what was asked for, of which code, on which machine."""

    run: str
    started: str  # ISO 8601, UTC
    suite: str
    command: list[str]
    settings: dict[str, Any]  # rounds, samples, threads, input, seed, time_limit
    environment: dict[str, Any]  # machine, cpu, cores, memory, os, python, versions, commit, dirty
    backends: dict[str, dict[str, Any]]  # name -> info(), or {"unavailable": reason}
    cases: list[Case]
    schema: int = SCHEMA


class Gate(Row, frozen=True):
    """The check of one backend on one case: per tensor the largest absolute error and its tolerance.

    An error of None is one that has no number: a wrong shape or dtype, or a NaN where there should be none.
    """

    case: Case
    backend: str
    passed: bool
    errors: dict[str, tuple[float | None, float]]
    seconds: float


class Startup(Row, frozen=True):
    """What comes before the first result, in seconds; ``cold`` means that the JIT cache was empty.

    Stored for the first case of a cell in each process, the only one that finds no code in memory.
    """

    case: Case
    backend: str
    round: Number
    cold: bool
    import_s: float
    load_s: float
    first_call_s: float


class Time(Row, frozen=True):
    """The samples of one round, in seconds per call, each the mean of ``loops`` calls.

    Backends take turns, a sample each: those at one place of their lists are of one pass and lie milliseconds apart;
    ``position`` is the place in the first pass.  ``events``: what the machine did meanwhile (``measure.events``).
    ``left_out``: samples of passes in which the canary was slow beside one of the backends, made again at once.
    ``device_samples``: after each of the samples, the same of as many calls more by the clock of the backend's device;
    empty where it offers no timer.
    ``disturbed``: an event was beyond its limit for a backend of this case, so all were measured once more in the same
    round; where that row follows, this one does not count.
    """

    case: Case
    backend: str
    round: Number
    position: Number
    loops: Count
    samples: list[float]
    events: dict[str, float] | None = None
    disturbed: bool = False
    left_out: list[float] = []  # msgspec gives each row its own
    device_samples: list[float] = []

    @property
    def sampled_seconds(self) -> float:
        return (sum(self.samples) + sum(self.left_out) + sum(self.device_samples)) * self.loops


class Memory(Row, frozen=True):
    """Peak resident memory of one call above the loaded network, in bytes."""

    case: Case
    backend: str
    peak_bytes: Bytes


class Truncation(Row, frozen=True):
    """What a window costs in accuracy: norm of (truncated - full) over norm of full, per parameter and for all together.

    A property of the mathematics, computed in float64 by the reference.
    """

    case: Case
    relative_error: float
    per_tensor: dict[str, float]


class Failure(Row, frozen=True):
    """A case that a backend did not complete; ``reason`` is the category, ``message`` the backend's own words."""

    case: Case
    backend: str
    stage: Literal["load", "gate", "startup", "time", "memory"]
    reason: Literal["unavailable", "unsupported", "wrong", "error", "crashed", "timeout"]
    message: str
    round: Number | None = None


class End(Row, frozen=True):
    """The last row of a run that was completed, or was interrupted and says so."""

    finished: str  # ISO 8601, UTC
    seconds: float
    gate_seconds: float  # references and comparisons
    interrupted: bool = False
    timing_seconds: float | None = None  # warm-up and samples
    sampled_seconds: float | None = None  # samples

    @property
    def overhead(self) -> float | None:
        """The part of the time that went into neither samples nor the gate; None where it is not known."""
        if self.sampled_seconds is None or not self.seconds > 0:
            return None
        return 1 - (self.sampled_seconds + self.gate_seconds) / self.seconds


AnyRow = Run | Gate | Startup | Time | Memory | Truncation | Failure | End
