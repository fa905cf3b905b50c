"""Ask backends for their facts and the cases they support, each in its own process.

A backend that crashes or hangs therefore loses only its own answers.
"""

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

MAX_LOSSES = 3
"""Crashes and hangs over single cases after which a backend is not asked about further cases."""


class Capabilities(NamedTuple):
    """The facts of one backend, and the cases that it refuses.

    ``info``: its ``info()``, with ``code``, a digest of its source, and for a third-party backend ``package``, the version
    of its package.  ``failure``: why there are no facts.
    ``refusals``: for each refused case "unsupported", "error", "crashed" or "timeout", and a sentence.
    """

    info: Mapping[str, Any] = {}
    failure: WorkerFailure | None = None
    refusals: Mapping[Case, tuple[str, str]] = {}


def ask(
    backends: Iterable[str],
    cases: Sequence[Case] = (),
    *,
    threads: int = 1,
    time_limit: float | None = None,
    env: Iterable[str] = (),
    processors: str | None = None,
) -> dict[str, Capabilities]:
    """Ask each backend for its facts and which of ``cases`` it supports; one backend per processor at a time.

    ``time_limit``: seconds per answer; the first answer includes the import (default: START_LIMIT).
    """
    limit = time_limit or START_LIMIT
    names = list(dict.fromkeys(backends))
    with scratch_folder() as folder, ThreadPoolExecutor(min(len(names), os.cpu_count() or 1) or 1) as pool:
        started: list[WorkerProcess] = []
        ending = threading.Event()

        def start(name: str) -> WorkerProcess:
            if ending.is_set():
                raise WorkerFailure("crashed", "not asked: the command is ending")
            process = WorkerProcess(name, threads, folder / "jit", None, processors, env)
            started.append(process)
            return process

        try:
            found = pool.map(lambda name: _ask_one(lambda: start(name), _package(name), cases, limit), names)
            return dict(zip(names, found, strict=True))
        finally:
            ending.set()
            pool.shutdown(wait=False, cancel_futures=True)
            for process in started:
                process.kill()  # so that no thread goes on waiting for an answer


def described(capabilities: Capabilities) -> str:
    """Format the facts of a backend, or why there are none, on one line."""
    if capabilities.failure:
        return f"unavailable: {failure_text(capabilities.failure)}"
    return ", ".join(f"{key} {value}" for key, value in capabilities.info.items())


def error_name(capabilities: Capabilities) -> str:
    """Return the class name of the error that loading the backend raised; "" if it raised none."""
    failure = capabilities.failure
    return str(failure).partition(": ")[0] if failure and failure.reason == "error" else ""


def failure_text(failure: WorkerFailure | None) -> str:
    """Return a failure's message on one line, without the error's name where the name adds nothing."""
    text = " ".join(str(failure or "").split())
    name, _, message = text.partition(": ")
    return message if name in ("BackendUnavailable", "BackendBroken", "UnknownBackend") else text


def _ask_one(start: Callable[[], WorkerProcess], package: dict[str, str], cases: Sequence[Case], limit: float) -> Capabilities:
    """Ask one backend about all cases at once; if that kills its process, ask about each case alone."""
    process = start()
    try:
        info = process.greeting(limit) | package
        info |= {"code": code} if (code := process.ask("code", limit)) else {}
    except WorkerFailure as failure:
        return Capabilities(failure=failure)
    else:
        try:
            refusals = _refusals(process, cases, limit) if cases else []
        except WorkerFailure:
            refusals = list(_refusals_one_by_one(start, cases, limit))
        return Capabilities(info, None, {case: refusal for case, refusal in zip(cases, refusals, strict=True) if refusal})
    finally:
        process.end()


def _package(name: str) -> dict[str, str]:
    """Return the version of the package that registers a third-party backend; empty for rnnbench's own."""
    entry = registered(GROUP, PEERS, CHOOSERS).get(name)
    if entry is None or entry.dist is None or entry.dist.name == "rnnbench":
        return {}
    return {"package": f"{entry.dist.name} {entry.dist.version}"}


def _refusals(process: WorkerProcess, cases: Sequence[Case], limit: float) -> list[tuple[str, str] | None]:
    return process.ask("supports", limit, cases=msgspec.to_builtins(cases))


def _refusals_one_by_one(
    start: Callable[[], WorkerProcess], cases: Sequence[Case], limit: float
) -> Iterator[tuple[str, str] | None]:
    process, losses = None, 0
    for case in cases:
        if losses == MAX_LOSSES:
            yield "error", f"not asked about this case: crashed or hung over {MAX_LOSSES} cases before"
            continue
        try:
            if process is None:
                process = start()
                process.greeting(limit)
            yield _refusals(process, [case], limit)[0]
        except WorkerFailure as failure:
            losses += 1
            process = None
            yield failure.reason, f"{failure}, when asked whether it supports the case"
    if process is not None:
        process.end()


def missing_file(name: str) -> bool:
    """Return whether a name is the path of a module that does not exist."""
    return name.endswith(".py") and not Path(name).is_file()
