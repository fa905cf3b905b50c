"""What backends say of themselves, asked in a process each: what one does there is its own answer, and loses no other's."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rnnbench.measure.client import START_LIMIT, WorkerProcess
from rnnbench.networks.registry import CHOOSERS, GROUP, PEERS, registered
from rnnbench.processes.scratch import scratch_folder
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.suite.case import Case

LOSSES = 3
"""How often a backend may crash or hang over single cases before it is asked for no more."""


class Answers(NamedTuple):
    """What one backend said: its ``info()`` with ``code`` and ``package``, a digest of its source and its package's version
    where it is another's; or ``absent``, why there is none.

    ``refusals``: for each case in which it takes no part "unsupported", "error", "crashed" or "timeout", and a sentence.
    """

    info: Mapping[str, Any] = {}
    absent: WorkerFailure | None = None
    refusals: Mapping[Case, tuple[str, str]] = {}


def ask(
    backends: Iterable[str],
    cases: Sequence[Case] = (),
    *,
    threads: int = 1,
    time_limit: float | None = None,
    env: Iterable[str] = (),
    processors: str | None = None,
) -> dict[str, Answers]:
    """Ask each backend for ``info()`` and, of each case, whether it takes part; as many at once as there are processors.

    ``time_limit``: seconds for each answer, the first one with the import (default: START_LIMIT).
    """
    limit = time_limit or START_LIMIT
    names = list(dict.fromkeys(backends))
    with scratch_folder() as folder, ThreadPoolExecutor(min(len(names), os.cpu_count() or 1) or 1) as pool:
        started: list[WorkerProcess] = []
        ending = threading.Event()

        def start(name: str) -> WorkerProcess:
            if ending.is_set():
                raise WorkerFailure("crashed", "not asked any more")
            process = WorkerProcess(name, threads, folder / "jit", None, processors, env)
            started.append(process)
            return process

        try:
            found = pool.map(lambda name: _asked(lambda: start(name), _package(name), cases, limit), names)
            return dict(zip(names, found, strict=True))
        finally:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.kill()  # so that no thread waits for an answer any longer


def described(said: Answers) -> str:
    """One line: the facts, or why there are none."""
    return (
        f"unavailable: {words(said.absent)}" if said.absent else ", ".join(f"{key} {value}" for key, value in said.info.items())
    )


def kind_of(said: Answers) -> str:
    """The error that a backend raised when it was loaded, by its name; "" for none, or none that an answer tells."""
    return str(said.absent).partition(": ")[0] if said.absent and said.absent.reason == "error" else ""


def words(failure: WorkerFailure | None) -> str:
    """What became of a backend, without the name of an error that says nothing more."""
    text = " ".join(str(failure or "").split())
    kind, _, rest = text.partition(": ")
    return rest if kind in ("BackendUnavailable", "BackendBroken", "UnknownBackend") else text


def _asked(start: Callable[[], WorkerProcess], package: dict[str, str], cases: Sequence[Case], limit: float) -> Answers:
    """Start a process, and ask it; where the question for all cases loses it, ask for each of them alone."""
    process = start()
    try:
        info = process.greeting(limit) | package
        info |= {"code": code} if (code := process.ask("code", limit)) else {}
    except WorkerFailure as failure:
        return Answers(absent=failure)
    else:
        try:
            refusals = _supports(process, cases, limit) if cases else []
        except WorkerFailure:
            refusals = list(_one_by_one(start, cases, limit))
        return Answers(info, None, {case: told for case, told in zip(cases, refusals, strict=True) if told})
    finally:
        process.end()


def _package(name: str) -> dict[str, str]:
    """The version of the package that registers a backend, where that is another's."""
    entry = registered(GROUP, PEERS, CHOOSERS).get(name)
    if entry is None or entry.dist is None or entry.dist.name == "rnnbench":
        return {}
    return {"package": f"{entry.dist.name} {entry.dist.version}"}


def _supports(process: WorkerProcess, cases: Sequence[Case], limit: float) -> list[tuple[str, str] | None]:
    return process.ask("supports", limit, cases=msgspec.to_builtins(cases))


def _one_by_one(start: Callable[[], WorkerProcess], cases: Sequence[Case], limit: float) -> Iterator[tuple[str, str] | None]:
    process, lost = None, 0
    for case in cases:
        if lost == LOSSES:
            yield "error", f"not asked whether it takes part: crashed or hung {LOSSES} times when it was"
            continue
        try:
            if process is None:
                process = start()
                process.greeting(limit)
            yield _supports(process, [case], limit)[0]
        except WorkerFailure as failure:
            lost += 1
            process = None
            yield failure.reason, f"{failure}, asked whether it takes part"
    if process is not None:
        process.end()


def missing_file(name: str) -> bool:
    """Whether a name is the path of a module that is not there."""
    return name.endswith(".py") and not Path(name).is_file()
