"""The times of one results file by round, and which of them count: what tables and exports of one run are made from."""

import math
import statistics
from functools import lru_cache
from typing import Any, NamedTuple

from rnnbench.store import Case, Contents, Failure, Gate, Time

Key = tuple[Case, str]
"""A case and a backend."""


class Interval(NamedTuple):
    """The median of some values, and the interval that holds the true one."""

    median: float
    low: float
    high: float


def times(contents: Contents) -> dict[Key, dict[int, Time]]:
    """The times that count, by round; of those stored twice the later one.

    Left out: what ``reasons`` names, and rows without samples or with samples that are not positive.
    """
    found: dict[Key, dict[int, Time]] = {}
    excluded = reasons(contents)
    for row in contents.rows:
        if isinstance(row, Time) and (row.case, row.backend) not in excluded and row.samples and min(row.samples) > 0:
            found.setdefault((row.case, row.backend), {})[row.round] = row
    return found


def reasons(contents: Contents) -> dict[Key, str]:
    """Why the numbers of a backend on a case do not count; a failure to measure memory leaves its times alone."""
    found = {(row.case, row.backend): "wrong" for row in contents.rows if isinstance(row, Gate) and not row.passed}
    for row in contents.rows:
        if isinstance(row, Failure) and row.stage != "memory":
            found.setdefault((row.case, row.backend), row.reason)
    return found


def medians(rounds: dict[int, Time]) -> list[float]:
    """The median of each round's samples, in seconds per call."""
    return [statistics.median(row.samples) for row in rounds.values()]


def interval(values: list[float], confidence: float) -> Interval:
    """The median with its exact interval of order statistics; the whole range where too few values reach ``confidence``.

    Conover 1999, "Practical Nonparametric Statistics", section 3.2, as scipy.stats.quantile_test has it.
    """
    ordered = sorted(values)
    place = _place(len(ordered), confidence)
    return Interval(statistics.median(ordered), ordered[place], ordered[-1 - place])


@lru_cache
def _place(count: int, confidence: float) -> int:
    from scipy import stats

    ends: Any = stats.quantile_test(range(count), p=0.5).confidence_interval(confidence)
    return 0 if math.isnan(ends.low) else int(ends.low)
