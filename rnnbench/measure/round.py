"""One round: fresh processes, one per backend, in which each case is loaded, gated and timed.

Backends take samples in turn while all others are stopped, so the samples that are compared lie milliseconds apart.  The
order of the backends rotates from pass to pass.
"""

import dataclasses
import math
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check import Finding, Problem
from rnnbench.measure.disturbances import MAX_CANARY, combined, full_speed_canary, is_disturbed, with_canary
from rnnbench.measure.expectations import reference_file
from rnnbench.measure.forecast import Forecast
from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Settings
from rnnbench.measure.prices import CALLS_TO_CALIBRATE, COMPILE, GATE, LOAD, PREPARE, REST, TIME
from rnnbench.measure.sampling import MAX_SAMPLE_SECONDS, Pass, Sample, take_passes
from rnnbench.measure.worker_pool import CompileKey, WorkerPool, compile_key
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.results.rows import Failure, Gate, Startup, Time
from rnnbench.suite.case import Case

MIN_CALL_SECONDS = 1e-7
"""Shortest plausible call, in seconds: an empty Python function takes nearly as long."""


@dataclasses.dataclass
class TimeSpent:
    """Seconds that a run has spent on the gate, on timing (warm-up and samples), and on samples only."""

    gate: float = 0.0
    timing: float = 0.0
    sampled: float = 0.0


def ask_and_store_failure(
    ledger: Ledger,
    workers: WorkerPool,
    settings: Settings,
    name: str,
    case: Case,
    stage: Any,
    number: int | None,
    call: str,
    **arguments: Any,
) -> Any:
    """Return a worker's answer; if it fails, store the failure and return None."""
    arguments = {key: msgspec.to_builtins(value) for key, value in arguments.items()}
    try:
        return workers.ask(name, call, settings.time_limit, **arguments)
    except WorkerFailure as failure:
        ledger.append(Failure(case, name, stage, failure.reason, str(failure), number))  # type: ignore[arg-type]
        return None


class Round:
    """Round ``number`` of a run; ``compiled`` lists the code in the run's JIT cache."""

    def __init__(
        self,
        number: int,
        settings: Settings,
        ledger: Ledger,
        workers: WorkerPool,
        compiled: set[CompileKey],
        scratch: Path,
        spent: TimeSpent,
        forecast: Forecast,
    ) -> None:
        self._number, self._settings, self._ledger, self._workers = number, settings, ledger, workers
        self._compiled, self._scratch, self._spent, self._forecast = compiled, scratch, spent, forecast
        self._timing: defaultdict[str, float] = defaultdict(float)  # seconds of a case's requests to take samples, by backend
        self._asked = 0.0  # seconds of all requests of a case

    def measure(self, case: Case, names: list[str]) -> bool:
        """Check and time backends on a case, in this order; return whether the machine disturbed it."""
        began = time.monotonic()
        self._timing.clear()
        self._asked = 0.0
        ready = [name for name in names if self._prepare(name, case)]
        started = time.monotonic()
        calibrated = all((case, name) in self._ledger.loops for name in ready)
        with self._workers.stopped():
            disturbed = self._time(ready, case)
        ended = time.monotonic()
        self._spent.timing += ended - started
        for name, seconds in self._timing.items():
            self._forecast.add(TIME, case, name, seconds, calls=0 if calibrated else CALLS_TO_CALIBRATE)
        self._forecast.add(REST, case, "", ended - began - self._asked)
        return disturbed

    def _prepare(self, name: str, case: Case) -> bool:
        """Load a case, call it once, and gate the network that will be timed; return False if the backend failed.

        Only the first case of a cell in a process measures start-up: later ones find their code in memory.
        """
        problem = self._settings.problem(case)
        key = compile_key(name, case)
        cold = key not in self._compiled
        started = time.monotonic()
        stage = COMPILE if cold else PREPARE if self._workers.has_used(key) else LOAD
        facts = self._ask(name, case, "startup", "prepare", problem=problem)
        self._forecast.add(stage, case, name, time.monotonic() - started)
        if facts is None:
            return False
        self._compiled.add(key)
        first = self._workers.first_use(key) and (key, case.threads, self._number) not in self._ledger.known_startups
        if not self._gate(name, problem):
            return False
        if first and case.phase != "forward":
            self._ledger.append(Startup(case, name, self._number, cold, **facts))
        return True

    def _gate(self, name: str, problem: Problem) -> bool:
        """Check a case in this round's process; store the first check, and a failing one in any round."""
        case, started = problem.case, time.monotonic()
        found = self._ask(name, case, "gate", "gate", problem=problem, reference=str(reference_file(self._scratch, case)))
        seconds = time.monotonic() - started
        self._spent.gate += seconds
        self._forecast.add(GATE, case, name, seconds)
        if found is None:
            return False
        findings = [Finding(*finding) for finding in found]
        passed = all(finding.passed for finding in findings)
        row = Gate(case, name, passed, {f.tensor: (f.error, f.tolerance) for f in findings}, seconds)
        if not passed:
            wrong = "; ".join(str(finding) for finding in findings if not finding.passed)
            # a run killed between the two rows has stored the first already
            gate_row = [row] if (case, name) not in self._ledger.refused else []
            self._ledger.append(*gate_row, Failure(case, name, "gate", "wrong", wrong[:2000], self._number))
        elif (case, name) not in self._ledger.gated:
            self._ledger.append(row)
        return passed

    def _time(self, names: list[str], case: Case) -> bool:
        if any((case, name) not in self._ledger.loops for name in names):
            self._calibrate(names, case)
        canaries = self._ledger.canaries.setdefault(case.threads, [])
        full_speed = full_speed_canary(canaries)
        limit = None if full_speed is None else full_speed * (1 + MAX_CANARY)
        passes = take_passes(lambda turn: self._pass(names, case, turn), self._settings.samples, limit)
        rows: list[Time] = []
        for place, name in enumerate(names):
            if (case, name) in self._ledger.failed:
                continue
            kept, left_out = ([samples[name] for samples in group] for group in passes)
            events = with_canary(combined(sample.events for sample in kept), canaries)
            seconds, others = ([sample.seconds for sample in group] for group in (kept, left_out))
            loops, on_device = self._ledger.loops[case, name], [s.device for s in kept if s.device is not None]
            row = Time(case, name, self._number, place, loops, seconds, events, left_out=others, device_samples=on_device)
            rows.append(row)
        self._spent.sampled += sum(row.sampled_seconds for row in rows)
        disturbed = any(is_disturbed(row.events, row.sampled_seconds) for row in rows)
        if rows:  # one write for all backends: a wait for the disk would separate their times
            self._ledger.append(*(msgspec.structs.replace(row, disturbed=disturbed) for row in rows))
        return disturbed

    def _pass(self, names: list[str], case: Case, turn: int) -> Pass:
        """Take one sample of each backend that has not failed, in an order that rotates from pass to pass."""
        options: dict[str, Any] = {"count": 1}
        if self._settings.affinity is not None:
            options["processors"] = self._settings.affinity
        found: dict[str, Sample] = {}
        shift = turn % max(1, len(names))
        for name in names[shift:] + names[:shift]:
            if (case, name) in self._ledger.failed:
                continue
            loops = self._ledger.loops[case, name]
            answer = self._ask(name, case, "time", "sample", loops=loops, **options)
            if isinstance(answer, list):  # a worker of an older commit
                answer = {"samples": answer, "events": None}
            if answer is not None:
                events = {**(answer["events"] or {}), **self._workers.sibling_events}
                on_device = answer.get("device_samples")
                found[name] = Sample(answer["samples"][0], events or None, on_device[0] if on_device else None, loops)
        return found

    def _calibrate(self, names: list[str], case: Case) -> None:
        """Set the calls per sample: as many for every backend as the fastest needs, within ``MAX_SAMPLE_SECONDS``."""
        seconds: dict[str, float] = {}
        for name in names:
            found = self._ask(name, case, "time", "calibrate")
            if found is not None and MIN_CALL_SECONDS <= found < math.inf:
                seconds[name] = found
            elif found is not None:
                message = (
                    f"a call took {found:g} s by its own clock; no network is computed in less than {MIN_CALL_SECONDS:g} s"
                )
                self._ledger.append(Failure(case, name, "time", "error", message, self._number))
        for name, own in seconds.items():
            needed = math.ceil(math.log2(self._settings.shortest_sample / min(seconds.values())))
            self._ledger.loops[case, name] = 2 ** max(0, min(needed, math.floor(math.log2(MAX_SAMPLE_SECONDS / own))))

    def _ask(self, name: str, case: Case, stage: str, call: str, **arguments: Any) -> Any:
        started = time.monotonic()
        answer = ask_and_store_failure(
            self._ledger, self._workers, self._settings, name, case, stage, self._number, call, **arguments
        )
        seconds = time.monotonic() - started
        self._asked += seconds
        if stage == "time":
            self._timing[name] += seconds
        return answer
