"""The description of a failure, with Python code that reproduces it."""

import dataclasses
import sys
from typing import Any

import msgspec

from rnnbench.check.comparing import Finding
from rnnbench.check.outcome import Outcome
from rnnbench.check.problem import Problem
from rnnbench.check.shrinking import Smallest
from rnnbench.suite.case import Case

SHOWN = 5
"""Maximum number of findings shown for one failure."""


def failure_text(outcome: Outcome, loading: str, smallest: Smallest | None = None) -> str:
    """Describe a failed outcome, worst finding first, and append Python code that reproduces it.

    ``loading``: the expression that loads the backend.  ``smallest``: a smaller failing problem to reproduce instead, if known.
    """
    failing = [finding for finding in outcome.findings if not finding.passed]
    wrong = [finding for finding in failing if finding.promise is None] or failing  # wrong results break promises too
    lines = [described(outcome.problem), *_listed([str(finding) for finding in wrong])]
    promises = list(dict.fromkeys(finding.promise for finding in wrong if finding.promise))
    problem = outcome.problem
    if smallest:
        problem, promises = smallest.problem, []
        lines += ["", f"smallest problem that still fails: {described(problem)}"]
        lines += _listed([_with_place(finding, smallest.where) for finding in smallest.findings])
    arguments = f"backend, problem, expected(problem){f', {promises}' if promises else ''}"
    snippet = [
        f"import {'importlib' if loading.startswith('importlib') else 'rnnbench'}",
        "from rnnbench.check import Problem, examine, expected",
        "from rnnbench.suite.case import Case",
        "",
        f"backend = {loading}",
        f"case = {_code(problem.case)}",
        f"problem = {_code(problem)}",
        f"for finding in examine({arguments}):",
        "    print(finding)",
    ]
    return "\n".join([*lines, "", "reproduce it with", "", *(f"  {line}".rstrip() for line in snippet), ""])


def _listed(findings: list[str]) -> list[str]:
    distinct = list(dict.fromkeys(findings))
    more = [f"and {len(distinct) - SHOWN} more"] if len(distinct) > SHOWN else []
    return [f"  {line}" for line in [*distinct[:SHOWN], *more]]


def _with_place(finding: Finding, where: dict[str, str]) -> str:
    place = where.get(finding.tensor)
    return f"{finding}; {place}" if place else str(finding)


def shown_name(backend: Any) -> str:
    """The name of a backend for users: its registered name, its file, its module or its class."""
    if isinstance(backend, str):
        return backend
    name = getattr(backend, "__name__", type(backend).__name__)
    return backend.__file__ if name.startswith("rnnbench_user_") else name


def loading_code(backend: Any) -> str:
    """The Python expression that loads a backend."""
    name = shown_name(backend)
    if isinstance(backend, str) or name.endswith(".py"):
        return f"rnnbench.load_backend({name!r})"
    return f"importlib.import_module({name!r})" if sys.modules.get(name) is backend else "...  # the object that was checked"


def described(problem: Problem) -> str:
    """Describe a problem briefly: its case, and the non-default properties of its weights and inputs."""
    parts = [problem.case.label()]
    if problem.scheme != "torch-default":
        parts.append(problem.scheme)
    if problem.forget_bias:
        parts.append(f"forget bias {problem.forget_bias:g}")
    if problem.source != "noise":
        parts.append(problem.source)
    return " ".join([*parts, f"seed {problem.seed}"])


def _code(value: Any) -> str:
    """Python code for a case, or for a problem of the variable ``case``; default values are omitted."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else msgspec.structs.fields(value)
    given = [(field.name, getattr(value, field.name)) for field in fields if getattr(value, field.name) != field.default]
    shown = ["case" if isinstance(part, Case) else f"{name}={part!r}" for name, part in given]
    return f"{type(value).__name__}({', '.join(shown)})"
