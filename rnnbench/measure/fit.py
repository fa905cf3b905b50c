"""Keep a run within the time that it has to fit: cases are left out first, then rounds, then memory."""

import math
import time

from rnnbench.measure.forecast import Forecast
from rnnbench.measure.plan import Settings
from rnnbench.measure.schedule import Schedule
from rnnbench.suite.case import Case
from rnnbench.text import count

FEWEST_ROUNDS = 5
"""Cases are left out where there is no time for so many rounds; more rounds than these give way to cases."""


def fewest_rounds(settings: Settings) -> int:
    """Return the rounds for which there has to be time before a case is measured for the first time."""
    return min(FEWEST_ROUNDS, settings.rounds)


class Fit:
    """What still fits ``settings.fit`` seconds from ``started`` on; without a limit, everything does.

    A case is measured on all its backends or not at all, so it is asked about before it begins.
    """

    def __init__(self, settings: Settings, forecast: Forecast, schedule: Schedule, started: float) -> None:
        self._settings, self._forecast, self._schedule = settings, forecast, schedule
        self._end = math.inf if settings.fit is None else started + settings.fit
        self._cases: dict[Case, None] = {}
        self._memory: dict[Case, None] = {}
        self._full = False

    def holds(self, case: Case) -> bool:
        """Return whether a case is still part of the run."""
        return case not in self._cases

    def left(self, rounds: int) -> float:
        """Return the seconds that the run goes on, which end when the time is used up."""
        return min(self._forecast.left(rounds), max(0.0, self._end - time.monotonic()))

    def trim(self) -> None:
        """Leave out cases that were not measured, those that take longest first, until the rest fits."""
        if math.isinf(self._end):
            return
        rounds = fewest_rounds(self._settings)
        unmeasured = [case for case in self._forecast.cases if not self._forecast.rounds[case]]
        by_cost = sorted(unmeasured, key=lambda case: rounds * self._forecast.round(case) + self._forecast.memory(case))
        while by_cost and time.monotonic() + self._forecast.left(rounds) > self._end:
            self._leave_out(by_cost.pop())

    def allows(self, case: Case, *stages: str) -> bool:
        """Return whether one more round of a case fits, after ``stages``; if not, it is left out."""
        if not self.holds(case):
            return False
        seconds = self._forecast.round(case) + self._forecast.compiling([case]) + self._before(stages)
        if not self._full and self._fits(seconds):
            return True
        if not self._forecast.rounds[case]:
            self._leave_out(case)
        else:
            self._full = True
        return False

    def allows_repeat(self, case: Case) -> bool:
        """Return whether there is time to repeat a disturbed case; its rows of this round are stored already."""
        return not self._full and self._fits(self._forecast.round(case))

    def allows_memory(self, case: Case, *stages: str) -> bool:
        """Return whether there is time to measure the memory of a case."""
        if not self.holds(case):
            return False
        if time.monotonic() + self._forecast.memory(case) + self._before(stages) <= self._end:
            return True
        self._memory[case] = None
        return False

    def left_out(self) -> list[str]:
        """Return a sentence for each thing that did not fit."""
        found = [f"left out to fit: {case.label()}" for case in self._cases]
        if self._full:
            least = min(self._forecast.rounds[case] for case in self._forecast.cases)
            found.append(f"left out to fit: rounds; cases have {least} or more of {self._settings.most}")
        if self._memory:
            found.append(f"left out to fit: the memory of {count(len(self._memory), 'case')}")
        return found

    def _before(self, stages: tuple[str, ...]) -> float:
        return sum(self._forecast.expected(stage) for stage in stages)

    def _fits(self, seconds: float) -> bool:
        return math.isinf(self._end) or time.monotonic() + seconds + self._forecast.ending() <= self._end

    def _leave_out(self, case: Case) -> None:
        self._cases[case] = None
        self._forecast.cases.pop(case, None)
        self._schedule.leave_out(case)
