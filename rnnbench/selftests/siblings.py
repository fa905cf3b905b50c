"""Test whether backends in one run affect each other: compare ratios from a joint run with those from separate runs.

Runs of single backends and of pairs alternate, a round each, so that all share the slow changes of the machine.
"""

import itertools
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rnnbench.measure.plan import Settings, new_plan
from rnnbench.measure.run import Progress, run_into_new_file
from rnnbench.results.reader import read
from rnnbench.results.valid import log_ratio, times
from rnnbench.suite.case import Case
from rnnbench.suite.suite import Suite, SuiteSettings

BACKENDS = ("numba_cpu", "torch_nn", "onnxruntime", "jax_scan")

CASES = [Case(cell, "forward", 32, 32, 64, 64, threads=threads) for cell in ("lstm", "gru") for threads in (1, 2)]

BAR = 0.02
"""Largest relative difference between a pair's ratio in one run and in separate runs."""


class Pair(NamedTuple):
    """Two backends on a case: b's time over a's, median over rounds, in one run and in separate runs."""

    case: Case
    a: str
    b: str
    together: float
    alone: float

    @property
    def off(self) -> float:
        """The relative difference of the two ratios."""
        return abs(math.log(self.together / self.alone))


def measure(rounds: int, backends: Sequence[str], folder: Path, progress: Progress, command: Sequence[str]) -> list[Pair]:
    """Measure each backend alone and each pair together, a round each in turn; results files go to ``folder``."""
    suite = Suite("siblings", "Backends alone and in pairs.", "rnnbench self-test siblings", SuiteSettings(), CASES)
    settings = Settings(rounds=1)
    groups = [*((name,) for name in backends), *itertools.combinations(backends, 2)]
    found: dict[tuple[str, ...], list[dict]] = {group: [] for group in groups}
    for number in range(rounds):
        for place, group in enumerate(groups):
            progress(number * len(groups) + place, rounds * len(groups), " and ".join(group))
            plan = new_plan(suite, settings, list(group), folder, command)
            run_into_new_file(plan, lambda *_: None)
            rows = times(read(plan.path))
            found[group].append({key: one.samples for key, by_round in rows.items() for one in by_round.values()})
    return [_pair(found, case, a, b) for case in CASES for a, b in itertools.combinations(backends, 2)]


def _pair(found: dict[tuple[str, ...], list[dict]], case: Case, a: str, b: str) -> Pair:
    together = [log_ratio(one[case, a], one[case, b]) for one in found[a, b]]
    alone = [
        math.log(statistics.median(second[case, b]) / statistics.median(first[case, a]))
        for first, second in zip(found[a,], found[b,], strict=True)
    ]
    return Pair(case, a, b, *(math.exp(statistics.median(some)) for some in (together, alone)))


def table(pairs: Sequence[Pair]) -> str:
    """Format a pair per line, the worst last, and the number within the bar."""
    lines = [
        f"{pair.case.label():<40}  {pair.b} / {pair.a}: {pair.together:.3f} in one run, {pair.alone:.3f} alone, "
        f"{100 * pair.off:.1f}% apart"
        for pair in sorted(pairs, key=lambda pair: pair.off)
    ]
    within = sum(pair.off <= BAR for pair in pairs)
    return "\n".join([*lines, f"{within} of {len(pairs)} within {BAR:.0%}"])
