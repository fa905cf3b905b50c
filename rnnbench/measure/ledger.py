"""The state of a run: the facts in its results file, from this process and from earlier ones that it resumes."""

from bisect import insort
from collections.abc import Iterable
from typing import Any

from rnnbench.measure.plan import Plan
from rnnbench.measure.stopping import RoundHistory
from rnnbench.measure.worker_pool import compile_key
from rnnbench.results.rows import Failure, Gate, Memory, Row, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

Key = tuple[Case, str]
"""A case and a backend."""


class Ledger:
    """The facts of a plan's results file; each new fact is stored before it counts.

    ``gated``: pairs that passed the gate.  ``refused``: pairs that did not; their gate row precedes the failure's row.
    ``canaries``: sorted canary seconds by number of threads, as the clock may be lower with more threads.
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
        self.known_startups = {  # stored by earlier processes
            (compile_key(row.backend, row.case), row.case.threads, row.round) for row in plan.stored if isinstance(row, Startup)
        }
        self._disturbed: set[tuple[Case, str, int]] = set()
        self._record(plan.stored)

    def append(self, *rows: Row) -> None:
        """Store rows; they are on disk when this returns."""
        self._writer.append_all(rows)
        self._record(rows)

    def not_failed(self, case: Case, names: Iterable[str]) -> list[str]:
        """Return the backends that have not failed on a case."""
        return [name for name in names if (case, name) not in self.failed]

    def untimed(self, case: Case, names: Iterable[str], number: int) -> list[str]:
        """Return the backends that have yet to time a case in a round, or to repeat it."""
        return [name for name in self.not_failed(case, names) if (case, name, number) not in self.timed]

    def _record(self, rows: Iterable[Any]) -> None:
        for row in rows:
            match row:
                case Failure():
                    self.failed.add((row.case, row.backend))
                case Gate():
                    (self.gated if row.passed else self.refused).add((row.case, row.backend))
                case Time():
                    self._record_time(row)
                case Memory():
                    self.memory.add((row.case, row.backend))
                case Truncation():
                    self.truncated.add(row.case)

    def _record_time(self, row: Time) -> None:
        key = (row.case, row.backend, row.round)
        if row.disturbed and key not in self._disturbed and self._repeats:
            self._disturbed.add(key)  # to be repeated
        else:
            self.timed.add(key)
        if row.events and "canary_s" in row.events:
            insort(self.canaries.setdefault(row.case.threads, []), row.events["canary_s"])
        self.loops[row.case, row.backend] = row.loops
        self.history.add(row)
