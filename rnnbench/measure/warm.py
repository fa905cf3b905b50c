"""Compile what backends need, beforehand: in a process of its own, into the cache that later processes read."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from rnnbench.check import Problem
from rnnbench.errors import BackendUnavailable
from rnnbench.measure.client import START_LIMIT
from rnnbench.networks.cells import CELLS
from rnnbench.processes.environment import process_threads, worker_environment
from rnnbench.processes.worker_process import WorkerFailure, WorkerProcess
from rnnbench.suite.case import Case

TIME_LIMIT = 600.0
"""Seconds for the first call of one case."""

_T, _B, _I, _H = 3, 4, 8, 8  # code does not depend on sizes


class Warmed(NamedTuple):
    """What a backend found in a folder of the cache and what it compiled into it, in functions."""

    folder: str
    loaded: int
    compiled: int


def usual_cases() -> list[Case]:
    """Return an inference and a training step of every cell, on one thread and on all."""
    threads = sorted({1, process_threads("NUMBA_NUM_THREADS")})
    return [Case(cell, phase, _T, _B, _I, _H, threads=n) for n in threads for cell in CELLS for phase in ("forward", "step")]


def small(cases: Iterable[Case]) -> list[Case]:
    """Return a small case for each that needs code of its own."""
    return list(dict.fromkeys(_small(case) for case in cases))


def _small(case: Case) -> Case:
    sizes = {name: min(getattr(case, name), most) for name, most in (("T", _T), ("B", _B), ("I", _I), ("H", _H))}
    kept = {name: min(3, size) for name in ("output_size", "projection_size") if (size := getattr(case, name)) is not None}
    window = None if case.window is None else min(case.window, sizes["T"])
    return msgspec.structs.replace(case, **sizes, **kept, window=window, stride=None)


def warm(backend: str, cases: Sequence[Case], progress: Callable[[int, int, str], None]) -> list[Warmed]:
    """Call a backend once on each case that it supports, and return what its cache holds then.

    Raises BackendUnavailable if the backend does not start or fails on a case.
    """
    threads = max(case.threads for case in cases)
    worker = WorkerProcess("rnnbench.measure.worker", backend, worker_environment(threads))
    try:
        worker.greeting(START_LIMIT)
        refused = worker.ask("supports", START_LIMIT, cases=msgspec.to_builtins(cases))
        todo = [case for case, reason in zip(cases, refused, strict=True) if reason is None]
        for number, case in enumerate(todo):
            progress(number, len(todo), f"{backend}: {case.label()}")
            worker.ask("prepare", TIME_LIMIT, problem=msgspec.to_builtins(Problem(case, source="noise")))
        found = worker.ask("cache_use", START_LIMIT)
    except WorkerFailure as failure:
        raise BackendUnavailable(f"{backend} cannot be compiled here: {failure}") from failure
    finally:
        worker.end()
    return [Warmed(folder, *counts) for folder, counts in sorted(found.items())]
