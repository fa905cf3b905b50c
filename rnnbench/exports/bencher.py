"""Results as metrics for Bencher."""

from typing import Any

from rnnbench.compare.intervals import median_interval
from rnnbench.exports.naming import named_rounds
from rnnbench.results.reader import Contents
from rnnbench.results.valid import medians

NANOSECONDS = 1e9


def bencher(contents: Contents) -> dict[str, Any]:
    """Bencher Metric Format: for each case and backend ``latency`` in nanoseconds per call, with its interval.

    The median over rounds and ``intervals.median_interval``: 95% from 6 rounds on.  Raises StoreError without times.
    """
    result = {}
    for name, rounds in named_rounds(contents):
        middle, low, high = (seconds * NANOSECONDS for seconds in median_interval(medians(rounds))[:3])
        result[name] = {"latency": {"value": middle, "lower_value": low, "upper_value": high}}
    return result
