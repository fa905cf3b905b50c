"""What is expected of each problem, computed by the reference while backends are examined."""

import contextlib
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock, local

import msgspec

from rnnbench.check.files import save_expected
from rnnbench.check.problem import Problem
from rnnbench.check.process import WorkerProcess
from rnnbench.check.tolerance import expected
from rnnbench.errors import ReferenceFailed
from rnnbench.process import WorkerFailure
from rnnbench.scratch import scratch_folder

REFERENCE = "numpy_ref"

LIMIT = 600.0
"""Seconds that the reference may take for one problem, and to start."""


def referees(problems: int) -> int:
    """How many processes are worth starting: alone, one takes longer than a quick backend does."""
    return 1 if problems < 30 else min(2, os.cpu_count() or 1)


class References:
    """Files of what is expected, by the problem's number, computed in processes in the order in which they are wanted.

    With no processes they are computed here, when they are asked for.
    """

    def __init__(self, problems: Sequence[Problem], processes: int) -> None:
        self._problems = problems
        self._held = contextlib.ExitStack()
        self._folder = self._held.enter_context(scratch_folder())
        self._pool = ThreadPoolExecutor(processes) if processes else None
        self._of_thread = local()
        self._referees: list[WorkerProcess] = []
        self._closed = False
        self._lock = Lock()
        self._files: dict[int, Future[Path]] = {}

    def want(self, number: int) -> None:
        """Have the file of a problem made."""
        with self._lock:
            if self._pool and number not in self._files:
                self._files[number] = self._pool.submit(self._asked, number)

    def get(self, number: int) -> Path:
        """The file, once it is there; raises ReferenceFailed."""
        if self._pool:
            self.want(number)
            return self._files[number].result()
        file = self._file(number)
        if not file.exists():
            save_expected(file, expected(self._problems[number]))
        return file

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

    def _asked(self, number: int) -> Path:
        file = self._file(number)
        problem = msgspec.to_builtins(self._problems[number])
        try:
            self._referee().ask("expect", LIMIT, problem=problem, reference=str(file))
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

    def _file(self, number: int) -> Path:
        return self._folder / f"{number}.npz"
