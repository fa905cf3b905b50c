"""The rows of a results file.

A run writes ``results/<machine>/<run>.jsonl``, one JSON object per line.  The first row is the ``Run``; the others are facts
about a case and a backend.
"""

from typing import Any, Literal

import msgspec

from rnnbench.suite.case import Case
from rnnbench.suite.limits import Bytes, Count, Number

SCHEMA = 1


class Row(msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower):
    """Base of all rows; ``kind`` in the file is the class's name in lower case."""


class Run(Row, frozen=True):
    """The first row: the request, the code and the machine of a run."""

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
    """The check of one backend on one case: the largest absolute error and the tolerance of each tensor.

    None is an error without a number: a wrong shape or dtype, or an unexpected NaN.
    """

    case: Case
    backend: str
    passed: bool
    errors: dict[str, tuple[float | None, float]]
    seconds: float


class Startup(Row, frozen=True):
    """The time before the first result, in seconds; ``cold``: the JIT cache was empty.

    Stored for the first case of a cell in each process, the only one without its code in memory.
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

    Backends take samples in turn: those with the same index belong to one pass and lie milliseconds apart.
    ``position``: the backend's place in the first pass.  ``events``: the disturbances (``measure.disturbances``).
    ``left_out``: samples of passes repeated at once because of a slow canary beside one of the backends.
    ``device_samples``: after each sample the same of ``loops`` further calls by the device's clock; empty without a device
    timer.  ``disturbed``: an event of one of the case's backends exceeded its limit, so all were measured again in the same
    round; if that row follows, this one does not count.
    """

    case: Case
    backend: str
    round: Number
    position: Number
    loops: Count
    samples: list[float]
    events: dict[str, float] | None = None
    disturbed: bool = False
    left_out: list[float] = []  # msgspec copies the default
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
    """The gradient error of a window: norm of (truncated - full) over norm of full, per parameter and in total.

    A property of the method, computed in float64 by the reference.
    """

    case: Case
    relative_error: float
    per_tensor: dict[str, float]


class Failure(Row, frozen=True):
    """A case that a backend did not complete; ``message`` is the backend's own."""

    case: Case
    backend: str
    stage: Literal["load", "gate", "startup", "time", "memory"]
    reason: Literal["unavailable", "unsupported", "wrong", "error", "crashed", "timeout"]
    message: str
    round: Number | None = None


class Spent(msgspec.Struct, frozen=True):
    """What one stage of a run took on one backend; ``backend`` is empty for work that belongs to none.

    ``seconds``: of ``count`` requests.  ``called``: the part that is calls of networks, by the times measured in the run; for
    the reference, the seconds that were assumed for it.
    """

    stage: str
    backend: str
    count: Count
    seconds: float
    called: float


class End(Row, frozen=True):
    """The last row of a completed or interrupted run."""

    finished: str  # ISO 8601, UTC
    seconds: float
    gate_seconds: float  # references and comparisons
    interrupted: bool = False
    timing_seconds: float | None = None  # warm-up and samples
    sampled_seconds: float | None = None  # samples
    spent: tuple[Spent, ...] = ()

    @property
    def overhead(self) -> float | None:
        """The fraction of the time spent on neither samples nor the gate; None if unknown."""
        if self.sampled_seconds is None or not self.seconds > 0:
            return None
        return 1 - (self.sampled_seconds + self.gate_seconds) / self.seconds


AnyRow = Run | Gate | Startup | Time | Memory | Truncation | Failure | End
