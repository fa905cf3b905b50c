"""Expected results of problems, computed by the reference while backends are tested."""

import contextlib
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local

import msgspec

from rnnbench.check.client import WorkerProcess
from rnnbench.check.expected_files import save_expected
from rnnbench.check.problem import Problem
from rnnbench.check.tolerance import expected
from rnnbench.errors import ReferenceFailed
from rnnbench.processes.scratch import scratch_folder
from rnnbench.processes.worker_process import WorkerFailure

REFERENCE = "numpy_ref"

LIMIT = 600.0
"""Time limit in seconds for one problem, and for the start of the reference."""


def referees(problems: int) -> int:
    """Number of reference processes for a number of problems; a single one would delay fast backends."""
    return 1 if problems < 30 else min(2, os.cpu_count() or 1)


class References:
    """Files of expected results, computed in worker processes in the order of requests.

    With ``processes`` = 0 they are computed in this process, when they are needed.
    """

    def __init__(self, processes: int) -> None:
        self._held = contextlib.ExitStack()
        self._folder = self._held.enter_context(scratch_folder())
        self._pool = ThreadPoolExecutor(processes) if processes else None
        self._of_thread = local()
        self._referees: list[WorkerProcess] = []
        self._closed = False
        self._lock = Lock()
        self._files: dict[Problem, Future[Path]] = {}

    def want(self, problem: Problem) -> None:
        """Start computing the file of a problem, if there are worker processes."""
        if self._pool:
            self._future(problem)

    def get(self, problem: Problem) -> Path:
        """Wait for the file of a problem and return its path; raises ReferenceFailed."""
        return self._future(problem).result()

    def close(self) -> None:
        """End the processes and remove the files; pending ``get`` calls raise an error.  May be called repeatedly."""
        self._closed = True
        for referee in self._referees:
            referee.kill()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for referee in self._referees:
            referee.end()
        self._held.close()

    def _future(self, problem: Problem) -> Future[Path]:
        with self._lock:
            if problem not in self._files:
                file = self._folder / f"{len(self._files)}.npz"
                self._files[problem] = self._pool.submit(self._ask, problem, file) if self._pool else _compute(problem, file)
            return self._files[problem]

    def _ask(self, problem: Problem, file: Path) -> Path:
        try:
            self._referee().ask("expect", LIMIT, problem=msgspec.to_builtins(problem), reference=str(file))
        except WorkerFailure as failure:
            raise ReferenceFailed(f"the reference failed, so nothing can be checked: {failure}") from failure
        return file

    def _referee(self) -> WorkerProcess:
        """The worker process of this thread."""
        known = getattr(self._of_thread, "referee", None)
        if known:
            return known
        referee = WorkerProcess(REFERENCE)
        self._referees.append(referee)
        if self._closed:
            referee.kill()
        referee.greeting(LIMIT)
        self._of_thread.referee = referee
        return referee


def _compute(problem: Problem, file: Path) -> Future[Path]:
    """Compute the expected results in this process."""
    save_expected(file, expected(problem))
    done: Future[Path] = Future()
    done.set_result(file)
    return done
