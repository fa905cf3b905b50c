"""What a conformance run found, of one backend: as a table, as the first failure with Python that repeats it, as JSON."""

import dataclasses
import math
import platform
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

import rnnbench
from rnnbench.check.gate import Finding
from rnnbench.check.levels import Trial
from rnnbench.check.problem import Problem
from rnnbench.store import Case

SHOWN = 5
"""How many findings of the first failure are shown, and how many reasons of failures that are no tensor's."""

WHOLE = "the call"
"""The tensor of a finding that has none: an exception, a crash, a hang."""


@dataclass(frozen=True)
class Outcome:
    """One trial on one backend: its findings, worst first, or why it was skipped."""

    trial: Trial
    findings: list[Finding] = field(default_factory=list)
    skipped: str | None = None

    @property
    def problem(self) -> Problem:
        return self.trial.problem

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def worst(self) -> Finding | None:
        return self.findings[0] if self.findings else None


class Worst(NamedTuple):
    """The finding with the largest error for its tolerance, and whose it is."""

    backend: str
    problem: Problem
    finding: Finding

    def __str__(self) -> str:
        where = f"{self.finding.promise}: " if self.finding.promise else ""
        return f"{_number(self.finding.ratio)} in {where}{self.finding.tensor}, {self.backend}, {described(self.problem)}"


@dataclass
class Report:
    """All outcomes of one backend; ``name`` is what the user called it, ``loading`` the expression that gives its module."""

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    loading: str = "..."

    @property
    def passed(self) -> bool:
        """Whether at least one trial ran and none failed."""
        return any(outcome.skipped is None for outcome in self.outcomes) and not self.failures

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]

    def table(self) -> str:
        """A line per cell and dtype, one per promise, the reasons of what was skipped, and the first failure."""
        ran = [outcome for outcome in self.outcomes if outcome.skipped is None]
        lines = [self.name]
        by_network = _grouped((_network(outcome.problem.case), outcome) for outcome in ran)
        for (cell, dtype), outcomes in by_network.items():
            lines.append(_line(f"{cell:<24} {dtype}", [_of(outcome, None) for outcome in outcomes]))
        by_promise = _grouped((promise, outcome) for outcome in ran for promise in outcome.trial.promises)
        for promise, outcomes in by_promise.items():
            lines.append(_line(promise, [_of(outcome, promise) for outcome in outcomes]))
        reasons = Counter(outcome.skipped for outcome in self.outcomes if outcome.skipped)
        lines += [f"  skipped: {_problems(count)}: {reason}" for reason, count in reasons.items()]
        broken = Counter(f.reason for outcome in ran for f in outcome.findings if f.tensor == WHOLE)
        lines += [f"  failed: {_problems(count)}: {_one_line(reason)}" for reason, count in broken.most_common(SHOWN)]
        if self.failures:
            lines += ["", self.first_failure()]
        return "\n".join(lines)

    def first_failure(self) -> str:
        """The first failing trial: what was wrong, and Python that repeats it."""
        return f"first failure of {self.name}: {failure_text(self.failures[0], self.loading)}"

    def to_json(self) -> dict[str, Any]:
        """Everything, in what JSON knows; an infinite ratio is None."""
        return {
            "name": self.name,
            "info": self.info,
            "passed": self.passed,
            "totals": dict(totals([self])),
            "trials": [_outcome_json(outcome) for outcome in self.outcomes],
        }


def failure_text(outcome: Outcome, loading: str) -> str:
    """What is wrong in an outcome, the worst first, and Python that repeats it with the backend that ``loading`` gives."""
    wrong = [finding for finding in outcome.findings if not finding.passed]
    said = [str(finding) for finding in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        said.append(f"and {len(wrong) - SHOWN} more")
    promises = list(dict.fromkeys(finding.promise for finding in wrong if finding.promise))
    arguments = f"backend, problem, expected(problem){f', {promises}' if promises else ''}"
    snippet = [
        f"import {'importlib' if loading.startswith('importlib') else 'rnnbench'}",
        "from rnnbench.check import Problem, examine, expected",
        "from rnnbench.store import Case",
        "",
        f"backend = {loading}",
        f"case = {_code(outcome.problem.case)}",
        f"problem = {_code(outcome.problem)}",
        f"for finding in examine({arguments}):",
        "    print(finding)",
    ]
    return "\n".join(
        [
            described(outcome.problem),
            *(f"  {line}" for line in said),
            "",
            "repeat it with",
            "",
            *(f"  {line}".rstrip() for line in snippet),
            "",
        ]
    )


def shown_name(backend: Any) -> str:
    """What a backend is called: its registered name, its file, its module or its class."""
    if isinstance(backend, str):
        return backend
    name = getattr(backend, "__name__", type(backend).__name__)
    return backend.__file__ if name.startswith("rnnbench_user_") else name


def loading_code(backend: Any) -> str:
    """The Python expression that gives a backend again."""
    name = shown_name(backend)
    if isinstance(backend, str) or name.endswith(".py"):
        return f"rnnbench.load_backend({name!r})"
    return f"importlib.import_module({name!r})" if sys.modules.get(name) is backend else "...  # the object that was checked"


def described(problem: Problem) -> str:
    """A problem in a few words: its case, and what is unusual about its weights and inputs."""
    parts = [problem.case.label()]
    if problem.scheme != "torch-default":
        parts.append(problem.scheme)
    if problem.forget_bias:
        parts.append(f"forget bias {problem.forget_bias:g}")
    if problem.source != "noise":
        parts.append(problem.source)
    return " ".join([*parts, f"seed {problem.seed}"])


def totals(reports: Iterable[Report]) -> Counter[str]:
    """How many trials passed, failed and were skipped."""
    counts: Counter[str] = Counter()
    for report in reports:
        for outcome in report.outcomes:
            counts["skipped" if outcome.skipped else "passed" if outcome.passed else "failed"] += 1
    return counts


def worst(reports: Iterable[Report]) -> Worst | None:
    """The worst finding of all that has a number, which in a run without failures says how much room was left."""
    found = (Worst(r.name, outcome.problem, finding) for r in reports for outcome in r.outcomes for finding in outcome.findings)
    return max((w for w in found if math.isfinite(w.finding.ratio)), key=lambda w: w.finding.ratio, default=None)


def text(reports: Sequence[Report], seconds: float) -> str:
    """All tables, the totals and the largest error for its tolerance."""
    counts, largest = totals(reports), worst(reports)
    lines = [report.table() for report in reports]
    if largest:
        lines.append(f"worst error/tolerance {largest}")
    lines.append(f"{counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped in {seconds:.0f} s")
    return "\n".join(lines)


def json_document(reports: Sequence[Report], asked: Mapping[str, Any], seconds: float) -> str:
    """All reports, what was asked for, and with which versions, as a JSON document."""
    largest, counts = worst(reports), totals(reports)
    document = {
        "rnnbench": rnnbench.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **asked,
        "seconds": round(seconds, 3),
        "passed": bool(reports) and all(report.passed for report in reports),
        "totals": {name: counts[name] for name in ("passed", "failed", "skipped")},
        "worst": largest
        and {
            "backend": largest.backend,
            "problem": msgspec.to_builtins(largest.problem),
            "finding": finding_json(largest.finding),
        },
        "reports": [report.to_json() for report in reports],
    }
    return msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=1).decode()


def _network(case: Case) -> tuple[str, str]:
    return (case.cell if case.nonlinearity == "tanh" else f"{case.cell} {case.nonlinearity}", case.dtype)


def _grouped(pairs: Iterable[tuple[Any, Outcome]]) -> Mapping[Any, list[Outcome]]:
    groups: dict[Any, list[Outcome]] = {}
    for key, outcome in pairs:
        groups.setdefault(key, []).append(outcome)
    return groups


def _of(outcome: Outcome, promise: str | None) -> list[Finding]:
    return [finding for finding in outcome.findings if finding.promise == promise]


def _line(title: str, found: list[list[Finding]]) -> str:
    """``found`` are the findings of each problem."""
    failed = sum(not all(finding.passed for finding in findings) for findings in found)
    numbers = [finding for findings in found for finding in findings if finding.error is not None]
    largest = max(numbers, key=lambda finding: finding.ratio, default=None)
    shown = f"worst error/tolerance {_number(largest.ratio):>8} in {largest.tensor}" if largest else "no result"
    return f"  {title:<32} {_problems(len(found)):>13}  {shown:<58} {f'{failed} FAILED' if failed else 'ok'}"


def _problems(count: int) -> str:
    return f"{count} problem" + "s" * (count != 1)


def _one_line(reason: str | None) -> str:
    return " ".join(str(reason).split())[:100]


def _number(ratio: float) -> str:
    return f"{ratio:.3g}"


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "problem": msgspec.to_builtins(outcome.problem),
        "promises": list(outcome.trial.promises),
        "passed": outcome.skipped is None and outcome.passed,
        "skipped": outcome.skipped,
        "findings": [finding_json(finding) for finding in outcome.findings],
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    ratio = finding.ratio if math.isfinite(finding.ratio) else None
    return {**finding._asdict(), "ratio": ratio, "passed": finding.passed}


def _code(value: Any) -> str:
    """Python for a case, or for a problem of the variable ``case``, without what has its usual value."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else msgspec.structs.fields(value)
    given = [(field.name, getattr(value, field.name)) for field in fields if getattr(value, field.name) != field.default]
    shown = ["case" if isinstance(part, Case) else f"{name}={part!r}" for name, part in given]
    return f"{type(value).__name__}({', '.join(shown)})"
