"""Export results as metrics for Bencher."""

from typing import Any

from rnnbench.compare.intervals import median_interval
from rnnbench.exports.naming import named_rounds
from rnnbench.results.reader import Contents
from rnnbench.results.valid import medians

NANOSECONDS = 1e9


def bencher(contents: Contents) -> dict[str, Any]:
    """Return a run in Bencher Metric Format: ``latency`` of each case and backend, in nanoseconds per call.

    Its value is the median over rounds, its bounds are ``intervals.median_interval``: 95% from 6 rounds on.
    Raises StoreError without times.
    """
    result = {}
    for name, rounds in named_rounds(contents):
        median, low, high = (seconds * NANOSECONDS for seconds in median_interval(medians(rounds))[:3])
        result[name] = {"latency": {"value": median, "lower_value": low, "upper_value": high}}
    return result
