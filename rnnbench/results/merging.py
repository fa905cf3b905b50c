"""Runs of the same code on the same machine, with the same settings, as one run."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from rnnbench.errors import StoreError
from rnnbench.results.reader import Contents
from rnnbench.results.rows import AnyRow, End, Failure, Gate, Memory, Run, Startup, Time, Truncation
from rnnbench.suite.case import Case
from rnnbench.text import flattened


class Merged(NamedTuple):
    """One run made of several: its rows, and how many rows of the sources are not among them, and why."""

    run: Run
    rows: list[AnyRow]
    duplicates: int
    conflicts: int


def merge_contents(contents: Sequence[Contents]) -> Merged:
    """Merge what was read from two or more files; raises StoreError where they differ in more than cases and backends.

    A measurement that is in several files is kept once.  A round of one run is no round of another, as what is compared
    within a round was measured seconds apart: where runs have a case in common, the rounds of the later one are numbered on
    behind those of the one before.  Files of one run, such as copies of which one went on, share its rounds.
    """
    for other in contents[1:]:
        _check_alike(contents[0], other)
    runs = list({msgspec.json.encode(one.run): one.run for one in contents}.values())
    rows, duplicates, conflicts = _Merger().merge(contents)
    commands = dict.fromkeys(tuple(run.command) for run in runs)
    whole = msgspec.structs.replace(
        runs[0],
        run="+".join(dict.fromkeys(name for run in runs for name in run.run.split("+"))),
        started=min(run.started for run in runs),
        suite="+".join(dict.fromkeys(name for run in runs for name in run.suite.split("+"))),
        command=[word for place, command in enumerate(commands) for word in (["+"] * (place > 0) + list(command))],
        backends={name: facts for run in runs for name, facts in run.backends.items()},
        cases=list(dict.fromkeys(case for run in runs for case in run.cases)),
    )
    return Merged(whole, [*rows, *_end(contents)], duplicates, conflicts)


class _Merger:
    """What the files before had, while the next one is added."""

    def __init__(self) -> None:
        self._rows: list[AnyRow] = []
        self._seen: set[Any] = set()  # what rows say, whatever their round
        self._places: set[Any] = set()  # what holds one row only
        self._free: dict[Case, int] = {}  # the first round that no run before has
        self._shifts: dict[bytes, dict[Case, int]] = {}  # by run
        self._duplicates = self._conflicts = 0

    def merge(self, contents: Sequence[Contents]) -> tuple[list[AnyRow], int, int]:
        for one in contents:
            self._add(one)
        return self._rows, self._duplicates, self._conflicts

    def _add(self, one: Contents) -> None:
        shifts = self._shifts.setdefault(msgspec.json.encode(one.run), dict(self._free))
        added = [self._shifted(row, shifts) for row in self._new(one)]
        kept = [row for row in added if _place(row) not in self._places]
        self._conflicts += len(added) - len(kept)
        self._seen.update(map(_said, kept))
        self._places.update(map(_place, kept))
        self._rows += kept
        for row in kept:
            if (number := getattr(row, "round", None)) is not None:
                self._free[row.case] = max(self._free.get(row.case, 0), number + 1)

    def _new(self, one: Contents) -> list[Any]:
        """The rows of a file about a case that no file before has."""
        rows = [row for row in one.rows if not isinstance(row, Run | End)]
        new = [row for row in rows if _said(row) not in self._seen]
        self._duplicates += len(rows) - len(new)
        return new

    @staticmethod
    def _shifted(row: Any, shifts: Mapping[Case, int]) -> Any:
        if getattr(row, "round", None) is None:
            return row
        return msgspec.structs.replace(row, round=row.round + shifts.get(row.case, 0))


def _said(row: Any) -> bytes:
    return msgspec.json.encode(msgspec.structs.replace(row, round=0) if hasattr(row, "round") else row)


def _place(row: Any) -> Any:
    """What a run has one row for."""
    match row:
        case Gate():
            return Gate, row.case, row.backend, row.passed
        case Memory():
            return Memory, row.case, row.backend
        case Truncation():
            return Truncation, row.case
        case Startup():
            return Startup, row.case, row.backend, row.round, row.cold
        case Time():
            return Time, row.case, row.backend, row.round, row.disturbed
        case Failure():
            return Failure, row.case, row.backend, row.stage, row.reason, row.round


def _end(contents: Sequence[Contents]) -> list[End]:
    """The ends of all runs as one: interrupted where one of the runs was not completed; none where none has an end."""
    ends = list(dict.fromkeys(row for one in contents for row in one.rows if isinstance(row, End)))
    if not ends:
        return []
    completed: dict[bytes, bool] = {}
    for one in contents:
        last = next((row for row in reversed(one.rows) if isinstance(row, End)), None)
        run = msgspec.json.encode(one.run)
        completed[run] = completed.get(run, False) or (last is not None and not last.interrupted)

    def whole(name: str) -> float | None:
        found = [getattr(end, name) for end in ends]
        return None if None in found else sum(found)

    return [
        End(
            max(end.finished for end in ends),
            sum(end.seconds for end in ends),
            sum(end.gate_seconds for end in ends),
            not all(completed.values()),
            whole("timing_seconds"),
            whole("sampled_seconds"),
        )
    ]


def _check_alike(one: Contents, other: Contents) -> None:
    common = one.run.backends.keys() & other.run.backends.keys()
    for name, mine, its in [
        ("", one.run.environment, other.run.environment),
        ("setting ", _how(one.run), _how(other.run)),
        ("backend ", *({key: run.backends[key] for key in sorted(common)} for run in (one.run, other.run))),
    ]:
        left, right = flattened(mine, " "), flattened(its, " ")
        for key in left | right:
            if left.get(key) != right.get(key):
                raise StoreError(
                    f"cannot merge {other.path} with {one.path}: {name}{key} is {right.get(key)!r} and was {left.get(key)!r}; "
                    "expected the same code, machine and settings"
                )


def _how(run: Run) -> dict[str, Any]:
    """The settings that say how cases are measured; which ones are may differ."""
    return {name: value for name, value in run.settings.items() if name not in ("filter", "threads", "fit")}
