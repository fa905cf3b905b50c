"""Run a plan: rounds of fresh workers; each case is gated before it is timed, and stored before the next one.

``ledger`` holds what is known, ``schedule`` decides what comes next, and ``round`` measures.  The first round starts with an
empty JIT cache; later ones load compiled code.  At the end of a round, cases that the machine disturbed are repeated until
three repeats in a row were disturbed too; a quick run repeats nothing.
"""

import datetime
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rnnbench.measure.expectations import write_references
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.memory import measurable
from rnnbench.measure.plan import Plan
from rnnbench.measure.round import Round, TimeSpent, ask_and_store_failure
from rnnbench.measure.schedule import Schedule
from rnnbench.measure.worker_pool import CompileKey, WorkerPool
from rnnbench.processes.scratch import scratch_folder
from rnnbench.results.rows import End, Failure, Memory, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

Progress = Callable[[int, int, str], None]
"""Callback with the units of work done, their total, and a description of the next one."""


def run(plan: Plan, writer: Writer, progress: Progress) -> None:
    """Carry out a plan, appending every row to ``writer``; a KeyboardInterrupt is recorded in the file."""
    ledger, spent, started = Ledger(plan, writer), TimeSpent(), time.monotonic()

    def end(interrupted: bool) -> End:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return End(now, time.monotonic() - started, spent.gate, interrupted, spent.timing, spent.sampled)

    with scratch_folder() as scratch:
        try:
            _Run(plan, ledger, spent, scratch, progress).measure()
        except KeyboardInterrupt:
            ledger.append(end(interrupted=True))
            raise
        ledger.append(end(interrupted=False))


def run_into_new_file(plan: Plan, progress: Progress) -> None:
    """Carry out a new plan, in a new results file."""
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        run(plan, writer, progress)


class _Run:
    """The steps of a run, and its progress."""

    def __init__(self, plan: Plan, ledger: Ledger, spent: TimeSpent, scratch: Path, progress: Progress) -> None:
        self._plan, self._ledger, self._spent, self._scratch = plan, ledger, spent, scratch
        self._schedule = Schedule(plan, ledger)
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
        self._progress(f"computing the reference of {len(todo)} cases")
        found = write_references([settings.problem(case) for case in todo], self._scratch, settings.time_limit * 10)
        known = self._ledger.truncated
        truncations = [
            Truncation(case, cost.pop("all"), cost) for case, cost in found if cost is not None and case not in known
        ]
        if truncations:
            self._ledger.append(*truncations)
        self._spent.gate += time.monotonic() - started

    def _round(self, number: int, cases: list[Case]) -> None:
        if not any(self._schedule.untimed(case, number) for case in cases):
            self._done += len(cases)
            return
        with self._workers(cases[0].threads) as workers:
            current = Round(number, self._plan.settings, self._ledger, workers, self._compiled, self._scratch, self._spent)
            for case in cases:
                self._progress(f"round {number + 1}: {case.label()}")
                current.measure(case, self._schedule.untimed(case, number))
                self._done += 1
            vain = 0  # disturbed repeats in a row
            for case in cases:
                if vain == self._plan.settings.vain_repeats:  # a permanent disturbance
                    break
                if names := self._schedule.untimed(case, number):
                    self._progress(f"round {number + 1} again: {case.label()}")
                    vain = vain + 1 if current.measure(case, names) else 0

    def _measure_memory(self, cases: list[Case]) -> None:
        with self._workers(cases[0].threads) as workers:
            for case in cases:
                self._progress(f"memory: {case.label()}")
                settings = self._plan.settings
                problem = settings.problem(case)
                for name in self._ledger.not_failed(case, self._plan.names):
                    if (case, name) in self._ledger.memory:
                        continue
                    peak = ask_and_store_failure(
                        self._ledger, workers, settings, name, case, "memory", None, "memory", problem=problem
                    )
                    if peak is not None:
                        self._ledger.append(Memory(case, name, peak))
                self._done += 1

    def _progress(self, what: str) -> None:
        self._tell(self._done, self._total, what)

    @contextmanager
    def _workers(self, threads: int) -> Iterator[WorkerPool]:
        workers = WorkerPool(self._plan, threads, self._scratch / "jit")
        try:
            workers.start()
            yield workers
        finally:
            workers.end()
