"""Results files with given times, for the tests of what is chosen from them."""

from collections.abc import Mapping
from pathlib import Path

from rnnbench.measure.machine import machine_name
from rnnbench.store import Case, Failure, Gate, Run, Time, Writer

Row = Failure | Gate | Time


def write(
    path: Path,
    times: Mapping[tuple[str, Case], float | list[float]],
    others: tuple[Row, ...] = (),
    *,
    started: str = "2026-01-01T00:00:00+00:00",
    machine: str | None = None,
    commit: str = "0123456789",
) -> Path:
    """One run with ``times``: seconds by (backend, case), of one round each or of a list of rounds."""
    cases = list(dict.fromkeys(case for _, case in times))
    names = dict.fromkeys(backend for backend, _ in times)
    environment = {"machine": machine or machine_name(), "cores": 2, "commit": commit}
    with Writer(path) as writer:
        writer.append(Run(path.stem, started, "made-up", ["rnnbench"], {}, environment, {name: {} for name in names}, cases))
        for (backend, case), seconds in times.items():
            for number, value in enumerate(seconds if isinstance(seconds, list) else [seconds]):
                writer.append(Time(case, backend, number, 0, 1, [value]))
        for row in others:
            writer.append(row)
    return path
