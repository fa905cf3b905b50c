"""What is expected of each problem, computed by the reference while backends are examined."""

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
"""Seconds that the reference may take for one problem, and to start."""


def referees(problems: int) -> int:
    """How many processes are worth starting: alone, one takes longer than a quick backend does."""
    return 1 if problems < 30 else min(2, os.cpu_count() or 1)


class References:
    """Files of what is expected of problems, computed in processes in the order in which they are wanted.

    With no processes they are computed here, when they are asked for.
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
        """Have the file of a problem made, if there is a process that can."""
        if self._pool:
            self._promised(problem)

    def get(self, problem: Problem) -> Path:
        """The file, once it is there; raises ReferenceFailed."""
        return self._promised(problem).result()

    def close(self) -> None:
        """End the processes and remove the files; who still waits for one gets an error.  May be called again."""
        self._closed = True
        for referee in self._referees:
            referee.kill()
        if self._pool:
            self._pool.shutdown(cancel_futures=True)
        for referee in self._referees:
            referee.end()
        self._held.close()

    def _promised(self, problem: Problem) -> Future[Path]:
        with self._lock:
            if problem not in self._files:
                file = self._folder / f"{len(self._files)}.npz"
                self._files[problem] = self._pool.submit(self._asked, problem, file) if self._pool else _made(problem, file)
            return self._files[problem]

    def _asked(self, problem: Problem, file: Path) -> Path:
        try:
            self._referee().ask("expect", LIMIT, problem=msgspec.to_builtins(problem), reference=str(file))
        except WorkerFailure as failure:
            raise ReferenceFailed(f"the reference failed, nothing can be checked: {failure}") from failure
        return file

    def _referee(self) -> WorkerProcess:
        """The process of this thread."""
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


def _made(problem: Problem, file: Path) -> Future[Path]:
    """What is expected, computed here."""
    save_expected(file, expected(problem))
    done: Future[Path] = Future()
    done.set_result(file)
    return done
