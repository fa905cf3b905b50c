"""One round: fresh processes, one per backend, in which each case is loaded, gated and timed.

The parent asks the processes for one sample after the other, the others stopped meanwhile, so that the times that are
compared lie milliseconds apart.  The backends' order rotates from pass to pass.
"""

import dataclasses
import math
import time
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check import Finding, Problem
from rnnbench.measure.disturbances import MAX_CANARY, altogether, disturbing, usual, with_canary
from rnnbench.measure.expectations import reference_file
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Settings
from rnnbench.measure.sampling import MAX_SAMPLE_SECONDS, Pass, Sample, made
from rnnbench.measure.worker_pool import Use, Workers, use_of
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.results.rows import Failure, Gate, Startup, Time
from rnnbench.suite.case import Case

MIN_CALL_SECONDS = 1e-7
"""A call from Python of a function that does nothing takes nearly as long."""


@dataclasses.dataclass
class Spent:
    """Seconds that a run has spent on checks, on timing (warm-up and samples), and on samples alone."""

    gate: float = 0.0
    timing: float = 0.0
    sampled: float = 0.0


def asked(
    ledger: Ledger,
    workers: Workers,
    settings: Settings,
    name: str,
    case: Case,
    stage: Any,
    number: int | None,
    call: str,
    **arguments: Any,
) -> Any:
    """The worker's answer to a call, or None after its failure was stored."""
    arguments = {key: msgspec.to_builtins(value) for key, value in arguments.items()}
    try:
        return workers.ask(name, call, settings.time_limit, **arguments)
    except WorkerFailure as failure:
        ledger.append(Failure(case, name, stage, failure.reason, str(failure), number))  # type: ignore[arg-type]
        return None


class Round:
    """Round ``number`` of a run with the processes of ``workers``; ``compiled`` is what the run's JIT cache holds."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        ledger: Ledger,
        workers: Workers,
        compiled: set[Use],
        scratch: Path,
        spent: Spent,
    ) -> None:
        self._number, self._settings, self._ledger, self._workers = number, settings, ledger, workers
        self._compiled, self._scratch, self._spent = compiled, scratch, spent

    def measure(self, case: Case, names: list[str]) -> bool:
        """Check and time backends on a case, in this order; whether the machine disturbed it."""
        ready = [name for name in names if self._prepare(name, case)]
        started = time.monotonic()
        with self._workers.stopped():
            disturbed = self._time(ready, case)
        self._spent.timing += time.monotonic() - started
        return disturbed

    def _prepare(self, name: str, case: Case) -> bool:
        """Load a case, call it once, and gate the network that will be timed; False where the backend failed.

        Only the first case of a cell in a process tells what start-up costs: later ones find its code in memory.
        """
        problem = self._settings.problem(case)
        use = use_of(name, case)
        cold = use not in self._compiled
        facts = self._asked(name, case, "startup", "prepare", problem=problem)
        if facts is None:
            return False
        self._compiled.add(use)
        first = self._workers.first_use(use) and (use, case.threads, self._number) not in self._ledger.started_up
        if not self._gate(name, problem):
            return False
        if first and case.phase != "forward":
            self._ledger.append(Startup(case, name, self._number, cold, **facts))
        return True

    def _gate(self, name: str, problem: Problem) -> bool:
        """Check a case in this round's process; stored once, and again where a later round finds it wrong."""
        case, started = problem.case, time.monotonic()
        found = self._asked(name, case, "gate", "gate", problem=problem, reference=str(reference_file(self._scratch, case)))
        seconds = time.monotonic() - started
        self._spent.gate += seconds
        if found is None:
            return False
        findings = [Finding(*finding) for finding in found]
        passed = all(finding.passed for finding in findings)
        row = Gate(case, name, passed, {f.tensor: (f.error, f.tolerance) for f in findings}, seconds)
        if not passed:
            wrong = "; ".join(str(finding) for finding in findings if not finding.passed)
            known = [row] if (case, name) not in self._ledger.refused else []  # else a kill has parted the two
            self._ledger.append(*known, Failure(case, name, "gate", "wrong", wrong[:2000], self._number))
        elif (case, name) not in self._ledger.gated:
            self._ledger.append(row)
        return passed

    def _time(self, names: list[str], case: Case) -> bool:
        if any((case, name) not in self._ledger.loops for name in names):
            self._calibrate(names, case)
        canaries = self._ledger.canaries.setdefault(case.threads, [])
        full_speed = usual(canaries)
        limit = None if full_speed is None else full_speed * (1 + MAX_CANARY)
        passes = made(lambda turn: self._pass(names, case, turn), self._settings.samples, limit)
        rows: list[Time] = []
        for place, name in enumerate(names):
            if (case, name) in self._ledger.failed:
                continue
            kept, left_out = ([one[name] for one in some] for some in passes)
            events = with_canary(altogether(sample.events for sample in kept), canaries)
            seconds, others = ([sample.seconds for sample in some] for some in (kept, left_out))
            loops, on_device = self._ledger.loops[case, name], [s.device for s in kept if s.device is not None]
            row = Time(case, name, self._number, place, loops, seconds, events, left_out=others, device_samples=on_device)
            rows.append(row)
        self._spent.sampled += sum(row.sampled_seconds for row in rows)
        disturbed = any(disturbing(row.events, row.sampled_seconds) for row in rows)
        if rows:  # at once: waiting for the disk between two backends would part their times
            self._ledger.append(*(msgspec.structs.replace(row, disturbed=disturbed) for row in rows))
        return disturbed

    def _pass(self, names: list[str], case: Case, turn: int) -> Pass:
        """One sample of each backend that has not failed, in an order that rotates from pass to pass."""
        how: dict[str, Any] = {"count": 1}
        if self._settings.affinity is not None:
            how["processors"] = self._settings.affinity
        found: dict[str, Sample] = {}
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if (case, name) in self._ledger.failed:
                continue
            loops = self._ledger.loops[case, name]
            answer = self._asked(name, case, "time", "sample", loops=loops, **how)
            if isinstance(answer, list):  # of a worker that runs the code of an older commit
                answer = {"samples": answer, "events": None}
            if answer is not None:
                events = {**(answer["events"] or {}), **self._workers.others_used}
                on_device = answer.get("device_samples")
                found[name] = Sample(answer["samples"][0], events or None, on_device[0] if on_device else None, loops)
        return found

    def _calibrate(self, names: list[str], case: Case) -> None:
        """Learn how many calls make a sample: as many of each backend as the fastest needs, but in no more than so long."""
        seconds: dict[str, float] = {}
        for name in names:
            found = self._asked(name, case, "time", "calibrate")
            if found is not None and MIN_CALL_SECONDS <= found < math.inf:
                seconds[name] = found
            elif found is not None:
                said = f"a call took {found:g} s by its own clock; no network is computed in less than {MIN_CALL_SECONDS:g} s"
                self._ledger.append(Failure(case, name, "time", "error", said, self._number))
        for name, own in seconds.items():
            needed = math.ceil(math.log2(self._settings.shortest_sample / min(seconds.values())))
            self._ledger.loops[case, name] = 2 ** max(0, min(needed, math.floor(math.log2(MAX_SAMPLE_SECONDS / own))))

    def _asked(self, name: str, case: Case, stage: str, call: str, **arguments: Any) -> Any:
        return asked(self._ledger, self._workers, self._settings, name, case, stage, self._number, call, **arguments)
