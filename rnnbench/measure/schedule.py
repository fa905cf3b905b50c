"""Decide what a run does next: the cases of each round, their order, and the backends still to be timed."""

import random
from collections.abc import Iterator

from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Plan
from rnnbench.suite.case import Case


class Schedule:
    """The rounds of a plan.

    The first rounds hold all cases, shuffled anew in each; further rounds hold only cases whose ratios are not yet precise
    enough (``stopping``).  Cases with the same number of threads share worker processes.
    """

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger
        self._left_out: set[Case] = set()

    def leave_out(self, case: Case) -> None:
        """Take a case out of all rounds to come."""
        self._left_out.add(case)

    def round(self, number: int) -> list[list[Case]]:
        """Return the cases of a round in order, grouped by their number of threads."""
        order = [case for case in self._plan.run.cases if self._is_in_round(case, number)]
        random.Random(f"{self._plan.run.run} {number}").shuffle(order)
        return [[case for case in order if case.threads == threads] for threads in sorted({case.threads for case in order})]

    def to_check(self) -> list[Case]:
        """Return the cases that some backend has yet to be timed on, in any round."""
        rounds = range(self._plan.settings.most)
        return [
            case
            for case in self._plan.run.cases
            if any(self.untimed(case, number) and self._is_in_round(case, number) for number in rounds)
        ]

    def by_threads(self) -> Iterator[list[Case]]:
        """Group all cases by their number of threads."""
        cases = self._plan.run.cases
        return ([case for case in cases if case.threads == threads] for threads in sorted({case.threads for case in cases}))

    def untimed(self, case: Case, number: int) -> list[str]:
        """Return the backends that have yet to be timed on a case in a round, in their order."""
        todo = self._ledger.untimed(case, self._plan.names, number)
        shift = (number + int(case.key(), 16)) % max(1, len(todo))
        return todo[shift:] + todo[:shift]

    def _is_in_round(self, case: Case, number: int) -> bool:
        if case in self._left_out:
            return False
        backends = self._ledger.not_failed(case, self._plan.names)
        return self._ledger.history.needs_round(case, number, self._plan.settings, backends)
