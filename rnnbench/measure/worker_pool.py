"""The worker processes of one round."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rnnbench.measure.client import START_LIMIT, WorkerProcess
from rnnbench.measure.plan import Plan
from rnnbench.processes.scratch import marked_processes, own_folder
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.suite.case import Case

CompileKey = tuple[str, str, str, str]
"""A backend, a cell, a nonlinearity and a dtype, whose code is compiled together."""


def compile_key(name: str, case: Case) -> CompileKey:
    return name, case.cell, case.nonlinearity, case.dtype


class WorkerPool:
    """The worker processes of one round, one per backend; a dead worker is replaced at the next request."""

    def __init__(self, plan: Plan, threads: int, jit_cache: Path) -> None:
        self._plan, self._threads, self._cache = plan, threads, jit_cache
        self._processes: dict[str, WorkerProcess] = {}
        self._greeted: set[str] = set()
        self._broken: dict[str, WorkerFailure] = {}
        self._compiled: set[CompileKey] = set()
        self._stopped = False
        self.sibling_events: dict[str, float] = {}
        """``siblings``: processors that the other workers kept busy during the last request; empty if not measured."""

    def start(self) -> None:
        """Start all workers at once, then wait for each import."""
        for name in self._plan.names:
            self._processes[name] = self._new(name)
        for name in self._plan.names:
            with suppress(WorkerFailure):  # raised again, and stored, at the backend's first case
                self.get(name)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop all workers except the one that handles a request: the threads of some libraries spin after a call."""
        strays = marked_processes(own_folder().name)
        for process in self._processes.values():
            process.adopt(strays)
            process.stop()
        self._stopped = True
        try:
            yield
        finally:
            self._stopped, self.sibling_events = False, {}
            for process in self._processes.values():
                process.go_on()

    def ask(self, name: str, call: str, time_limit: float, **arguments: Any) -> Any:
        """Send a request to a worker and return its answer; raises WorkerFailure."""
        process = self.get(name)
        if not self._stopped:
            return process.ask(call, time_limit, **arguments)
        others = [other for other in self._processes.values() if other is not process]
        before, started = [other.processor_seconds() for other in others], time.perf_counter()
        process.go_on()
        try:
            return process.ask(call, time_limit, **arguments)
        finally:
            process.stop()
            duration = time.perf_counter() - started
            used = [
                a - b for other, b in zip(others, before, strict=True) if b is not None and (a := other.processor_seconds())
            ]
            self.sibling_events = {"siblings": sum(used) / duration} if used else {}

    def get(self, name: str) -> WorkerProcess:
        """Return a ready worker; raises WorkerFailure if its backend does not load, which is tried once a round."""
        if name in self._broken:
            raise self._broken[name]
        process = self._processes.get(name)
        if process is None or not process.alive:
            if process is not None:
                process.end()
            process = self._processes[name] = self._new(name)
            self._greeted.discard(name)
            self._compiled = {key for key in self._compiled if key[0] != name}
        if name not in self._greeted:
            try:
                process.greeting(START_LIMIT)
            except WorkerFailure as failure:
                process.end()
                self._broken[name] = failure
                raise
            self._greeted.add(name)
        return process

    def _new(self, name: str) -> WorkerProcess:
        entry = self._plan.entry(name)
        cache = self._cache / str(self._plan.names.index(name))  # one per name: no name finds code that another compiled
        return WorkerProcess(
            entry.backend, self._threads, cache, entry.code, self._plan.settings.affinity, self._plan.settings.env
        )

    def has_used(self, key: CompileKey) -> bool:
        """Return whether a backend's code for this key was used since its worker started."""
        return key in self._compiled

    def first_use(self, key: CompileKey) -> bool:
        """Return whether a backend's code for this key is used for the first time since its worker started."""
        if self.has_used(key):
            return False
        self._compiled.add(key)
        return True

    def end(self) -> None:
        for process in self._processes.values():
            process.end()
