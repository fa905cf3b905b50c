"""The run: rounds of fresh workers, each case gated before it is timed, the facts of a case stored before the next.

In each round one fresh process per backend is alive, the others stopped while one is sampled, and the parent asks them for
one sample after the other, so that the times that are compared lie milliseconds apart.  Cases are shuffled per round; within a
case the backends' order rotates from pass to pass, and the first pass's from round to round.  The first round starts with
an empty JIT cache and holds the gate; later ones load compiled code.  At the end of a round the cases that the machine
disturbed are measured once more, until that was in vain three times on end; a quick run repeats nothing.  After the rounds
that all cases have, further ones hold only the cases whose ratios are not yet known.
"""

import datetime
import math
import random
import time
from bisect import insort
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check import Finding, Problem
from rnnbench.measure.disturbances import MAX_CANARY, altogether, disturbing, usual, with_canary
from rnnbench.measure.expectations import reference_file, write_references
from rnnbench.measure.memory import measurable
from rnnbench.measure.plan import Plan
from rnnbench.measure.sampling import MAX_SAMPLE_SECONDS, Pass, Sample, made
from rnnbench.measure.stopping import RoundHistory
from rnnbench.measure.worker_pool import Use, Workers, use_of
from rnnbench.processes.scratch import scratch_folder
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.results.rows import End, Failure, Gate, Memory, Row, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

Progress = Callable[[int, int, str], None]
"""Told how many units of work are done, how many there are, and what is next."""


MIN_CALL_SECONDS = 1e-7
"""Seconds: a call from Python of a function that does nothing takes nearly as long."""


def run(plan: Plan, writer: Writer, progress: Progress) -> None:
    """Carry out a plan, appending every row to ``writer``; on KeyboardInterrupt what is stored stays and says so."""
    session = _Session(plan, writer, progress)
    with ExitStack() as stack:
        scratch = stack.enter_context(scratch_folder())
        try:
            session.measure(scratch)
        except KeyboardInterrupt:
            session.append(session.end(interrupted=True))
            raise
        session.append(session.end(interrupted=False))


def run_into_new_file(plan: Plan, progress: Progress) -> None:
    """Carry out a plan that does not go on with another run, in a results file of its own."""
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        run(plan, writer, progress)


class _Session:
    """What one process knows of a run: the facts stored so far, and the work that is left."""

    def __init__(self, plan: Plan, writer: Writer, progress: Progress) -> None:
        self._plan, self._writer, self._progress = plan, writer, progress
        self._started = time.monotonic()
        self._gate_seconds = self._timing_seconds = self._sampled_seconds = 0.0
        self._failed: set[tuple[Case, str]] = set()
        self._gated: set[tuple[Case, str]] = set()
        self._refused: set[tuple[Case, str]] = set()  # by the gate, whose row comes before that of the failure
        self._timed: set[tuple[Case, str, int]] = set()
        self._disturbed: set[tuple[Case, str, int]] = set()
        self._canaries: dict[int, list[float]] = {}  # seconds, sorted, by threads: with more of them the clock may be lower
        self._memory: set[tuple[Case, str]] = set()
        self._truncated: set[Case] = set()
        self._loops: dict[tuple[Case, str], int] = {}
        self._started_up = {  # told before this session, by threads and round
            (use_of(row.backend, row.case), row.case.threads, row.round) for row in plan.stored if isinstance(row, Startup)
        }
        self._measured = RoundHistory()
        self._compiled: set[Use] = set()  # what this session's JIT cache holds
        for row in plan.stored:
            self._know(row)

    def append(self, *rows: Row) -> None:
        self._writer.append_all(rows)
        for row in rows:
            self._know(row)

    def end(self, interrupted: bool) -> End:
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        seconds = time.monotonic() - self._started
        return End(now, seconds, self._gate_seconds, interrupted, self._timing_seconds, self._sampled_seconds)

    def measure(self, scratch: Path) -> None:
        cases, settings = self._plan.run.cases, self._plan.settings
        self._total = len(cases) * (settings.rounds + 1)
        self._done = 0
        self._refuse()
        self._write_references(scratch)
        for number in range(settings.most):
            order = [case for case in cases if self._wanted(case, number)]
            if number >= settings.rounds:
                self._total += len(order)
            random.Random(f"{self._plan.run.run} {number}").shuffle(order)
            for threads in sorted({case.threads for case in order}):
                self._round(number, [case for case in order if case.threads == threads], threads, scratch)
        for threads in sorted({case.threads for case in cases}) if measurable() else ():
            self._measure_memory([case for case in cases if case.threads == threads], threads, scratch)

    def _know(self, row: Any) -> None:
        match row:
            case Failure():
                self._failed.add((row.case, row.backend))
            case Gate():
                (self._gated if row.passed else self._refused).add((row.case, row.backend))
            case Time():
                key = (row.case, row.backend, row.round)
                if row.disturbed and key not in self._disturbed and self._plan.settings.vain_repeats:
                    self._disturbed.add(key)  # to be measured once more
                else:
                    self._timed.add(key)
                if row.events and "canary_s" in row.events:
                    insort(self._canaries.setdefault(row.case.threads, []), row.events["canary_s"])
                self._loops[row.case, row.backend] = row.loops
                self._measured.add(row)
            case Memory():
                self._memory.add((row.case, row.backend))
            case Truncation():
                self._truncated.add(row.case)

    def _refuse(self) -> None:
        """Store, of all cases at once, in which of them a backend takes no part."""
        refused: list[Failure] = []
        for name, said in self._plan.asked().answers.items():
            for case in self._plan.run.cases:
                if (case, name) in self._failed or name not in self._plan.names:
                    continue
                if said.absent:
                    refused.append(Failure(case, name, "load", said.absent.reason, str(said.absent)))  # type: ignore[arg-type]
                elif reason := self._too_many_threads(case):
                    refused.append(Failure(case, name, "load", "unsupported", reason))
                elif case in said.refusals:
                    reason, message = said.refusals[case]
                    refused.append(Failure(case, name, "load", reason, message))  # type: ignore[arg-type]
        if refused:
            self.append(*refused)

    def _too_many_threads(self, case: Case) -> str | None:
        cores = self._plan.run.environment["cores"]
        return f"the case asks for {case.threads} threads; workers have {cores} cores here" if case.threads > cores else None

    def _write_references(self, scratch: Path) -> None:
        """Compute what the gate needs, for each case that some backend has yet to be timed on."""
        settings, started = self._plan.settings, time.monotonic()
        rounds = range(settings.most)
        todo = [
            case
            for case in self._plan.run.cases
            if any(self._untimed(case, number) and self._wanted(case, number) for number in rounds)
        ]
        problems = [settings.problem(case) for case in todo]
        self._progress(self._done, self._total, f"computing the reference of {len(todo)} cases")
        found = write_references(problems, scratch, settings.time_limit * 10)
        truncations = [
            Truncation(case, cost.pop("all"), cost) for case, cost in found if cost is not None and case not in self._truncated
        ]
        if truncations:
            self.append(*truncations)
        self._gate_seconds += time.monotonic() - started

    def _round(self, number: int, cases: list[Case], threads: int, scratch: Path) -> None:
        if not any(self._untimed(case, number) for case in cases):
            self._done += len(cases)
            return
        with self._workers(threads, scratch) as workers:
            for case in cases:
                self._progress(self._done, self._total, f"round {number + 1}: {case.label()}")
                self._measure(workers, case, number, scratch)
                self._done += 1
            vain = 0
            for case in cases:
                if vain == self._plan.settings.vain_repeats:  # no event: it is the state of the machine
                    break
                if not self._untimed(case, number):
                    continue
                self._progress(self._done, self._total, f"round {number + 1} again: {case.label()}")
                vain = vain + 1 if self._measure(workers, case, number, scratch) else 0

    def _measure(self, workers: Workers, case: Case, number: int, scratch: Path) -> bool:
        """Check and time the backends that have yet to be timed on a case in a round; whether the machine disturbed it."""
        todo = self._untimed(case, number)
        shift = (number + int(case.key(), 16)) % max(1, len(todo))
        order = todo[shift:] + todo[:shift]
        ready = [name for name in order if self._prepare(workers, name, case, number, scratch)]
        started = time.monotonic()
        with workers.stopped():
            disturbed = self._time(workers, ready, case, number)
        self._timing_seconds += time.monotonic() - started
        return disturbed

    def _wanted(self, case: Case, number: int) -> bool:
        return self._measured.asks_for(case, number, self._plan.settings, self._open(case))

    def _open(self, case: Case) -> list[str]:
        """The backends that have not failed on a case."""
        return [name for name in self._plan.names if (case, name) not in self._failed]

    def _untimed(self, case: Case, number: int) -> list[str]:
        """The backends that have yet to time a case in a round, or to do so once more."""
        return [name for name in self._open(case) if (case, name, number) not in self._timed]

    def _prepare(self, workers: Workers, name: str, case: Case, number: int, scratch: Path) -> bool:
        """Load a case, call it once, and gate the network that will be timed; False where the backend failed.

        Only the first case of a cell in a process tells what start-up costs: later ones find its code in memory.
        """
        problem = self._plan.settings.problem(case)
        use = use_of(name, case)
        cold = use not in self._compiled
        facts = self._asked(workers, name, case, "startup", number, "prepare", problem=problem)
        if facts is None:
            return False
        self._compiled.add(use)
        first = workers.first_use(use) and (use, case.threads, number) not in self._started_up
        if not self._gate(workers, name, problem, number, scratch):
            return False
        if first and case.phase != "forward":
            self.append(Startup(case, name, number, cold, **facts))
        return True

    def _gate(self, workers: Workers, name: str, problem: Problem, number: int, scratch: Path) -> bool:
        """Check a case in this round's process; stored once, and again where a later round finds it wrong."""
        case, started = problem.case, time.monotonic()
        reference = reference_file(scratch, case)
        found = self._asked(workers, name, case, "gate", number, "gate", problem=problem, reference=str(reference))
        seconds = time.monotonic() - started
        self._gate_seconds += seconds
        if found is None:
            return False
        findings = [Finding(*finding) for finding in found]
        passed = all(finding.passed for finding in findings)
        row = Gate(case, name, passed, {f.tensor: (f.error, f.tolerance) for f in findings}, seconds)
        if not passed:
            wrong = "; ".join(str(finding) for finding in findings if not finding.passed)
            known = [row] if (case, name) not in self._refused else []  # else a kill has parted the two
            self.append(*known, Failure(case, name, "gate", "wrong", wrong[:2000], number))
        elif (case, name) not in self._gated:
            self.append(row)
        return passed

    def _time(self, workers: Workers, names: list[str], case: Case, number: int) -> bool:
        settings = self._plan.settings
        if any((case, name) not in self._loops for name in names):
            self._calibrate(workers, names, case, number)
        session = self._canaries.setdefault(case.threads, [])
        full_speed = usual(session)
        limit = None if full_speed is None else full_speed * (1 + MAX_CANARY)
        passes = made(lambda turn: self._pass(workers, names, case, number, turn), settings.samples, limit)
        rows: list[Time] = []
        for place, name in enumerate(names):
            if (case, name) in self._failed:
                continue
            kept, left_out = ([one[name] for one in some] for some in passes)
            events = with_canary(altogether(sample.events for sample in kept), session)
            seconds, others = ([sample.seconds for sample in some] for some in (kept, left_out))
            loops, on_device = self._loops[case, name], [sample.device for sample in kept if sample.device is not None]
            rows.append(Time(case, name, number, place, loops, seconds, events, left_out=others, device_samples=on_device))
        self._sampled_seconds += sum(row.sampled_seconds for row in rows)
        disturbed = any(disturbing(row.events, row.sampled_seconds) for row in rows)
        if rows:  # at once: waiting for the disk between two backends would part their times
            self.append(*(msgspec.structs.replace(row, disturbed=disturbed) for row in rows))
        return disturbed

    def _pass(self, workers: Workers, names: list[str], case: Case, number: int, turn: int) -> Pass:
        """One sample of each backend that has not failed, in an order that rotates from pass to pass."""
        asked: dict[str, Any] = {"count": 1}
        if self._plan.settings.affinity is not None:
            asked["processors"] = self._plan.settings.affinity
        found: dict[str, Sample] = {}
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if (case, name) in self._failed:
                continue
            loops = self._loops[case, name]
            answer = self._asked(workers, name, case, "time", number, "sample", loops=loops, **asked)
            if isinstance(answer, list):  # of a worker that runs the code of an older commit
                answer = {"samples": answer, "events": None}
            if answer is not None:
                events, on_device = {**(answer["events"] or {}), **workers.others_used}, answer.get("device_samples")
                found[name] = Sample(answer["samples"][0], events or None, on_device[0] if on_device else None, loops)
        return found

    def _calibrate(self, workers: Workers, names: list[str], case: Case, number: int) -> None:
        """Learn how many calls make a sample: as many of each backend as the fastest needs, but in no more than so long."""
        seconds: dict[str, float] = {}
        for name in names:
            found = self._asked(workers, name, case, "time", number, "calibrate")
            if found is not None and MIN_CALL_SECONDS <= found < math.inf:
                seconds[name] = found
            elif found is not None:
                said = f"a call took {found:g} s by its own clock; no network is computed in less than {MIN_CALL_SECONDS:g} s"
                self.append(Failure(case, name, "time", "error", said, number))
        for name, own in seconds.items():
            needed = math.ceil(math.log2(self._plan.settings.shortest_sample / min(seconds.values())))
            self._loops[case, name] = 2 ** max(0, min(needed, math.floor(math.log2(MAX_SAMPLE_SECONDS / own))))

    def _measure_memory(self, cases: list[Case], threads: int, scratch: Path) -> None:
        with self._workers(threads, scratch) as workers:
            for case in cases:
                self._progress(self._done, self._total, f"memory: {case.label()}")
                problem = self._plan.settings.problem(case)
                for name in self._open(case):
                    if (case, name) in self._memory:
                        continue
                    peak = self._asked(workers, name, case, "memory", None, "memory", problem=problem)
                    if peak is not None:
                        self.append(Memory(case, name, peak))
                self._done += 1

    def _asked(
        self, workers: Workers, name: str, case: Case, stage: Any, number: int | None, call: str, **arguments: Any
    ) -> Any:
        """The worker's answer, or None after its failure was stored."""
        arguments = {key: msgspec.to_builtins(value) for key, value in arguments.items()}
        try:
            return workers.ask(name, call, self._plan.settings.time_limit, **arguments)
        except WorkerFailure as failure:
            self.append(Failure(case, name, stage, failure.reason, str(failure), number))  # type: ignore[arg-type]
            return None

    @contextmanager
    def _workers(self, threads: int, scratch: Path) -> Iterator[Workers]:
        workers = Workers(self._plan, threads, scratch / "jit")
        try:
            workers.start()
            yield workers
        finally:
            workers.end()
