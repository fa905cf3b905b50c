"""Mutation test of the check: bugs are planted in a correct backend, and each must be found, far beyond the tolerance."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from rnnbench.check.levels import Trial, trials
from rnnbench.check.mutants import MUTANTS, Mutant, MutantNetwork
from rnnbench.check.problem import Problem
from rnnbench.check.promises import examine
from rnnbench.check.tolerance import Expected, expected
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.threads import blas_limits
from rnnbench.networks.truncation import tbptt

KILLED_AT = 10
"""Smallest error / tolerance that kills a mutant; with a smaller ratio another seed or shape would miss the bug."""


LARGE = 70
"""Size (steps, rows, inputs or hidden units) above which a problem is tested last."""

FIRST = {
    "calls": ("update", "results kept", "results lent", "two tapes"),
    "contract": ("refusals", "empty"),
    "edge cases": ("NaN", "saturated", "subnormal", "zero steps"),
    "layouts": ("layouts",),
    "models": ("model", "training"),
    "states": ("states",),
    "streams": ("streamed",),
    "threads": ("threads",),
}
"""The promises that most bugs of an area break."""

DTYPES = ("float32", "float64")
"""Dtypes of the trials; the reference computes narrower dtypes in float32, where mutants of its arithmetic do not apply."""


class Result(NamedTuple):
    """The worst finding on one mutant.

    ``where``: the trial.  ``promise``: the promise that found it, or None for the comparison with the reference.
    ``ratio``: error / tolerance.  ``raised``: the exception of the mutant, if it raised one.
    """

    backend: str
    area: str
    where: str = ""
    promise: str | None = None
    tensor: str = ""
    ratio: float = 0.0
    raised: str | None = None

    @property
    def killed(self) -> bool:
        return self.ratio >= KILLED_AT

    def line(self, width: int = 0) -> str:
        """Format the result: the bug, padded to ``width`` columns, whether it was killed, its ratio or exception, and where."""
        found = self.raised or f"{self.ratio:<8.3g} {self.tensor}"
        by = f"{self.promise}, " if self.promise else ""
        return f"{self.backend:<{width}}  {'killed' if self.killed else 'SURVIVES'}  {found:<34}  {by}{self.where}"


@dataclass
class SelfTest:
    """The results of all mutants, and the failures of the backend without a bug, of which there must be none."""

    results: list[Result] = field(default_factory=list)
    unmutated: list[Result] = field(default_factory=list)

    @property
    def killed(self) -> list[Result]:
        return [result for result in self.results if result.killed]

    @property
    def survivors(self) -> list[Result]:
        return [result for result in self.results if not result.killed]

    @property
    def passed(self) -> bool:
        """Whether there were mutants, all were killed, and the backend without a bug passed."""
        return bool(self.results) and not self.survivors and not self.unmutated

    def table(self) -> str:
        """Format a line per planted bug: its name, error / tolerance, tensor and the check that found it; survivors last."""
        width = max((len(result.backend) for result in self.results), default=0)
        lines = [result.line(width) for result in self.killed + self.survivors]
        if self.unmutated:
            lines.append("the self-test is invalid: the backend without a bug fails")
            lines += [result.line() for result in self.unmutated]
        return "\n".join([*lines, f"{len(self.killed)} of {len(self.results)} planted bugs killed"])


class Harness:
    """The trials of a conformance run, with expected results that are computed on first use."""

    def __init__(self, chosen: Iterable[Trial]) -> None:
        self.trials = [trial for trial in chosen if trial.problem.case.dtype in DTYPES]
        self._expected: dict[Problem, Expected] = {}
        self._one_thread = blas_limits(1)  # more cost such small products more than they save

    def expected(self, problem: Problem) -> Expected:
        if problem not in self._expected:
            self._expected[problem] = expected(problem)
        return self._expected[problem]

    def kill(self, mutant: Mutant) -> Result:
        """Test a mutant until an error reaches KILLED_AT times the tolerance; return the worst result.

        The comparisons with the reference come first, then the promises, then the slow comparisons of large problems; before
        them all, what finds the bugs of the mutant's area (``FIRST``).
        """
        found = Result(mutant.name, mutant.area)
        for trial, promises in self._schedule(mutant.cells, mutant.area):
            found = max(found, self._run(mutant, trial.problem, promises), key=lambda result: result.ratio)
            if found.killed:
                return found
        return found

    def unmutated(self, cells: Iterable[str]) -> list[Result]:
        """Test the backend without a bug; return its failures."""
        correct = Mutant("no bug", "", tuple(cells), reference_backend())
        concerned = [trial for trial in self.trials if trial.problem.case.cell in correct.cells]
        results = [self._run(correct, trial.problem, trial.promises) for trial in concerned]
        return [result for result in results if result.ratio > 1]

    def _schedule(self, cells: Iterable[str], area: str) -> Iterator[tuple[Trial, tuple[str, ...]]]:
        concerned = [trial for trial in self.trials if trial.problem.case.cell in cells]
        small: list[tuple[Trial, tuple[str, ...]]] = [(trial, ()) for trial in concerned if not _large(trial)]
        small += [(trial, (name,)) for trial in concerned for name in trial.promises]
        large: list[tuple[Trial, tuple[str, ...]]] = [(trial, ()) for trial in concerned if _large(trial)]
        if area == "widths":
            yield from large[::-1]
        yield from sorted(small, key=lambda tested: not _finds(area, *tested))
        if area != "widths":
            yield from large

    def _run(self, mutant: Mutant, problem: Problem, promises: tuple[str, ...]) -> Result:
        wanted = self.expected(problem)
        where = f"{problem.case.label()} {problem.scheme}"
        try:
            # some bugs overflow; suppress the warnings
            with _planted(mutant), np.errstate(all="ignore"), self._one_thread():
                findings = examine(mutant.backend, problem, wanted, promises)
        except Exception as error:  # any exception of a backend is a failure
            raised = f"raised {type(error).__name__}: {error}"
            return Result(mutant.name, mutant.area, where, ", ".join(promises) or None, "", math.inf, raised)
        worst = findings[0]
        return Result(mutant.name, mutant.area, where, worst.promise, worst.tensor, worst.ratio)


def self_test(
    progress: Callable[[int, int], None] | None = None,
    cells: Iterable[str] | None = None,
    mutants: Iterable[Mutant] = MUTANTS,
) -> SelfTest:
    """Test every mutant of the given cells (default: all) on the trials of level standard."""
    chosen = trials("standard", cells)
    known = {trial.problem.case.cell for trial in chosen}
    harness, outcome = Harness(chosen), SelfTest()
    todo = [mutant for mutant in mutants if known.issuperset(mutant.cells)]
    outcome.unmutated = harness.unmutated(known)
    for done, mutant in enumerate(todo):
        if progress:
            progress(done, len(todo))
        outcome.results.append(harness.kill(mutant))
    return outcome


def _large(trial: Trial) -> bool:
    case = trial.problem.case
    return max(case.T, case.B, case.I, case.H) > LARGE


def _finds(area: str, trial: Trial, promises: tuple[str, ...]) -> bool:
    if area == "lengths" and trial.problem.case.lengths is not None:
        return True
    return not set(FIRST.get(area, ())).isdisjoint(promises)


@contextmanager
def _planted(mutant: Mutant) -> Iterator[None]:
    """Replace tbptt by the mutant's loop for networks of mutants, but not for the reference; or what trains its models."""
    if mutant.tools is not None:
        with mock.patch("rnnbench.check.training.TOOLS", mutant.tools):
            yield
        return
    if mutant.tbptt is None:
        yield
        return
    wrong = mutant.tbptt

    def loop(net: Any, *arguments: Any, **options: Any) -> Any:
        return (wrong if isinstance(net, MutantNetwork) else tbptt)(net, *arguments, **options)

    with mock.patch("rnnbench.check.problem.tbptt", loop):
        yield
