"""Results: append-only files with one JSON object a line, written by one run and never rewritten.

A run leaves ``results/<machine>/<run>.jsonl``.  Its first row is the ``Run``; every other row is a fact about one case
and one backend.  A line is on disk before the next one begins.  A torn last line, as a crash leaves it, is passed over
when reading, and cut off when the run goes on; any other line that does not read as a row is reported when reading, and put
aside when the run goes on.
"""

import hashlib
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import msgspec

from rnnbench.disk import add_lines, make_folder, open_claimed, replace, sync_folder
from rnnbench.errors import LeftOut, StoreError
from rnnbench.header import flaw
from rnnbench.limits import Bytes, Count, Layers, Number, Size
from rnnbench.spec import Spec

SCHEMA = 1

PHASES = ("forward", "step", "tbptt")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to measure: a network, a phase and sizes.

    ``phase``: "forward" (inference), "step" (record and backward, all gradients) or "tbptt" (a whole sequence of T steps
    in windows).  ``window`` and ``stride`` belong to tbptt alone.  Sizes are held to their limits where a case is read.
    """

    cell: str
    phase: Literal["forward", "step", "tbptt"]
    T: Size
    B: Size
    I: Size  # noqa: E741  # the field's name for the input size
    H: Size
    layers: Layers = 1
    bidirectional: bool = False
    nonlinearity: str = "tanh"
    bias: bool = True
    output_size: Size | None = None
    window: Size | None = None
    stride: Size | None = None
    dtype: str = "float32"
    threads: Size = 1

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


class _Head(msgspec.Struct, tag_field="kind", tag="run"):
    """What a run's row of any schema holds."""

    schema: int


UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises: for what is no JSON or has another form, no UTF-8 or too long a number, and deep nesting."""

_DECODER = msgspec.json.Decoder(AnyRow)
_HEAD = msgspec.json.Decoder(_Head)


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
    for line in scan(path):
        if line.problem is None:
            rows.append(line.row)
        else:
            problems.append(line.problem)
    return Contents(path, cast("Run", rows[0]), rows[1:], problems)


class Line(NamedTuple):
    """One line of a results file: its number, its bytes, and either the row that it holds or a sentence why it holds none."""

    number: int
    content: bytes
    row: Any
    problem: str | None

    @property
    def torn(self) -> bool:
        return not self.content.endswith(b"\n")


def scan(path: Path, decoder: "msgspec.json.Decoder[Any]" = _DECODER) -> Iterator[Line]:
    """The lines of a results file that are not blank, of which the first holds its run; raises StoreError as ``read``."""
    first = True
    for number, content in _numbered(path):
        row, problem = None, None
        if content.endswith(b"\n"):
            try:
                row = decoder.decode(content)
            except UNREADABLE as error:
                problem = f"{path.name}:{number}: not a row: {_said(error)}"
            if isinstance(row, Run) and (wrong := flaw(row.environment, row.settings, row.backends)):
                row, problem = None, f"{path.name}:{number}: not a row: {wrong}"
        else:  # even if it reads as a row: it was never acknowledged, and going on with the run cuts it off
            problem = f"{path.name}:{number}: not a row: torn, the run was cut off while writing it"
        if first:
            _check_run(path, content, row, problem)
            first = False
        yield Line(number, content, row, problem)
    if first:
        _check_run(path, b"", None, None)


class Writer:
    """Appends rows to one file, which no other process can write into until it is closed.

    ``resume``: go on with a file that exists.  A torn last line is cut off; lines in the middle that hold no row are moved
    to ``quarantine_file(path)``, and ``moved`` has their numbers.
    Raises StoreError where the file cannot be written, where another process writes into it, or, resuming, as ``read`` does.
    """

    def __init__(self, path: Path, *, resume: bool = False) -> None:
        self.path = path
        self.moved: list[int] = []
        try:
            if not resume:
                make_folder(path.parent)
            self._file = open_claimed(path, "r+b" if resume else "xb")
            try:
                if resume:
                    self._repair()
                else:
                    sync_folder(path.parent)
            except BaseException:
                self._file.close()
                raise
        except OSError as error:
            raise StoreError(f"cannot write {path}: {error.strerror}") from error
        self._size = self._file.seek(0, os.SEEK_END)

    def append(self, row: Row) -> None:
        """Append a row, which is on disk when this returns; raises StoreError."""
        self.append_all([row])

    def append_all(self, rows: Iterable[Row]) -> None:
        """Append rows, all of which are on disk when this returns, and wait for the disk once; raises StoreError.

        After an error any of them may be in the file, the last one torn; the next rows to be appended take their place.
        """
        lines = memoryview(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
        size = self._size + len(lines)
        try:
            if self._file.tell() != self._size:
                self._file.truncate(self._size)
                self._file.seek(self._size)
            while lines:
                lines = lines[self._file.write(lines) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error
        self._size = size

    def close(self) -> None:
        """Close the file, which is taken away where not even a first row could be written."""
        if not self._size:
            self.path.unlink(missing_ok=True)
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repair(self) -> None:
        wrong = [line for line in scan(self.path) if line.problem is not None]
        bad = [line for line in wrong if not line.torn]
        if bad:
            add_lines(quarantine_file(self.path), [b"%d\t%b" % (line.number, line.content) for line in bad])
            numbers = {line.number for line in wrong}
            replace(self.path, (content for number, content in _numbered(self.path, blank=True) if number not in numbers))
            self.moved = [line.number for line in bad]
            self._file.close()
            self._file = open_claimed(self.path, "r+b")
        elif wrong:
            self._file.truncate(self._file.seek(0, os.SEEK_END) - len(wrong[0].content))


class Found(NamedTuple):
    """The results files below a folder, oldest name first, and a sentence for each file that has the name of one only."""

    files: list[Path]
    left_out: list[str]


def found_files(path: Path | str) -> Found:
    """The file itself, or what is below a folder; raises StoreError if there are no results files."""
    path = Path(path)
    if path.is_file():
        return Found([path], [])
    found = Found([], [])
    for file in sorted(path.rglob("*.jsonl"), key=lambda file: (file.name, file)):
        try:
            if not file.is_file():
                raise StoreError(f"{file} is no file")
            next(scan(file))
        except StoreError as error:
            found.left_out.append(f"left out: {error}")
        else:
            found.files.append(file)
    if not found.files:
        why = f": {found.left_out[0].removeprefix('left out: ')}" if found.left_out else ""
        raise StoreError(f"no results at {path}; expected a .jsonl file, or a folder that holds some{why}")
    return found


def results_files(path: Path | str) -> list[Path]:
    """The file itself, or all results files below a folder, oldest name first; raises StoreError if there are none.

    Files that have the name of one, and whose first line is no run, are left out with a warning (LeftOut) each.
    """
    found = found_files(path)
    for sentence in found.left_out:
        warnings.warn(sentence, LeftOut, stacklevel=2)
    return found.files


def quarantine_file(path: Path) -> Path:
    """Where lines of a results file go that hold no row: ``NUMBER<tab>LINE`` each, with the number that it had."""
    return path.with_name(f"{path.name}.bad")


def _numbered(path: Path, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                if blank or content.strip():
                    yield number, content
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _said(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_run(path: Path, content: bytes, row: Any, problem: str | None) -> None:
    """Raise StoreError where the first line is no run of this schema, also where that other schema's run does not read."""
    try:
        schema = _HEAD.decode(content).schema
    except UNREADABLE:
        schema = SCHEMA  # no run of any schema: refused below
    if schema != SCHEMA:
        raise StoreError(f"{path} has schema {schema}; this version reads schema {SCHEMA}")
    if not isinstance(row, Run):
        raise StoreError(f"{path} is no results file: its first line is no run" + (f" ({problem})" if problem else ""))
