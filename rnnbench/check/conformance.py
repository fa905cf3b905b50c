"""The conformance run: many small problems, one report per backend."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rnnbench.cells import CELLS
from rnnbench.check.gate import Finding, gate
from rnnbench.check.problem import Problem
from rnnbench.check.tolerance import expected
from rnnbench.errors import ArgumentError
from rnnbench.spec import DTYPES
from rnnbench.store import Case

LONG_MEMORY_BIAS = 3.0
"""With it and orthogonal recurrent weights gradients reach far back; with default ones a wrong window hardly shows."""


@dataclass(frozen=True)
class Sizes:
    """How large the problems are; odd sizes, so that a mixed-up axis does not fit."""

    T: int = 7
    B: int = 3
    I: int = 4  # noqa: E741  # the field's name for the input size
    H: int = 5
    O: int = 6  # noqa: E741  # the field's name for the output size


SMALL = Sizes()
TINY = Sizes(T=3, B=2, I=3, H=4, O=5)
"""For the CUDA simulator, which needs milliseconds for every launch."""


@dataclass(frozen=True)
class Outcome:
    """One problem on one backend: its findings, or why it was skipped, or what it raised."""

    problem: Problem
    findings: list[Finding] = field(default_factory=list)
    skipped: str | None = None
    raised: str | None = None

    @property
    def passed(self) -> bool:
        return self.raised is None and all(finding.passed for finding in self.findings)

    @property
    def worst(self) -> Finding | None:
        return self.findings[0] if self.findings else None


@dataclass
class Report:
    """All outcomes of one backend; ``name`` is what the user called it."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether at least one problem ran and none failed."""
        return any(outcome.skipped is None for outcome in self.outcomes) and not self.failures

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def table(self) -> str:
        """A line per cell and dtype: problems, worst error / tolerance and where; then skips and the first failure."""
        lines = [f"{self.name}"]
        for (cell, dtype), outcomes in self._groups().items():
            ran = [outcome for outcome in outcomes if outcome.skipped is None]
            bad = [outcome for outcome in ran if not outcome.passed]
            if not ran:
                lines.append(f"  {cell:<24} {dtype}  skipped: {outcomes[0].skipped}")
                continue
            worst = max((o.worst for o in ran if o.worst), key=lambda finding: finding.ratio, default=None)
            shown = f"worst error/tolerance {worst.ratio:8.3g} in {worst.tensor}" if worst else "no result"
            verdict = f"{len(bad)} FAILED" if bad else "ok"
            lines.append(f"  {cell:<24} {dtype}  {len(ran):3d} problems  {shown:<58} {verdict}")
        if self.failures:
            lines += ["", self.first_failure()]
        return "\n".join(lines)

    def first_failure(self) -> str:
        """The first failing problem: what was wrong, and Python that reproduces it."""
        outcome = self.failures[0]
        wrong = [str(finding) for finding in outcome.findings if not finding.passed]
        says = outcome.raised or "\n  ".join(wrong[:5])
        return (
            f"first failure of {self.name}: {outcome.problem.case.label()}, weights {outcome.problem.scheme}\n  {says}\n\n"
            "reproduce it with\n\n"
            "  import rnnbench\n"
            "  from rnnbench.check import Problem, expected, gate\n"
            "  from rnnbench.store import Case\n"
            f"  problem = {outcome.problem!r}\n"
            f"  for finding in gate(rnnbench.load_backend({self.name!r}), problem, expected(problem)):\n"
            "      print(finding)\n"
        )

    def _groups(self) -> Mapping[tuple[str, str], list[Outcome]]:
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in self.outcomes:
            case = outcome.problem.case
            usual = case.nonlinearity == "tanh"
            groups.setdefault((case.cell if usual else f"{case.cell} {case.nonlinearity}", case.dtype), []).append(outcome)
        return groups


def check(
    backends: Mapping[str, Any],
    *,
    cells: Iterable[str] | None = None,
    sizes: Sizes = SMALL,
    progress: Callable[[int, int], None] | None = None,
) -> list[Report]:
    """Check backends (modules by name) on every cell, layers {1, 2}, both directions, float32 and float64.

    Phases forward, step and tbptt; default weights and long memory; given states and random cotangents.  The reference
    is computed once per problem for all backends.  What a backend raises is a failure of that problem, not an end.
    """
    reports = [Report(name) for name in backends]
    todo = problems(cells, sizes)
    for done, problem in enumerate(todo):
        if progress:
            progress(done, len(todo))
        wanted = expected(problem)
        for report, backend in zip(reports, backends.values(), strict=True):
            report.outcomes.append(_outcome(backend, problem, wanted))
    return reports


def problems(cells: Iterable[str] | None = None, sizes: Sizes = SMALL) -> list[Problem]:
    """The problems of a conformance run; raises ArgumentError for an unknown cell."""
    chosen = list(CELLS) if cells is None else list(cells)
    unknown = [cell for cell in chosen if cell not in CELLS]
    if unknown:
        raise ArgumentError(f"unknown cell {unknown[0]!r}; expected {', '.join(CELLS)}")
    found = []
    for cell in dict.fromkeys(chosen):
        for nonlinearity in CELLS[cell].nonlinearities:
            for dtype in DTYPES:
                found += _of_network(cell, nonlinearity, dtype, sizes)
    return [Problem(p.case, p.scheme, p.forget_bias, seed=number) for number, p in enumerate(found)]


def _of_network(cell: str, nonlinearity: str, dtype: str, sizes: Sizes) -> list[Problem]:
    kind = CELLS[cell]
    found = []

    def add(phase: str, layers: int, bidirectional: bool, long_memory: bool, **more: Any) -> None:
        output = sizes.O if kind.feeds_back_output else None
        options = {"nonlinearity": nonlinearity, "dtype": dtype, "output_size": output, **more}
        case = Case(cell, phase, sizes.T, sizes.B, sizes.I, sizes.H, layers, bidirectional, **options)  # type: ignore[arg-type]
        bias = LONG_MEMORY_BIAS if kind.memory_gate and case.bias else 0.0
        found.append(Problem(case, "orthogonal", bias) if long_memory else Problem(case))

    for layers in (1, 2):
        for bidirectional in (False, True):
            add("step", layers, bidirectional, long_memory=False)
            add("step", layers, bidirectional, long_memory=True)
            add("forward", layers, bidirectional, long_memory=True)
        add("tbptt", layers, False, long_memory=True, window=max(1, sizes.T // 2), stride=max(1, sizes.T // 3))
    add("step", 1, False, long_memory=True, bias=False)
    return found


def _outcome(backend: Any, problem: Problem, wanted: Any) -> Outcome:
    try:
        reason = backend.supports(problem.case.spec())
        if reason:
            return Outcome(problem, skipped=reason)
        return Outcome(problem, gate(backend, problem, wanted))
    except Exception as error:  # whatever a backend raises is what the check is there to find
        return Outcome(problem, raised=f"raised {type(error).__name__}: {error}")


def totals(reports: Iterable[Report]) -> Counter[str]:
    """How many problems passed, failed and were skipped."""
    counts: Counter[str] = Counter()
    for report in reports:
        for outcome in report.outcomes:
            counts["skipped" if outcome.skipped else "passed" if outcome.passed else "failed"] += 1
    return counts
