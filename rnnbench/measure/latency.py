"""The time of single steps: its distribution is the result, for one late step is a gap in what a user hears.

A round starts a fresh process for each backend; within a case the backends take turns, in another order in each round.
Garbage collection is off while steps are timed.  A step is timed by itself, from the call until ``synchronize`` returns.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import groupby
from typing import Any, ClassVar

import msgspec
import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.measure.client import START_LIMIT
from rnnbench.processes.environment import worker_environment
from rnnbench.processes.worker_process import WorkerFailure, WorkerProcess
from rnnbench.suite.case import Case

WARM_UP_STEPS = 2000

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "p99.99": 0.9999, "max": 1.0}

MODULE = "rnnbench.measure.latency_worker"


class Distribution(msgspec.Struct, frozen=True):
    """Seconds of single steps: ``quantiles`` by the names of QUANTILES.

    ``late``: steps that took longer than a frame.  ``preempted``: how often the thread lost its processor.
    """

    steps: int
    quantiles: dict[str, float]
    mean: float
    late: int
    preempted: int


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """The steps of one backend in one round of a case, or why there are none; ``info`` is what the backend says of itself."""

    backend: str
    case: Case
    round: int
    found: Distribution | None = None
    failure: str | None = None
    info: dict[str, Any] | None = None


@dataclass(frozen=True)
class Settings:
    """``steps`` in each of ``rounds``; ``frame``: seconds in which a step has to be done."""

    steps: int = 100_000
    rounds: int = 5
    frame: float = 0.01
    seed: int = 0
    time_limit: float = 600.0


class Summary(msgspec.Struct, frozen=True):
    """One backend on one case over all rounds: medians of the rounds' quantiles, the largest time, and late steps in all.

    ``factor``: the real-time factor, median time / frame.
    """

    backend: str
    case: Case
    rounds: int
    quantiles: dict[str, float]
    factor: float
    late: int
    preempted: int


class Process(WorkerProcess):
    answers: ClassVar[Mapping[str, Any]] = {"steps": Distribution, "refusal": str | None}


def distribution(times: np.ndarray, frame: float, preempted: int) -> Distribution:
    """Summarise seconds of steps; each quantile is a time that was measured."""
    found = np.quantile(times, list(QUANTILES.values()), method="inverted_cdf")
    quantiles = dict(zip(QUANTILES, map(float, found), strict=True))
    return Distribution(len(times), quantiles, float(times.mean()), int((times > frame).sum()), preempted)


def check_cases(cases: Iterable[Case]) -> None:
    """Raise ArgumentError for cases that are not single steps."""
    for case in cases:
        if case.phase != "forward" or case.T != 1:
            raise ArgumentError(
                f"the suite has {case.label()!r}; expected the phase forward with T = 1, as in the suite latency"
            )


def measure(
    names: Sequence[str], cases: Sequence[Case], settings: Settings, progress: Callable[[int, int, str], None]
) -> Iterator[Row]:
    """Yield a row for each backend, case and round; a backend that fails does not stop the others."""
    total, done = settings.rounds * len(names) * len(cases), 0
    order = random.Random(settings.seed)
    for number in range(settings.rounds):
        turned = [*names[number % len(names) :], *names[: number % len(names)]]
        for threads, group in groupby(sorted(cases, key=lambda case: case.threads), key=lambda case: case.threads):
            with ExitStack() as stack:
                workers = {name: _Worker(name, threads, stack) for name in turned}
                shuffled = list(group)
                order.shuffle(shuffled)
                for case in shuffled:
                    for name, worker in workers.items():
                        progress(done, total, f"{case.label()}  {name}")
                        yield worker.row(case, number, settings)
                        done += 1


def summaries(rows: Iterable[Row], frame: float) -> list[Summary]:
    """Summarise the rounds of each backend and case that have times, in the order of the rows' cases."""
    by_key: dict[tuple[Case, str], list[Distribution]] = {}
    for row in rows:
        if row.found is not None:
            by_key.setdefault((row.case, row.backend), []).append(row.found)
    found = []
    for (case, backend), rounds in by_key.items():
        middle = {name: float(np.median([one.quantiles[name] for one in rounds])) for name in QUANTILES}
        middle["max"] = max(one.quantiles["max"] for one in rounds)
        late, preempted = sum(one.late for one in rounds), sum(one.preempted for one in rounds)
        found.append(Summary(backend, case, len(rounds), middle, middle["p50"] / frame, late, preempted))
    return sorted(found, key=lambda one: (one.case.cell, one.case.H, one.case.label(), one.quantiles["p50"]))


class _Worker:
    """The process of one backend in one round; after a crash it answers no more."""

    def __init__(self, name: str, threads: int, stack: ExitStack) -> None:
        self._name, self._lost = name, None
        self._info: dict[str, Any] | None = None
        self._process = Process(MODULE, name, worker_environment(threads))
        stack.callback(self._process.end)
        try:
            self._info = self._process.greeting(START_LIMIT)
        except WorkerFailure as error:
            self._lost = str(error)

    def row(self, case: Case, number: int, settings: Settings) -> Row:
        found, failure = None, self._lost
        if failure is None:
            try:
                failure = self._process.ask("refusal", settings.time_limit, case=case)
                if failure is None:
                    given = {"count": settings.steps, "frame": settings.frame, "seed": settings.seed}
                    found = self._process.ask("steps", settings.time_limit, case=case, **given)
            except WorkerFailure as error:
                failure = str(error)
                if error.reason != "error":
                    self._lost = failure
        return Row(self._name, case, number, found, failure, self._info)
