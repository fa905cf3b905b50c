"""Machine snapshots, as `rnnbench machine` stores them: results/<machine>/machine-<time>.json, written once."""

import datetime
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from rnnbench.errors import StoreError
from rnnbench.results.disk import create

SCHEMA = 1


class Roof(msgspec.Struct, frozen=True):
    """The best and the median of ``repeats`` on ``threads`` threads; ``bytes`` is the working set of each."""

    name: str
    threads: int
    best: float
    median: float
    repeats: int
    bytes: int | None = None


class Roofs(msgspec.Struct, frozen=True):
    """The measured limits of a processor.

    ``vectors``: the widest instructions used.  ``multiply_adds``: FLOP/s by dtype.  ``reads``: bytes/s by source, "L1", ...,
    "memory".  ``barrier``: seconds of one barrier of all threads.  ``empty_call``: seconds of a call from Python of an
    empty compiled function.  ``clock_step``: smallest step of Python's performance counter, in seconds.
    ``missing``: a sentence for each roof that could not be measured.
    """

    vectors: str
    multiply_adds: list[Roof]
    reads: list[Roof]
    barrier: list[Roof]
    empty_call: Roof
    clock_step: float
    missing: list[str]

    def peak(self, dtype: str, threads: int) -> float | None:
        """Return the FLOP/s of ``threads`` threads in ``dtype``; None if not measured."""
        return next((roof.best for roof in self.multiply_adds if (roof.name, roof.threads) == (dtype, threads)), None)


class HealthCheck(msgspec.Struct, frozen=True):
    """The result of one check; ``mend`` says how to fix what is wrong."""

    check: str
    state: Literal["wrong", "fine", "unknown"]
    seen: str
    mend: str | None = None


class Machine(msgspec.Struct, frozen=True):
    """A snapshot of a machine.

    ``environment``: the facts that every run stores; all other fields may differ in the next snapshot.  ``governors`` and
    ``boost``: of the clock, None if unknown.  ``roofs``: None if not measured.
    """

    recorded: str  # ISO 8601, UTC
    environment: dict[str, Any]
    governors: list[str] | None
    boost: bool | None
    thread_pools: list[dict[str, Any]]
    findings: list[HealthCheck]
    roofs: Roofs | None
    schema: int = SCHEMA


class _Versioned(msgspec.Struct):
    schema: int


def results_folder(results: Path, machine: str) -> Path:
    """Return the folder of a machine's results, created if missing; raises StoreError if it is not writable."""
    folder = results / machine
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"cannot write to {folder}: it is read-only")
    return folder


def write_machine(machine: Machine, folder: Path) -> Path:
    """Store a snapshot in the folder of its machine's results; raises StoreError."""
    moment = datetime.datetime.fromisoformat(machine.recorded)
    path = folder / f"machine-{moment:%Y%m%dT%H%M%S.%f}.json"
    try:
        create(path, [document(machine)])
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    return path


def document(machine: Machine) -> bytes:
    """Encode a snapshot as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(machine)) + b"\n"


def load_machine(folder: Path | str) -> Machine | None:
    """Load the newest snapshot in the folder of a machine's results; None if there is none.  Raises StoreError."""
    files = sorted(Path(folder).glob("machine-*.json"))
    return _read(files[-1]) if files else None


def load_roofs(folder: Path | str) -> Roofs | None:
    """Load the roofs of the newest snapshot that has them; None if none has.  Raises StoreError."""
    snapshots = map(_read, sorted(Path(folder).glob("machine-*.json"), reverse=True))
    return next((snapshot.roofs for snapshot in snapshots if snapshot.roofs), None)


def _read(path: Path) -> Machine:
    try:
        content = path.read_bytes()
        schema = msgspec.json.decode(content, type=_Versioned).schema
        if schema != SCHEMA:
            raise StoreError(f"{path} has schema {schema}; this version reads schema {SCHEMA}")
        return msgspec.json.decode(content, type=Machine)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} does not read as what `rnnbench machine` stores: {error}") from error
