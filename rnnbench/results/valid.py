"""Which times count, in one place for tables, pages, comparisons, choices and exports; and the times of a file by round."""

import math
import statistics
from collections.abc import Sequence

from rnnbench.results.reader import Contents
from rnnbench.results.rows import Failure, Gate, Time
from rnnbench.suite.case import Case

Key = tuple[Case, str]
"""A case and a backend."""


def valid(samples: Sequence[float]) -> bool:
    """Whether a round's samples are times: there are some, all positive and finite.

    One that is not tells of a broken clock, so the others of its round do not count either.
    """
    return bool(samples) and all(0 < seconds < math.inf for seconds in samples)


def invalid_time(row: Time) -> str:
    """A sentence for a row that is not ``valid``, with its first sample that is no time."""
    worst = next((seconds for seconds in row.samples if not 0 < seconds < math.inf), math.nan)
    return f"{row.backend} on {row.case.label()}, round {row.round}: a time of {worst} s was left out"


def invalid_times(contents: Contents) -> list[str]:
    """A sentence for each row that is not ``valid``, of the backends and cases whose times count."""
    excluded = reasons(contents)
    rows = (row for row in contents.rows if isinstance(row, Time) and (row.case, row.backend) not in excluded)
    return [invalid_time(row) for row in rows if not valid(row.samples)]


def times(contents: Contents) -> dict[Key, dict[int, Time]]:
    """The times that count, by round; of those stored twice the later one.

    Left out: what ``reasons`` names, and rows that are not ``valid``.
    """
    found: dict[Key, dict[int, Time]] = {}
    excluded = reasons(contents)
    for row in contents.rows:
        if not isinstance(row, Time) or (row.case, row.backend) in excluded:
            continue
        if valid(row.samples):
            found.setdefault((row.case, row.backend), {})[row.round] = row
    return found


def reasons(contents: Contents) -> dict[Key, str]:
    """Why the numbers of a backend on a case do not count; a failure to measure memory leaves its times alone."""
    found = {(row.case, row.backend): "wrong" for row in contents.rows if isinstance(row, Gate) and not row.passed}
    for row in contents.rows:
        if isinstance(row, Failure) and row.stage != "memory":
            found.setdefault((row.case, row.backend), row.reason)
    return found


def failures(contents: Contents) -> dict[Key, str]:
    """The same with the failure's own words, the first ones where there are several."""
    found = dict.fromkeys(reasons(contents), "failed the gate")
    for row in reversed(contents.rows):
        if isinstance(row, Failure) and row.stage != "memory":
            found[row.case, row.backend] = f"{row.reason}: {row.message}"
    return found


def medians(rounds: dict[int, Time]) -> list[float]:
    """The median of each round's samples, in seconds per call."""
    return [statistics.median(row.samples) for row in rounds.values()]


def device_medians(rounds: dict[int, Time]) -> list[float]:
    """The same by the clock of the backend's device, of the rounds that have it."""
    return [statistics.median(row.device_samples) for row in rounds.values() if row.device_samples]


def log_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """log(b / a) of one round from the samples of both: the median over its passes, in which each gave one.

    What slowed a pass is in both its samples and not in their ratio.  Of samples that belong to no common passes, as their
    numbers differ, or that are not all positive and finite, the ratio of the medians.
    """
    if len(a) != len(b) or min(*a, *b) <= 0 or max(*a, *b) == math.inf:
        return math.log(statistics.median(b) / statistics.median(a))
    return statistics.median([math.log(y / x) for x, y in zip(a, b, strict=True)])
