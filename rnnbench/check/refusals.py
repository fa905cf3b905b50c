"""A summary of the cells, dtypes and options that a backend does not support, with its own reasons."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from rnnbench.check.problem import Problem
from rnnbench.suite.case import Case

SHOWN = 6
"""Maximum number of reasons shown."""


def refused(refusals: Mapping[Problem, str], ran: Iterable[Problem]) -> list[str]:
    """Summarise refusals in a line per reason: the traits that the refused problems share, and the reason.

    A named trait, such as a cell or a dtype, is refused in every problem that has it.  A reason without such a trait is
    shown with one example problem.
    """
    accepted = {trait for problem in ran for trait in _traits(problem.case)}
    by_trait: dict[str, set[str]] = {}
    for problem, reason in refusals.items():
        for trait in _traits(problem.case):
            by_trait.setdefault(trait, set()).add(reason)
    by_reason: dict[str, list[Problem]] = {}
    for problem, reason in refusals.items():
        by_reason.setdefault(reason, []).append(problem)
    known: dict[str, list[str]] = {}
    for reason, problems in by_reason.items():
        left, names = list(problems), []
        while left:
            counts = Counter(trait for problem in left for trait in _traits(problem.case) if trait not in accepted)
            if not counts:
                break
            best = max(counts, key=lambda trait: (len(by_trait[trait]) == 1, counts[trait]))
            names.append(best)
            left = [problem for problem in left if best not in _traits(problem.case)]
        known[reason] = names or [problems[0].case.label()]
    lines = [f"{', '.join(names)}: {_one_line(reason)}" for reason, names in known.items()]
    return lines if len(lines) <= SHOWN else [*lines[:SHOWN], f"and {len(lines) - SHOWN} more reasons"]


def _traits(case: Case) -> list[str]:
    return list(_named(case))


def _named(case: Case) -> Iterator[str]:
    yield case.cell
    yield case.dtype
    if case.nonlinearity != "tanh":
        yield f"{case.cell} {case.nonlinearity}"
    if case.layers > 1:
        yield "several layers"
    if case.bidirectional:
        yield "both directions"
    if not case.bias:
        yield "no bias"
    if case.projection_size is not None:
        yield "projection"
    if case.lengths is not None:
        yield "lengths"
    if case.phase != "step":
        yield {"forward": "inference", "tbptt": "truncated BPTT"}[case.phase]


def _one_line(reason: str) -> str:
    return " ".join(reason.split())[:100]
