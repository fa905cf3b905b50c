"""Shrinking of a failing problem, and the location of its errors: the first wrong time step, the wrong rows of a gate."""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from rnnbench.check.comparing import Finding, compared, has_batch_axis
from rnnbench.check.problem import Outputs, Problem, outputs
from rnnbench.check.tolerance import Expected, closed_form, expected, gate_names
from rnnbench.suite.case import Case, refusal

SECONDS = 5.0
"""Time limit of the search, in seconds."""


@dataclass(frozen=True)
class Smallest:
    """The smallest failing problem, its failed findings, worst first, and the location of the errors by tensor, if known."""

    problem: Problem
    findings: list[Finding]
    where: dict[str, str]


def smallest(backend: Any, problem: Problem, seconds: float = SECONDS) -> Smallest | None:
    """Shrink a problem with wrong results while its worst tensor stays wrong.

    The search is greedy: it tries one direction, one layer, phase step instead of tbptt, then smaller axes.  It stops after
    ``seconds``, plus the call in progress.  It uses tolerances in closed form, which take a fifth of the time; the last
    problem gets the usual ones.  Returns None if no error exceeds twice the tolerance, or if the failure is intermittent.
    """
    deadline = time.monotonic() + seconds
    kinds = _clearly_wrong(backend, problem)
    if not kinds:
        return None
    found: Problem | None = problem
    while found:
        problem = found
        smaller = (replace(problem, case=case) for case in _smaller(problem.case) if time.monotonic() < deadline)
        found = next((candidate for candidate in smaller if kinds[0] in _clearly_wrong(backend, candidate)), None)
    wanted, got = expected(problem), outputs(backend, problem)
    findings = [finding for finding in compared(got, wanted, problem.case.dtype) if not finding.passed]
    where = {f.tensor: _place(f.tensor, got, wanted, problem.case) for f in findings if f.error is not None}
    return Smallest(problem, findings, {name: text for name, text in where.items() if text}) if findings else None


def _clearly_wrong(backend: Any, problem: Problem) -> list[str]:
    """Return the names of clearly wrong tensors, without layer and direction, worst first.

    The list is empty for an unsupported problem, or if the backend raises: that is a different failure.
    """
    try:
        if refusal(backend, problem.case) is not None:
            return []
        got = outputs(backend, problem)
    except Exception:  # a backend may raise anything
        return []
    found = compared(got, closed_form(problem), problem.case.dtype)
    return [re.sub(r"_l\d+(_reverse)?$", "", f.tensor) for f in found if f.error is not None and f.ratio > 2]


def _smaller(case: Case) -> Iterator[Case]:
    if case.bidirectional:
        yield msgspec.structs.replace(case, bidirectional=False)
    for layers in dict.fromkeys((1, case.layers - 1)):
        if 1 <= layers < case.layers:
            yield msgspec.structs.replace(case, layers=layers)
    if case.lengths is not None:
        yield msgspec.structs.replace(case, lengths=None)
    if case.phase == "tbptt":
        yield msgspec.structs.replace(case, phase="step", window=None, stride=None)
    for axis in ("T", "B", "I", "H", "output_size", "projection_size"):
        size = getattr(case, axis) or 1  # only jordan has an output size, and only some networks a projection
        for smaller in dict.fromkeys((1, size // 2, size - size // 4, size - 1)):
            if 1 <= smaller < size:
                yield _resized(case, axis, smaller)


def _resized(case: Case, axis: str, size: int) -> Case:
    """Change one size of a case, and limit the window to T and the stride to the window."""
    resized = msgspec.structs.replace(case, **{axis: size})
    if resized.window is None:
        return resized
    window = min(resized.window, resized.T)
    return msgspec.structs.replace(resized, window=window, stride=resized.stride and min(resized.stride, window))


def _place(name: str, got: Outputs, wanted: Expected, case: Case) -> str:
    """Describe where a tensor of the right shape is wrong."""
    if name not in wanted.values:
        return ""
    value, tolerances = wanted.values[name], wanted.tolerances[name]
    if has_batch_axis(name):
        if name not in ("y", "dx"):
            return ""
        index, weight = wanted.rows
        factors = (weight / wanted.rows.totals[index] if name == "dx" else np.ones(len(index)))[:, None]
        errors = abs(got[name].astype("float64") - value[:, index] * factors)
        return _steps(name, np.flatnonzero(np.any(errors > tolerances[0] * factors, axis=(1, 2))), case.T)
    gates = gate_names(case, name) if len(tolerances) > 1 else ()
    errors = abs(got[name].astype("float64") - value).reshape(len(value), -1)
    return _gates(gates, np.any(errors > np.repeat(tolerances, len(value) // len(tolerances))[:, None], axis=1))


def _steps(name: str, wrong: np.ndarray, steps: int) -> str:
    """Describe the wrong steps, starting with the first in order of computation: forward for y, backward for dx."""
    if len(wrong) == 0:
        return ""
    first = wrong[-1] if name == "dx" else wrong[0]
    order = f"going backward from step {steps - 1}" if name == "dx" else "going forward"
    return f"first wrong at step {first}, {order}; {len(wrong)} of {steps} steps are wrong"


def _gates(gates: tuple[str, ...], wrong: np.ndarray) -> str:
    rows = {gate: np.flatnonzero(part) for gate, part in zip(gates, np.split(wrong, len(gates) or 1), strict=False)}
    size, affected = len(wrong) // max(1, len(gates)), [gate for gate in rows if len(rows[gate])]
    if not affected or len(affected) == len(gates):
        return "wrong in every gate" if affected else ""
    places = [f"gate {gate} ({_listed(rows[gate] + gates.index(gate) * size)})" for gate in affected]
    return f"wrong in {', '.join(places)}; correct in {', '.join(gate for gate in gates if gate not in affected)}"


def _listed(numbers: np.ndarray) -> str:
    if len(numbers) == 1:
        return f"row {numbers[0]}"
    if numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"rows {numbers[0]} to {numbers[-1]}"
    return "rows " + ", ".join(map(str, numbers[:8])) + (", ..." if len(numbers) > 8 else "")
