"""What is expected of each case, computed by the reference before anything is timed, on all cores."""

import os
from collections.abc import Iterator
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
    problems: list[Problem], folder: Path, time_limit: float
) -> Iterator[tuple[Case, dict[str, float] | None]]:
    """Write ``reference_file`` of each problem, yielding each case when it is done, with what its window costs.

    Raises ReferenceFailed: without it nothing can be checked, so nothing is timed.
    """
    referees = [WorkerProcess(REFERENCE, 1, folder) for _ in range(min(os.cpu_count() or 1, len(problems)))]
    try:
        idle: SimpleQueue[WorkerProcess] = SimpleQueue()
        for referee in referees:
            referee.greeting(START_LIMIT)
            idle.put(referee)
        with ThreadPoolExecutor(max(1, len(referees))) as pool:
            # the longest first, so that no core waits for the other at the end
            longest_first = sorted(problems, key=lambda p: p.case.T * p.case.B * p.case.H**2, reverse=True)
            futures = [pool.submit(_one, idle, problem, folder, time_limit) for problem in longest_first]
            try:
                for future in as_completed(futures):
                    yield future.result()
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
                for referee in referees:
                    referee.kill()  # so that no thread waits for an answer any longer
    except WorkerFailure as failure:
        raise ReferenceFailed(f"the reference failed, nothing can be checked: {failure}") from failure
    finally:
        for referee in referees:
            referee.end()


def reference_file(folder: Path, case: Case) -> Path:
    return folder / f"{case.key()}.npz"


def _one(
    idle: "SimpleQueue[WorkerProcess]", problem: Problem, folder: Path, time_limit: float
) -> tuple[Case, dict[str, float] | None]:
    referee, case = idle.get(), problem.case
    try:
        request = msgspec.to_builtins(problem)
        referee.ask("expect", time_limit, problem=request, reference=str(reference_file(folder, case)))
        cost = referee.ask("window_cost", time_limit, problem=request) if case.phase == "tbptt" else None
    finally:
        idle.put(referee)
    return case, cost
