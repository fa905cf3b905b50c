"""A/A test: compare a backend with itself over many cases; every difference found is a false alarm.

With a slowdown planted in one of the two, every slowdown not found is a miss.
"""

import itertools
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import stats

from rnnbench.compare.comparison import Comparisons, compare_backends, times
from rnnbench.errors import ArgumentError
from rnnbench.measure.plan import Entry, Settings, plan_of_entries
from rnnbench.measure.run import Progress, run_into_new_file
from rnnbench.processes.scratch import scratch_folder
from rnnbench.results.reader import read
from rnnbench.selftests.slowed_backend import write_slowed
from rnnbench.suite.case import Case
from rnnbench.suite.suite import Suite, SuiteSettings

BACKENDS = ("numpy_ref", "numba_cpu")

REGRESSIONS, MISSES = 0.005, 0.05
"""Bars of an A/A run: shares of comparisons called a regression, and of intervals that miss the true ratio 1."""

FOUND = {5.0: 0.95, 3.0: 0.80}
"""Bars of a planted slowdown: its size in percent, and the least share of comparisons called a regression."""

_GRID = itertools.product(
    ("elman", "lstm", "gru", "gru_reset_before"), ("forward", "step"), (32, 48, 64, 96), (4, 8, 12, 16), (16, 32, 48, 64)
)
CASES = [Case(cell, phase, T, B, H, H) for cell, phase, T, B, H in _GRID]
"""Small cases, but long enough that the clock of the planted slowdown does not matter."""


class Share(NamedTuple):
    """A number of comparisons, and the bar for their share: an upper one if ``at_most``, else a lower one; None for no bar."""

    what: str
    number: int
    total: int
    bar: float | None
    at_most: bool

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95% binomial interval of the true share (Clopper and Pearson 1934)."""
        low, high = stats.binomtest(self.number, self.total).proportion_ci(0.95, method="exact")
        return float(low), float(high)

    @property
    def missed(self) -> bool:
        """Whether the whole interval of the share lies on the wrong side of the bar."""
        if self.bar is None:
            return False
        low, high = self.interval
        return low > self.bar if self.at_most else high < self.bar

    def line(self) -> str:
        share = self.number / self.total
        low, high = self.interval
        text = f"{self.what:<40}{self.number:>5} of {self.total:<5}{share:>7.2%}  (95%: {low:.2%} to {high:.2%})"
        if self.bar is None:
            return text
        within = share <= self.bar if self.at_most else share >= self.bar
        word = "ok" if within else "MISSED" if self.missed else "missed, within chance: more comparisons tell"
        return f"{text}  bar: at {'most' if self.at_most else 'least'} {100 * self.bar:g}%, {word}"


def small_suite(comparisons: int, seed: int) -> Suite:
    """Draw small cases at random for a number of comparisons; raises ArgumentError if it exceeds the cases."""
    most = len(CASES) * len(BACKENDS)
    if comparisons > most:
        raise ArgumentError(f"--comparisons is {comparisons}; expected at most {most}")
    cases = random.Random(seed).sample(CASES, -(-comparisons // len(BACKENDS)))
    return Suite("aa", "a backend against itself", "rnnbench self-test aa", SuiteSettings(), cases)


def measure(
    suite: Suite, planted: float, settings: Settings, folder: Path, progress: Progress, command: Sequence[str]
) -> tuple[Path, dict[str, Comparisons]]:
    """Measure numpy_ref and numba_cpu under two names each, in one run; return its file and the comparisons.

    ``planted``: the slowdown in percent, 0 for none.  ``folder``: for the results file.
    """
    with scratch_folder() as scratch:
        entries: dict[str, Entry] = {}
        for name in BACKENDS:
            twin = write_slowed(name, planted / 100, scratch / f"{name}.py") if planted else name
            entries |= {name: Entry(name), twin_of(name): Entry(twin, {"runs": name, "slowed_by_percent": planted})}
        plan = plan_of_entries(suite, settings, entries, folder, command)
        run_into_new_file(plan, progress)
    found = times(read(plan.path))
    return plan.path, {name: compare_backends(found, name, twin_of(name)) for name in BACKENDS}


def twin_of(name: str) -> str:
    return f"{name} again"


def reach(outcome: Comparisons) -> float:
    """Return the median half-width of the intervals, as a log-ratio; smaller slowdowns are rarely found."""
    return float(np.median([math.log(row.high / row.low) / 2 for row in outcome.rows]))


def shares(outcomes: Sequence[Comparisons], planted: float) -> list[Share]:
    """Return the shares counted over all comparisons."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    regressions = sum(row.verdict == "regression" for row in rows)
    if planted:
        return [Share(f"a slowdown of {planted:g}% called a regression", regressions, len(rows), FOUND.get(planted), False)]
    missed = sum(not row.low <= 1 <= row.high for row in rows)
    return [
        Share("called a regression", regressions, len(rows), REGRESSIONS, True),
        Share("intervals that miss the ratio 1", missed, len(rows), MISSES, True),
    ]
