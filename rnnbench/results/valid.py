"""Which times count: the one rule for tables, pages, comparisons, choices and exports."""

import math
import statistics
from collections.abc import Sequence

from rnnbench.results.reader import Contents
from rnnbench.results.rows import Failure, Gate, Time
from rnnbench.suite.case import Case

Key = tuple[Case, str]
"""A case and a backend."""


def valid(samples: Sequence[float]) -> bool:
    """Return whether a round has samples and all are positive and finite.

    An invalid sample shows a broken clock, so the other samples of its round do not count either.
    """
    return bool(samples) and all(0 < seconds < math.inf for seconds in samples)


def invalid_time(row: Time) -> str:
    """Return a sentence for an invalid row, with its first invalid sample."""
    invalid = next((seconds for seconds in row.samples if not 0 < seconds < math.inf), math.nan)
    return f"{row.backend} on {row.case.label()}, round {row.round}: a time of {invalid} s was left out"


def invalid_times(contents: Contents) -> list[str]:
    """Return a sentence for each invalid row of the backends and cases whose times count."""
    excluded = reasons(contents)
    rows = (row for row in contents.rows if isinstance(row, Time) and (row.case, row.backend) not in excluded)
    return [invalid_time(row) for row in rows if not valid(row.samples)]


def times(contents: Contents) -> dict[Key, dict[int, Time]]:
    """Return the times that count, by round; the later one of duplicates.

    Excluded are the keys of ``reasons`` and invalid rows.
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
    """Return why the times of a backend on a case do not count; a failed memory measurement does not exclude them."""
    found = {(row.case, row.backend): "wrong" for row in contents.rows if isinstance(row, Gate) and not row.passed}
    for row in contents.rows:
        if isinstance(row, Failure) and row.stage != "memory":
            found.setdefault((row.case, row.backend), row.reason)
    return found


def failures(contents: Contents) -> dict[Key, str]:
    """Return the same with the message of the first failure."""
    found = dict.fromkeys(reasons(contents), "failed the gate")
    for row in reversed(contents.rows):
        if isinstance(row, Failure) and row.stage != "memory":
            found[row.case, row.backend] = f"{row.reason}: {row.message}"
    return found


def medians(rounds: dict[int, Time]) -> list[float]:
    """Return the median of each round's samples, in seconds per call."""
    return [statistics.median(row.samples) for row in rounds.values()]


def device_medians(rounds: dict[int, Time]) -> list[float]:
    """Return the same by the device's clock, for the rounds that have device samples."""
    return [statistics.median(row.device_samples) for row in rounds.values() if row.device_samples]


def log_ratio(a: Sequence[float], b: Sequence[float]) -> float:
    """Return log(b / a) of one round: the median over its passes, each with one sample of both.

    A disturbance of a pass affects both samples and cancels in their ratio.  If the numbers of samples differ, or a sample
    is not positive and finite, it is the log-ratio of the medians.
    """
    if len(a) != len(b) or min(*a, *b) <= 0 or max(*a, *b) == math.inf:
        return math.log(statistics.median(b) / statistics.median(a))
    return statistics.median([math.log(y / x) for x, y in zip(a, b, strict=True)])
