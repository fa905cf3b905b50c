"""What a run still takes: its prices, corrected by what it has taken so far."""

import math
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Plan
from rnnbench.measure.prices import (
    COMPILE,
    GATE,
    LOAD,
    MEMORY,
    PREPARE,
    REFERENCE,
    REST,
    START,
    TIME,
    Prices,
    reference_seconds,
)
from rnnbench.measure.worker_pool import CompileKey, compile_key
from rnnbench.results.rows import Spent
from rnnbench.suite.case import Case

_STAGE_WEIGHT = 0.5  # seconds of prediction that what a stage took on a backend is weighed against
_CASE_WEIGHT = 0.1  # the same for one case, against its stage


class _Sum:
    """Seconds that a stage took, and those that were expected of it."""

    def __init__(self) -> None:
        self.count, self.seconds, self.expected = 0, 0.0, 0.0

    def add(self, seconds: float, expected: float) -> None:
        self.count += 1
        self.seconds += seconds
        self.expected += expected

    def ratio(self, before: float, weight: float) -> float:
        """Return taken over expected, drawn towards ``before`` while little has been seen."""
        return (self.seconds + weight * before) / (self.expected + weight)


class Forecast:
    """What is left of a run, in seconds.

    It learns per stage and backend, and per case: what a case took in one round is what it is expected to take in the next.
    ``cases``: those that still belong to the run.  ``references``: cases whose reference is still to be computed.
    """

    def __init__(self, plan: Plan, ledger: Ledger, prices: Prices) -> None:
        self._plan, self._ledger, self._prices = plan, ledger, prices
        self._stages: dict[tuple[str, str], _Sum] = {}
        self._cases: dict[tuple[str, str, Case], _Sum] = {}
        self._compiled: set[CompileKey] = set()
        self._times, self._repeats = 0, 0
        self.cases = dict.fromkeys(plan.run.cases)
        self.references: set[Case] = set()
        self.rounds: Counter[Case] = Counter({case: self._stored_rounds(case) for case in plan.run.cases})
        self.memory_done: set[Case] = set()

    def _stored_rounds(self, case: Case) -> int:
        numbers = range(self._plan.settings.rounds) if self._plan.stored else ()
        return sum(not self._ledger.untimed(case, self._plan.names, number) for number in numbers)

    def add(self, stage: str, case: Case | None, backend: str, seconds: float, calls: int = 0) -> None:
        """Learn what a request took; it made ``calls`` calls more than usual."""
        own = self._prices.calls.get((case, backend), 0.0) if case is not None else 0.0
        expected = self._prices.of(stage, case, backend) + calls * own
        self._stages.setdefault((stage, backend), _Sum()).add(seconds, expected)
        if case is not None:
            self._cases.setdefault((stage, backend, case), _Sum()).add(seconds, expected)
        if stage in (COMPILE, LOAD) and case is not None:
            self._compiled.add(compile_key(backend, case))

    def repeated(self) -> None:
        """Learn that a case was repeated because the machine disturbed it."""
        self._repeats += 1

    def timed(self, case: Case) -> None:
        """Learn that a case was measured in one more round."""
        self._times += 1
        self.rounds[case] += 1

    def expected(self, stage: str, case: Case | None = None, backend: str = "") -> float:
        """Return the seconds that a request is now expected to take."""
        price, stages = self._prices.of(stage, case, backend), self._stages.get((stage, backend))
        ratio = stages.ratio(1.0, _STAGE_WEIGHT) if stages else 1.0
        if case is not None and (own := self._cases.get((stage, backend, case))):
            ratio = own.ratio(ratio, _CASE_WEIGHT)
        return price * ratio

    def compiling(self, cases: Iterable[Case]) -> float:
        """Return the seconds that the code of cases takes to compile, where this run has yet to."""
        keys = {compile_key(name, case): (name, case) for case in cases for name in self.backends(case)}
        return sum(self.expected(COMPILE, case, name) for key, (name, case) in keys.items() if key not in self._compiled)

    def round(self, case: Case) -> float:
        """Return the seconds of one round of a case, with compiled code."""
        stages = (PREPARE, GATE, TIME)
        asked = sum(self.expected(stage, case, name) for name in self.backends(case) for stage in stages)
        return asked + self.expected(REST, case)

    def memory(self, case: Case) -> float:
        """Return the seconds of measuring the memory of a case, 0 where that has been done."""
        if case in self.memory_done:
            return 0.0
        return sum(self.expected(MEMORY, case, name) for name in self.backends(case))

    def backends(self, case: Case) -> list[str]:
        """Return the backends that take part in a case and have not failed."""
        names = [name for name in self._plan.names if (case, name) in self._prices.calls]
        return self._ledger.not_failed(case, names)

    def ending(self) -> float:
        """Return the seconds of what comes after the rounds: memory, of the cases that were timed."""
        timed = [case for case in self.cases if self.rounds[case] and case not in self.memory_done]
        return sum(map(self.memory, timed)) + len({case.threads for case in timed}) * self.expected(START)

    def left(self, rounds: int) -> float:
        """Return the seconds that are left if every case is measured in ``rounds`` rounds."""
        missing = {case: max(0, rounds - self.rounds[case]) for case in self.cases}
        workers = max(1, min(os.cpu_count() or 1, len(self.references)))
        references = self.references & self.cases.keys()
        total = sum(self.expected(REFERENCE, case) for case in references) / workers
        if references and (REFERENCE, "") not in self._stages:
            total += self.expected(START)
        total += self.compiling(case for case, number in missing.items() if number)
        loads: dict[tuple[CompileKey, int], tuple[int, float]] = {}
        repeats = 1 + self._repeats / max(10, self._times)
        for case, number in missing.items():
            total += number * repeats * self.round(case) + self.memory(case)
            for name in self.backends(case) if number else ():
                place = compile_key(name, case), case.threads
                if place not in loads or loads[place][0] < number:
                    loads[place] = number, self.expected(LOAD, case, name)
        total += sum(max(0, number - (key not in self._compiled)) * each for (key, _), (number, each) in loads.items())
        starts: Counter[int] = Counter()
        for case, number in missing.items():
            starts[case.threads] = max(starts[case.threads], number + (case not in self.memory_done))
        return total + starts.total() * self.expected(START)

    def spent(self) -> tuple[Spent, ...]:
        """Return what each stage took, with the part that was calls, by the times that were measured."""
        measured = dict(self._prices.calls)
        measured |= {key: seconds for key in measured if (seconds := self._ledger.history.seconds(*key)) is not None}
        prices = Prices(self._prices.settings, measured)
        called: defaultdict[tuple[str, str], float] = defaultdict(float)
        for (stage, backend, case), seen in self._cases.items():
            each = reference_seconds(case) if stage == REFERENCE else prices.called(stage, case, backend)
            called[stage, backend] += seen.count * each
        return tuple(
            Spent(stage, backend, seen.count, seen.seconds, called[stage, backend])
            for (stage, backend), seen in self._stages.items()
        )


class TimeLeft:
    """The time left as it is shown: the end moves smoothly to where it is expected.

    At most a hundredth of the run goes into computing it.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock, self._began = clock, clock()
        self._end: float | None = None
        self._last, self._pause = -math.inf, 0.0

    def seconds(self, left: Callable[[], float]) -> float:
        """Return the seconds to show, given a function that forecasts them."""
        now = self._clock()
        if self._end is None or now - self._last >= self._pause:
            end = now + left()
            after = self._clock()
            if self._end is None:
                self._end = end
            else:  # within ten seconds, or a twentieth of the run
                share = 1 - math.exp(-(now - self._last) / max(10.0, 0.05 * (end - self._began)))
                self._end += share * (end - self._end)
            self._last, self._pause = now, 100 * (after - now)
        return max(0.0, self._end - now)
