"""Compute the reference results of all cases, on all cores, before anything is timed."""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

import msgspec

from rnnbench.check import Problem
from rnnbench.errors import ReferenceFailed
from rnnbench.measure.client import START_LIMIT, WorkerProcess
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.suite.case import Case

REFERENCE = "numpy_ref"


def write_references(
    problems: list[Problem], folder: Path, time_limit: float, wanted: Callable[[Case], bool] = lambda _: True
) -> Iterator[tuple[Case, dict[str, float] | None, float]]:
    """Write the ``reference_file`` of each problem; yield each finished case, the truncation error of its window, and seconds.

    A case is asked for only if it is still ``wanted`` when its turn comes.

    Raises ReferenceFailed: without the reference nothing can be checked, so nothing is timed.
    """
    workers = [WorkerProcess(REFERENCE, 1, folder) for _ in range(min(os.cpu_count() or 1, len(problems)))]
    try:
        idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        for worker in workers:
            worker.greeting(START_LIMIT)
            idle.put(worker)
        with ThreadPoolExecutor(max(1, len(workers))) as pool:
            # longest first, so that all cores finish at about the same time
            longest_first = sorted(problems, key=lambda p: p.case.T * p.case.B * p.case.H**2, reverse=True)
            futures = [pool.submit(_write_reference, idle, problem, folder, time_limit, wanted) for problem in longest_first]
            try:
                for future in as_completed(futures):
                    if (found := future.result()) is not None:
                        yield found
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in workers:
                    worker.kill()  # so that no thread goes on waiting for an answer
    except WorkerFailure as failure:
        raise ReferenceFailed(f"the reference failed, nothing can be checked: {failure}") from failure
    finally:
        for worker in workers:
            worker.end()


def reference_file(folder: Path, case: Case) -> Path:
    return folder / f"{case.key()}.npz"


def _write_reference(
    idle: "SimpleQueue[WorkerProcess]", problem: Problem, folder: Path, time_limit: float, wanted: Callable[[Case], bool]
) -> tuple[Case, dict[str, float] | None, float] | None:
    worker, case, started = idle.get(), problem.case, time.monotonic()
    try:
        if not wanted(case):
            return None
        request = msgspec.to_builtins(problem)
        worker.ask("expect", time_limit, problem=request, reference=str(reference_file(folder, case)))
        cost = worker.ask("window_cost", time_limit, problem=request) if case.phase == "tbptt" else None
    finally:
        idle.put(worker)
    return case, cost, time.monotonic() - started
