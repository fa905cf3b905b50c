"""The worker processes of one round."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rnnbench.measure.client import START_LIMIT, WorkerProcess
from rnnbench.measure.plan import Plan
from rnnbench.processes.scratch import marked, own_folder
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.suite.case import Case

Use = tuple[str, str, str, str]
"""A backend with a cell, a nonlinearity and a dtype: all whose code is compiled at once."""


def use_of(name: str, case: Case) -> Use:
    return name, case.cell, case.nonlinearity, case.dtype


class Workers:
    """The processes of one round; one that ended is replaced when it is asked for again."""

    def __init__(self, plan: Plan, threads: int, jit_cache: Path) -> None:
        self._plan, self._threads, self._cache = plan, threads, jit_cache
        self._processes: dict[str, WorkerProcess] = {}
        self._greeted: set[str] = set()
        self._broken: dict[str, WorkerFailure] = {}
        self._used: set[Use] = set()
        self._stopped = False
        self.others_used: dict[str, float] = {}
        """``siblings``: processors that all others kept busy while the last one was asked, where that is looked at."""

    def start(self) -> None:
        """Begin to import all at once; each is waited for, one after the other."""
        for name in self._plan.names:
            self._processes[name] = self._new(name)
        for name in self._plan.names:
            with suppress(WorkerFailure):  # is told again, and stored, when the backend is first asked for a case
                self.get(name)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Here all are stopped but the one that is asked: the pools of some libraries go on spinning after a call."""
        strays = marked(own_folder().name)
        for process in self._processes.values():
            process.adopt(strays)
            process.stop()
        self._stopped = True
        try:
            yield
        finally:
            self._stopped, self.others_used = False, {}
            for process in self._processes.values():
                process.go_on()

    def ask(self, name: str, call: str, time_limit: float, **arguments: Any) -> Any:
        """The answer of a worker; raises WorkerFailure."""
        process = self.get(name)
        if not self._stopped:
            return process.ask(call, time_limit, **arguments)
        others = [other for other in self._processes.values() if other is not process]
        before, begun = [other.processor_seconds() for other in others], time.perf_counter()
        process.go_on()
        try:
            return process.ask(call, time_limit, **arguments)
        finally:
            process.stop()
            lasted = time.perf_counter() - begun
            used = [
                a - b for other, b in zip(others, before, strict=True) if b is not None and (a := other.processor_seconds())
            ]
            self.others_used = {"siblings": sum(used) / lasted} if used else {}

    def get(self, name: str) -> WorkerProcess:
        """A worker that is ready; raises WorkerFailure where its backend does not load, which is tried once a round."""
        if name in self._broken:
            raise self._broken[name]
        process = self._processes.get(name)
        if process is None or not process.alive:
            if process is not None:
                process.end()
            process = self._processes[name] = self._new(name)
            self._greeted.discard(name)
            self._used = {use for use in self._used if use[0] != name}
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
        cache = self._cache / str(self._plan.names.index(name))  # its own: no name finds code that another compiled
        return WorkerProcess(
            entry.backend, self._threads, cache, entry.code, self._plan.settings.affinity, self._plan.settings.env
        )

    def first_use(self, use: Use) -> bool:
        """Whether this (backend, cell, nonlinearity, dtype) is asked for the first time since its worker started."""
        if use in self._used:
            return False
        self._used.add(use)
        return True

    def end(self) -> None:
        for process in self._processes.values():
            process.end()
