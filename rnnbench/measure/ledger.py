"""What a run knows: the facts that its results file holds, of this process and of those before it."""

from bisect import insort
from collections.abc import Iterable
from typing import Any

from rnnbench.measure.plan import Plan
from rnnbench.measure.stopping import RoundHistory
from rnnbench.measure.worker_pool import use_of
from rnnbench.results.rows import Failure, Gate, Memory, Row, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

Key = tuple[Case, str]
"""A case and a backend."""


class Ledger:
    """The facts of a plan's results file; every new one is stored before it is known.

    ``gated`` passed the gate, ``refused`` did not (that row comes before the one of the failure); ``canaries`` are seconds,
    sorted, by the number of threads: with more of them the clock may be lower.
    """

    def __init__(self, plan: Plan, writer: Writer) -> None:
        self._writer = writer
        self._repeats = bool(plan.settings.vain_repeats)
        self.failed: set[Key] = set()
        self.gated: set[Key] = set()
        self.refused: set[Key] = set()
        self.timed: set[tuple[Case, str, int]] = set()
        self.memory: set[Key] = set()
        self.truncated: set[Case] = set()
        self.loops: dict[Key, int] = {}
        self.canaries: dict[int, list[float]] = {}
        self.history = RoundHistory()
        self.started_up = {  # told before this process, by threads and round
            (use_of(row.backend, row.case), row.case.threads, row.round) for row in plan.stored if isinstance(row, Startup)
        }
        self._disturbed: set[tuple[Case, str, int]] = set()
        self._take_in(plan.stored)

    def append(self, *rows: Row) -> None:
        """Store rows, which are on disk when this returns."""
        self._writer.append_all(rows)
        self._take_in(rows)

    def open(self, case: Case, names: Iterable[str]) -> list[str]:
        """The backends that have not failed on a case."""
        return [name for name in names if (case, name) not in self.failed]

    def untimed(self, case: Case, names: Iterable[str], number: int) -> list[str]:
        """The backends that have yet to time a case in a round, or to do so once more."""
        return [name for name in self.open(case, names) if (case, name, number) not in self.timed]

    def _take_in(self, rows: Iterable[Any]) -> None:
        for row in rows:
            match row:
                case Failure():
                    self.failed.add((row.case, row.backend))
                case Gate():
                    (self.gated if row.passed else self.refused).add((row.case, row.backend))
                case Time():
                    self._take_in_time(row)
                case Memory():
                    self.memory.add((row.case, row.backend))
                case Truncation():
                    self.truncated.add(row.case)

    def _take_in_time(self, row: Time) -> None:
        key = (row.case, row.backend, row.round)
        if row.disturbed and key not in self._disturbed and self._repeats:
            self._disturbed.add(key)  # to be measured once more
        else:
            self.timed.add(key)
        if row.events and "canary_s" in row.events:
            insort(self.canaries.setdefault(row.case.threads, []), row.events["canary_s"])
        self.loops[row.case, row.backend] = row.loops
        self.history.add(row)
