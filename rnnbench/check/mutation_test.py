"""The harness on trial: bugs are planted in a correct backend, and each must be found, far beyond the tolerance."""

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
from rnnbench.networks.truncation import tbptt

KILLED_AT = 10
"""Times the tolerance: a bug nearer to it than this would be missed at another seed or shape."""


LARGE = 70
"""Steps, rows, inputs or hidden units beyond which a problem is examined last."""

DTYPES = ("float32", "float64")
"""Of the trials: a bug is planted in arithmetic that is the dtype's own, and the reference computes bfloat16 in float32."""


class Result(NamedTuple):
    """What examining a backend found at its worst: ``where`` is the trial, ``raised`` what it raised instead of an answer.

    ``promise`` is None where the plain comparison with the reference found it.
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
        """The bug in so many columns, whether it was killed, error / tolerance or what was raised, and where."""
        found = self.raised or f"{self.ratio:<8.3g} {self.tensor}"
        by = f"{self.promise}, " if self.promise else ""
        return f"{self.backend:<{width}}  {'killed' if self.killed else 'SURVIVES'}  {found:<34}  {by}{self.where}"


@dataclass
class SelfTest:
    """What became of each planted bug, and what is wrong with the backend that none was planted in: nothing, if all is well."""

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
        """Whether bugs were planted, all were found, and nothing was found where there is none."""
        return bool(self.results) and not self.survivors and not self.unmutated

    def table(self) -> str:
        """A line per planted bug: its name, error / tolerance and tensor, and what caught it; survivors last."""
        width = max((len(result.backend) for result in self.results), default=0)
        lines = [result.line(width) for result in self.killed + self.survivors]
        if self.unmutated:
            lines.append("the self-test is void: the backend without a bug does not pass")
            lines += [result.line() for result in self.unmutated]
        return "\n".join([*lines, f"{len(self.killed)} of {len(self.results)} planted bugs killed"])


class Harness:
    """The trials of a conformance run, and what is expected of each, computed when it is first needed."""

    def __init__(self, chosen: Iterable[Trial]) -> None:
        self.trials = [trial for trial in chosen if trial.problem.case.dtype in DTYPES]
        self._expected: dict[Problem, Expected] = {}

    def expected(self, problem: Problem) -> Expected:
        if problem not in self._expected:
            self._expected[problem] = expected(problem)
        return self._expected[problem]

    def kill(self, mutant: Mutant) -> Result:
        """Examine a mutant until something is found at ten times the tolerance; else the worst that was found.

        The comparisons with the reference come first, then one promise after the other, then the comparisons of large
        problems, which take longest; for a bug of a width, which only they show, these come before all others.
        """
        found = Result(mutant.name, mutant.area)
        for trial, promises in self._examinations(mutant.cells, large_first=mutant.area == "widths"):
            found = max(found, self._examined(mutant, trial.problem, promises), key=lambda result: result.ratio)
            if found.killed:
                return found
        return found

    def unmutated(self, cells: Iterable[str]) -> list[Result]:
        """What is found on trials of the backend that no bug was planted in."""
        right = Mutant("no bug", "", tuple(cells), reference_backend())
        concerned = [trial for trial in self.trials if trial.problem.case.cell in right.cells]
        results = [self._examined(right, trial.problem, trial.promises) for trial in concerned]
        return [result for result in results if result.ratio > 1]

    def _examinations(self, cells: Iterable[str], large_first: bool) -> Iterator[tuple[Trial, tuple[str, ...]]]:
        concerned = [trial for trial in self.trials if trial.problem.case.cell in cells]
        small: list[tuple[Trial, tuple[str, ...]]] = [(trial, ()) for trial in concerned if not _large(trial)]
        small += [(trial, (name,)) for trial in concerned for name in trial.promises]
        large: list[tuple[Trial, tuple[str, ...]]] = [(trial, ()) for trial in concerned if _large(trial)]
        yield from large[::-1] + small if large_first else small + large

    def _examined(self, mutant: Mutant, problem: Problem, promises: tuple[str, ...]) -> Result:
        wanted = self.expected(problem)
        where = f"{problem.case.label()} {problem.scheme}"
        try:
            with _planted(mutant), np.errstate(all="ignore"):  # some bugs overflow, and no warning is to say so
                findings = examine(mutant.backend, problem, wanted, promises)
        except Exception as error:  # whatever a backend raises is a failure
            raised = f"raised {type(error).__name__}: {error}"
            return Result(mutant.name, mutant.area, where, ", ".join(promises) or None, "", math.inf, raised)
        worst = findings[0]
        return Result(mutant.name, mutant.area, where, worst.promise, worst.tensor, worst.ratio)


def self_test(
    progress: Callable[[int, int], None] | None = None,
    cells: Iterable[str] | None = None,
    mutants: Iterable[Mutant] = MUTANTS,
) -> SelfTest:
    """Run every mutant of these cells (default: all) through the trials of the level standard, as a conformance run does."""
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


@contextmanager
def _planted(mutant: Mutant) -> Iterator[None]:
    """While it holds, networks of mutants are truncated by the mutant's loop; the reference's never are."""
    if mutant.tbptt is None:
        yield
        return
    wrong = mutant.tbptt

    def loop(net: Any, *arguments: Any, **options: Any) -> Any:
        return (wrong if isinstance(net, MutantNetwork) else tbptt)(net, *arguments, **options)

    with mock.patch("rnnbench.check.problem.tbptt", loop):
        yield
