"""Results: append-only files with one JSON object a line, written by one run and never rewritten.

A run leaves ``results/<machine>/<run>.jsonl``.  Its first row is the ``Run``; every other row is a fact about one case
and one backend.  A line is on disk before the next one begins.  A torn last line, as a crash leaves it, is passed over
when reading, and cut off when the run goes on; any other line that does not read as a row is reported, not dropped silently.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from rnnbench.errors import StoreError
from rnnbench.spec import Spec

SCHEMA = 1

PHASES = ("forward", "step", "tbptt")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to measure: a network, a phase and sizes.

    ``phase``: "forward" (inference), "step" (record and backward, all gradients) or "tbptt" (a whole sequence of T steps
    in windows).  ``window`` and ``stride`` belong to tbptt alone.
    """

    cell: str
    phase: Literal["forward", "step", "tbptt"]
    T: int
    B: int
    I: int  # noqa: E741  # the field's name for the input size
    H: int
    layers: int = 1
    bidirectional: bool = False
    nonlinearity: str = "tanh"
    bias: bool = True
    output_size: int | None = None
    window: int | None = None
    stride: int | None = None
    dtype: str = "float32"
    threads: int = 1

    def spec(self) -> Spec:
        """The network of this case; raises SpecError."""
        return Spec(
            self.cell,
            self.I,
            self.H,
            num_layers=self.layers,
            bidirectional=self.bidirectional,
            nonlinearity=self.nonlinearity,
            bias=self.bias,
            output_size=self.output_size,
            dtype=self.dtype,
        )

    def key(self) -> str:
        """A short name that is the same for equal cases in every run."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def label(self) -> str:
        """A readable name: ``lstm step T64 B16 I64 H256 window32``; what has its usual value is left out."""
        usual = Case(self.cell, self.phase, self.T, self.B, self.I, self.H)
        parts = [self.cell, self.phase, f"T{self.T}", f"B{self.B}", f"I{self.I}", f"H{self.H}"]
        for name in self.__struct_fields__[6:]:
            value = getattr(self, name)
            if value != getattr(usual, name):
                parts.append(name if value is True else f"{name}{value}")
        return " ".join(parts)


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
    round: int
    cold: bool
    import_s: float
    load_s: float
    first_call_s: float


class Time(Row, frozen=True):
    """The samples of one round, in seconds per call, each the mean of ``loops`` calls; ``position`` in the round's order."""

    case: Case
    backend: str
    round: int
    position: int
    loops: int
    samples: list[float]


class Memory(Row, frozen=True):
    """Peak resident memory of one call above the loaded network, in bytes."""

    case: Case
    backend: str
    peak_bytes: int


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
    round: int | None = None


class End(Row, frozen=True):
    """The last row of a run that was completed, or was interrupted and says so."""

    finished: str  # ISO 8601, UTC
    seconds: float
    gate_seconds: float  # references and comparisons
    interrupted: bool = False
    timing_seconds: float | None = None  # warm-up and samples


AnyRow = Run | Gate | Startup | Time | Memory | Truncation | Failure | End

_DECODER = msgspec.json.Decoder(AnyRow)


class Contents(NamedTuple):
    """What a results file holds: its run, all other rows in order, and one sentence for each line that did not read."""

    path: Path
    run: Run
    rows: list[AnyRow]
    problems: list[str]


def read(path: Path | str) -> Contents:
    """Read a results file; raises StoreError where there is none, or where its first line is no run of this schema."""
    path = Path(path)
    rows: list[AnyRow] = []
    problems: list[str] = []
    for number, line, complete in _lines(path):
        if not complete:  # even if it reads as a row: it was never acknowledged, and going on with the run cuts it off
            problems.append(f"{path.name}:{number}: not a row: torn, the run was cut off while writing it")
            continue
        try:
            rows.append(_DECODER.decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            problems.append(f"{path.name}:{number}: not a row: {error}")
    run = rows[0] if rows else None
    if not isinstance(run, Run):
        raise StoreError(f"{path} is no results file: its first line is no run" + (f" ({problems[0]})" if problems else ""))
    if run.schema != SCHEMA:
        raise StoreError(f"{path} has schema {run.schema}; this version reads schema {SCHEMA}")
    return Contents(path, run, rows[1:], problems)


class Writer:
    """Appends rows to one file; each is on disk when ``append`` returns."""

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if resume:
                _cut_torn_line(path)
            self._file = path.open("ab" if resume else "xb", buffering=0)
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error

    def append(self, row: Row) -> None:
        line = memoryview(msgspec.json.encode(row) + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def results_files(path: Path | str) -> list[Path]:
    """The file itself, or all results files below a folder, oldest name first; raises StoreError if there are none."""
    path = Path(path)
    found = [path] if path.is_file() else sorted(path.rglob("*.jsonl"), key=lambda file: file.name)
    if not found:
        raise StoreError(f"no results at {path}; expected a .jsonl file, or a folder that holds some")
    return found


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if line.strip():
            yield number, line.rstrip(b"\r\n"), line.endswith(b"\n")


def _cut_torn_line(path: Path) -> None:
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
