"""What `rnnbench machine` stores: results/<machine>/machine-<time>.json, one JSON document, written once."""

import datetime
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from rnnbench.errors import StoreError
from rnnbench.results.disk import create

SCHEMA = 1


class Roof(msgspec.Struct, frozen=True):
    """The best and the median of ``repeats``, with ``threads`` at once; ``bytes`` is each thread's working set."""

    name: str
    threads: int
    best: float
    median: float
    repeats: int
    bytes: int | None = None


class Roofs(msgspec.Struct, frozen=True):
    """What this processor was measured to reach at most.

    ``vectors``: the widest instructions used.  ``multiply_adds``: FLOP/s by dtype.  ``reads``: bytes/s by the level that
    the data comes from, "L1", ..., "memory".  ``barrier``: seconds for all threads to meet once.  ``empty_call``: seconds
    of a call from Python of a compiled function that does nothing.  ``clock_step``: seconds between two different readings
    of Python's performance counter, at least.  ``missing``: a sentence for each roof that could not be measured.
    """

    vectors: str
    multiply_adds: list[Roof]
    reads: list[Roof]
    barrier: list[Roof]
    empty_call: Roof
    clock_step: float
    missing: list[str]

    def peak(self, dtype: str, threads: int) -> float | None:
        """FLOP/s of ``threads`` in ``dtype``; None where that was not measured."""
        return next((roof.best for roof in self.multiply_adds if (roof.name, roof.threads) == (dtype, threads)), None)


class HealthCheck(msgspec.Struct, frozen=True):
    """One check: ``state`` is "wrong", "fine" or "unknown"; ``mend`` is a sentence for what is wrong."""

    check: str
    state: Literal["wrong", "fine", "unknown"]
    seen: str
    mend: str | None = None


class Machine(msgspec.Struct, frozen=True):
    """One look at a machine.  ``environment`` is what every run stores; what follows may be different at the next look.

    ``governors`` and ``boost``: of the clock, None where they are not known.  ``roofs``: None where they were not measured.
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
    """The folder of a machine's results, made where it is missing; raises StoreError where nothing can be written to it."""
    folder = results / machine
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"cannot write to {folder}: it is read-only")
    return folder


def write_machine(machine: Machine, folder: Path) -> Path:
    """Store a look in the folder of its machine's results; raises StoreError."""
    moment = datetime.datetime.fromisoformat(machine.recorded)
    path = folder / f"machine-{moment:%Y%m%dT%H%M%S.%f}.json"
    try:
        create(path, [document(machine)])
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    return path


def document(machine: Machine) -> bytes:
    """The machine as JSON, indented."""
    return msgspec.json.format(msgspec.json.encode(machine)) + b"\n"


def load_machine(folder: Path | str) -> Machine | None:
    """The newest look in the folder of one machine's results; None where there is none.  Raises StoreError."""
    files = sorted(Path(folder).glob("machine-*.json"))
    return _read(files[-1]) if files else None


def load_roofs(folder: Path | str) -> Roofs | None:
    """The roofs of the newest look that has measured them; None where none has.  Raises StoreError."""
    looks = map(_read, sorted(Path(folder).glob("machine-*.json"), reverse=True))
    return next((look.roofs for look in looks if look.roofs), None)


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
