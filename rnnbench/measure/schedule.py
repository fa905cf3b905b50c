"""What a run does next: which cases each round holds, in which order, and which backends have yet to be timed on them."""

import random
from collections.abc import Iterator

from rnnbench.measure.ledger import Ledger
from rnnbench.measure.plan import Plan
from rnnbench.suite.case import Case


class Schedule:
    """The rounds of a plan, by what is known so far.

    All cases are in the first rounds, in an order shuffled per round; further rounds hold only the cases whose ratios are
    not yet known (``stopping``).  Cases of one number of threads are measured by the same processes.
    """

    def __init__(self, plan: Plan, ledger: Ledger) -> None:
        self._plan, self._ledger = plan, ledger

    def round(self, number: int) -> list[list[Case]]:
        """The cases of a round, in order, by their number of threads."""
        order = [case for case in self._plan.run.cases if self._wanted(case, number)]
        random.Random(f"{self._plan.run.run} {number}").shuffle(order)
        return [[case for case in order if case.threads == threads] for threads in sorted({case.threads for case in order})]

    def to_check(self) -> list[Case]:
        """The cases that some backend has yet to be timed on, in any round."""
        rounds = range(self._plan.settings.most)
        return [
            case
            for case in self._plan.run.cases
            if any(self.untimed(case, number) and self._wanted(case, number) for number in rounds)
        ]

    def by_threads(self) -> Iterator[list[Case]]:
        """All cases, by their number of threads."""
        cases = self._plan.run.cases
        return ([case for case in cases if case.threads == threads] for threads in sorted({case.threads for case in cases}))

    def untimed(self, case: Case, number: int) -> list[str]:
        """The backends that have yet to be timed on a case in a round, in the order of their turns."""
        todo = self._ledger.untimed(case, self._plan.names, number)
        shift = (number + int(case.key(), 16)) % max(1, len(todo))
        return todo[shift:] + todo[:shift]

    def _wanted(self, case: Case, number: int) -> bool:
        open_ = self._ledger.open(case, self._plan.names)
        return self._ledger.history.asks_for(case, number, self._plan.settings, open_)
