"""Run a plan: rounds of fresh workers; each case is gated before it is timed, and stored before the next one.

``ledger`` holds what is known, ``schedule`` decides what comes next, and ``round`` measures.  The first round starts with an
empty JIT cache; later ones load compiled code.  At the end of a round, cases that the machine disturbed are repeated until
three repeats in a row were disturbed too; a quick run repeats nothing.

A run that has to fit a time (``Settings.fit``) leaves out cases, then rounds, as soon as its forecast says that they
do not fit.
"""

import datetime
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from rnnbench.choose.choose import Measurements
from rnnbench.measure.budget import Budget, budget
from rnnbench.measure.expectations import write_references
from rnnbench.measure.fit import Fit
from rnnbench.measure.forecast import Forecast, TimeLeft
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.memory import measurable
from rnnbench.measure.plan import Plan
from rnnbench.measure.prices import MEMORY, REFERENCE, START
from rnnbench.measure.round import Round, TimeSpent, ask_and_store_failure
from rnnbench.measure.schedule import Schedule
from rnnbench.measure.worker_pool import CompileKey, WorkerPool
from rnnbench.processes.scratch import scratch_folder
from rnnbench.results.rows import End, Failure, Memory, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case


class Progress(Protocol):
    """Callback with the units of work done, their total, a description of the next one, and the seconds left."""

    def __call__(self, done: int, total: int, what: str, left: float | None = None, /) -> None: ...


def run(plan: Plan, writer: Writer, progress: Progress, expected: Budget | None = None) -> list[str]:
    """Carry out a plan, appending every row to ``writer``; return a sentence for each thing left out to fit.

    ``expected``: what the run is expected to take (default: by assumed rates).  A KeyboardInterrupt is recorded in the file.
    """
    ledger, spent, started = Ledger(plan, writer), TimeSpent(), time.monotonic()
    forecast: Forecast | None = None

    def end(interrupted: bool) -> End:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        seconds, stages = time.monotonic() - started, forecast.spent() if forecast else ()
        return End(now, seconds, spent.gate, interrupted, spent.timing, spent.sampled, stages)

    with scratch_folder() as scratch:
        try:
            plan = plan.with_capabilities()
            forecast = Forecast(plan, ledger, (expected or budget(plan, Measurements(()))).prices)
            this = _Run(plan, ledger, spent, scratch, progress, forecast, started)
            this.measure()
        except KeyboardInterrupt:
            ledger.append(end(interrupted=True))
            raise
        ledger.append(end(interrupted=False))
    return this.left_out()


def run_into_new_file(plan: Plan, progress: Progress) -> None:
    """Carry out a new plan, in a new results file."""
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        run(plan, writer, progress)


class _Run:
    """The steps of a run, and its progress."""

    def __init__(
        self,
        plan: Plan,
        ledger: Ledger,
        spent: TimeSpent,
        scratch: Path,
        progress: Progress,
        forecast: Forecast,
        started: float,
    ) -> None:
        self._plan, self._ledger, self._spent, self._scratch = plan, ledger, spent, scratch
        self._schedule, self._forecast = Schedule(plan, ledger), forecast
        self._fit = Fit(plan.settings, forecast, self._schedule, started)
        self._time_left = TimeLeft(time.monotonic)
        self._compiled: set[CompileKey] = set()  # code in this process's JIT cache
        self._tell = progress
        self._done, self._total = 0, len(plan.run.cases) * (plan.settings.rounds + 1)

    def measure(self) -> None:
        settings = self._plan.settings
        self._refuse()
        self._write_references()
        for number in range(settings.most):
            cases_by_threads = self._schedule.round(number)
            if number >= settings.rounds:
                self._total += sum(map(len, cases_by_threads))
            for cases in cases_by_threads:
                self._round(number, cases)
        for cases in self._schedule.by_threads() if measurable() else ():
            self._measure_memory(cases)

    def left_out(self) -> list[str]:
        """Return a sentence for each thing that did not fit."""
        return self._fit.left_out()

    def _refuse(self) -> None:
        """Store which cases each backend refuses, in one write."""
        refused: list[Failure] = []
        for name, capabilities in self._plan.with_capabilities().capabilities.items():
            for case in self._plan.run.cases:
                if (case, name) in self._ledger.failed or name not in self._plan.names:
                    continue
                if failure := capabilities.failure:
                    refused.append(Failure(case, name, "load", failure.reason, str(failure)))  # type: ignore[arg-type]
                elif reason := self._too_many_threads(case):
                    refused.append(Failure(case, name, "load", "unsupported", reason))
                elif case in capabilities.refusals:
                    reason, message = capabilities.refusals[case]
                    refused.append(Failure(case, name, "load", reason, message))  # type: ignore[arg-type]
        if refused:
            self._ledger.append(*refused)

    def _too_many_threads(self, case: Case) -> str | None:
        cores = self._plan.run.environment["cores"]
        return f"the case asks for {case.threads} threads; workers have {cores} cores here" if case.threads > cores else None

    def _write_references(self) -> None:
        """Compute the reference of each case that some backend has yet to be timed on."""
        settings, started = self._plan.settings, time.monotonic()
        todo = self._schedule.to_check()
        self._forecast.references = set(todo)
        self._fit.trim()
        self._progress(f"computing the reference of {len(todo)} cases")
        problems = [settings.problem(case) for case in todo]
        truncated: list[Truncation] = []
        for case, cost, seconds in write_references(problems, self._scratch, settings.time_limit * 10, self._fit.holds):
            self._forecast.add(REFERENCE, case, "", seconds)
            self._forecast.references.discard(case)
            if cost is not None and case not in self._ledger.truncated:
                truncated.append(Truncation(case, cost.pop("all"), cost))
            self._fit.trim()
        if truncated:
            self._ledger.append(*truncated)
        self._forecast.references.clear()
        self._spent.gate += time.monotonic() - started

    def _round(self, number: int, cases: list[Case]) -> None:
        todo = [case for case in cases if self._schedule.untimed(case, number)]
        if not any(self._fit.allows(case, START) for case in todo):
            self._done += len(cases)
            return
        with self._workers(cases[0].threads) as workers:
            current = Round(
                number, self._plan.settings, self._ledger, workers, self._compiled, self._scratch, self._spent, self._forecast
            )
            measured: list[Case] = []
            for case in cases:
                if (names := self._schedule.untimed(case, number)) and self._fit.allows(case):
                    self._progress(f"round {number + 1}: {case.label()}")
                    current.measure(case, names)
                    self._forecast.timed(case)
                    measured.append(case)
                    if not number:
                        self._fit.trim()
                self._done += 1
            vain = 0  # disturbed repeats in a row
            for case in measured:
                if vain == self._plan.settings.vain_repeats:  # a permanent disturbance
                    break
                if (names := self._schedule.untimed(case, number)) and self._fit.allows_repeat(case):
                    self._progress(f"round {number + 1} again: {case.label()}")
                    vain = vain + 1 if current.measure(case, names) else 0
                    self._forecast.repeated()

    def _measure_memory(self, cases: list[Case]) -> None:
        if not any(self._fit.allows_memory(case, START) for case in cases):
            return
        with self._workers(cases[0].threads) as workers:
            for case in cases:
                if self._fit.allows_memory(case):
                    self._progress(f"memory: {case.label()}")
                    self._measure_memory_of(case, workers)
                    self._forecast.memory_done.add(case)
                self._done += 1

    def _measure_memory_of(self, case: Case, workers: WorkerPool) -> None:
        settings = self._plan.settings
        problem = settings.problem(case)
        for name in self._ledger.not_failed(case, self._plan.names):
            if (case, name) in self._ledger.memory:
                continue
            started = time.monotonic()
            peak = ask_and_store_failure(self._ledger, workers, settings, name, case, "memory", None, "memory", problem=problem)
            self._forecast.add(MEMORY, case, name, time.monotonic() - started)
            if peak is not None:
                self._ledger.append(Memory(case, name, peak))

    def _progress(self, what: str) -> None:
        rounds = self._plan.settings.rounds
        self._tell(self._done, self._total, what, self._time_left.seconds(lambda: self._fit.left(rounds)))

    @contextmanager
    def _workers(self, threads: int) -> Iterator[WorkerPool]:
        workers, started = WorkerPool(self._plan, threads, self._scratch / "jit"), time.monotonic()
        try:
            workers.start()
            self._forecast.add(START, None, "", time.monotonic() - started)
            yield workers
        finally:
            workers.end()
