"""Comparison of every output and gradient with the reference, within its tolerance."""

import math
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.problem import INPUT_CHANGE, Outputs, Problem, outputs
from rnnbench.check.tolerance import Expected
from rnnbench.networks.bfloat16 import finfo


class Finding(NamedTuple):
    """The result of checking one tensor.

    ``error`` is the largest absolute error, or None if it has no number; ``reason`` then says why.  For a numeric error,
    ``reason`` is its diagnosis, if there is one.  ``promise`` names the tested promise; it is None for the plain comparison
    with the reference.
    """

    tensor: str
    error: float | None
    tolerance: float
    reason: str | None = None
    promise: str | None = None

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        """Error over tolerance; infinite if the error has no number, or if the tolerance is zero and the error is not."""
        if self.error is None:
            return math.inf
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf

    def __str__(self) -> str:
        under = f"{self.promise}: " if self.promise else ""
        if self.error is None:
            return f"{under}{self.tensor}: {self.reason}"
        numbers = f"error {self.error:.3g}, tolerance {self.tolerance:.3g}, ratio {self.ratio:.3g}"
        return f"{under}{self.tensor}: {numbers}" + (f"; {self.reason}" if self.reason else "")


def gate(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Run ``backend`` on ``problem`` and compare every tensor with the reference; one finding per tensor, worst first."""
    return compared(outputs(backend, problem), wanted, problem.case.dtype)


def compared(got: Outputs, wanted: Expected, dtype: str) -> list[Finding]:
    """Compare the shapes, dtypes and values of ``got`` with the reference's results; worst findings first."""
    findings = [_finding(name, got.get(name), wanted, dtype) for name in wanted.values]
    if INPUT_CHANGE in got:
        change = float(got[INPUT_CHANGE])
        findings.append(Finding(INPUT_CHANGE, change if math.isfinite(change) else None, 0.0, _not_finite(change)))
    unexpected = [name for name in got if name not in wanted.values and name != INPUT_CHANGE]
    findings += [Finding(name, None, 0.0, "is not an output of this phase") for name in unexpected]
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)


def _finding(name: str, got: np.ndarray | None, wanted: Expected, dtype: str) -> Finding:
    value, tolerances, rows = wanted.values[name], wanted.tolerances[name], wanted.rows
    batched = has_batch_axis(name)
    shape = (value.shape[0], len(rows.index), *value.shape[2:]) if batched else value.shape
    largest = float(np.max(tolerances))
    if got is None:
        return Finding(name, None, largest, "is missing")
    if got.shape != shape:
        return Finding(name, None, largest, f"has shape {got.shape}; expected {shape}")
    if got.dtype != dtype:
        return Finding(name, None, largest, f"has dtype {got.dtype}; expected {dtype}")
    if batched:
        factors = rows.weight / rows.totals[rows.index] if name.startswith("d") else np.ones(len(rows.index))
        pairs = [(_error(got[:, b], value[:, rows.index[b]] * f), float(tolerances[0] * f)) for b, f in enumerate(factors)]
    else:
        blocks = len(tolerances)
        parts = zip(np.split(got, blocks), np.split(value, blocks), tolerances, strict=True)
        pairs = [(_error(part, block), float(tolerance)) for part, block, tolerance in parts]
    reason = f"is not finite{_out_of_range(value, largest, dtype)}"
    findings = [Finding(name, e, t) if math.isfinite(e) else Finding(name, None, t, reason) for e, t in pairs]
    return max(findings, key=lambda finding: finding.ratio)


def _out_of_range(value: np.ndarray, tolerance: float, dtype: str) -> str:
    """The reason why no backend can be correct, if the reference exceeds the range of the dtype."""
    top, end = float(np.max(np.abs(value), initial=0)), float(finfo(dtype).max)
    return f": the reference reaches {top:.5g}, but {dtype} ends at {end:.5g}" if top + tolerance > end else ""


def has_batch_axis(name: str) -> bool:
    """Whether the second axis of the tensor with this name is the batch; gradients of weights have no batch axis."""
    return name in ("y", "dx") or name.startswith(("final ", "d initial "))


def _error(got: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.max(np.abs(got.astype("float64") - wanted), initial=0))


def _not_finite(error: float) -> str | None:
    return None if math.isfinite(error) else "is not finite"
