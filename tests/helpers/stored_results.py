"""Results files with given times, for the tests of what is chosen from them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rnnbench.machine.facts import machine_name
from rnnbench.results.rows import Failure, Gate, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

Row = Failure | Gate | Time


def write(
    path: Path,
    times: Mapping[tuple[str, Case], float | list[float]],
    others: tuple[Row, ...] = (),
    *,
    started: str = "2026-01-01T00:00:00+00:00",
    machine: str | None = None,
    commit: str | None = "0123456789",
    environment: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    about: Mapping[str, dict[str, Any]] | None = None,
) -> Path:
    """One run with ``times``: seconds by (backend, case), of one round each or of a list of rounds.

    ``environment``, ``settings``: facts besides; ``about``: what backends say of themselves.
    """
    cases = list(dict.fromkeys(case for _, case in times))
    names = dict.fromkeys(backend for backend, _ in times)
    facts = {"machine": machine or machine_name(), "cores": 2, "commit": commit, **(environment or {})}
    backends = {name: (about or {}).get(name, {}) for name in names}
    with Writer(path) as writer:
        writer.append(Run(path.stem, started, "made-up", ["rnnbench"], dict(settings or {}), facts, backends, cases))
        for (backend, case), seconds in times.items():
            for number, value in enumerate(seconds if isinstance(seconds, list) else [seconds]):
                writer.append(Time(case, backend, number, 0, 1, [value]))
        for row in others:
            writer.append(row)
    return path
