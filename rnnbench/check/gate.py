"""The gate: one backend on one problem, every tensor against the reference within its tolerance."""

import math
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.problem import Outputs, Problem, outputs
from rnnbench.check.tolerance import Expected


class Finding(NamedTuple):
    """One tensor of one check; ``error`` is None where it has no number, and ``reason`` then says why."""

    tensor: str
    error: float | None
    tolerance: float
    reason: str | None = None

    @property
    def passed(self) -> bool:
        return self.error is not None and self.error <= self.tolerance

    @property
    def ratio(self) -> float:
        """Error over tolerance; infinite where the error has no number, or where none is allowed and there is one."""
        if self.error is None:
            return math.inf
        if self.error == 0:
            return 0.0
        return self.error / self.tolerance if self.tolerance else math.inf

    def __str__(self) -> str:
        if self.error is None:
            return f"{self.tensor}: {self.reason}"
        return f"{self.tensor}: error {self.error:.3g}, tolerance {self.tolerance:.3g}, {self.ratio:.3g} times as much"


def gate(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Run ``backend`` on ``problem`` and compare every tensor, one finding each, worst first."""
    return compared(outputs(backend, problem), wanted, problem.case.dtype)


def compared(got: Outputs, wanted: Expected, dtype: str) -> list[Finding]:
    """Compare shapes, dtypes and values of ``got`` with what the reference gave; worst first."""
    findings = [_finding(name, got.get(name), value, wanted.tolerances[name], dtype) for name, value in wanted.values.items()]
    findings += [Finding(name, None, 0.0, "is no output of this phase") for name in got if name not in wanted.values]
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)


def _finding(name: str, got: np.ndarray | None, wanted: np.ndarray, tolerance: float, dtype: str) -> Finding:
    if got is None:
        return Finding(name, None, tolerance, "is missing")
    if got.shape != wanted.shape:
        return Finding(name, None, tolerance, f"has shape {got.shape}; expected {wanted.shape}")
    if got.dtype != dtype:
        return Finding(name, None, tolerance, f"has dtype {got.dtype}; expected {dtype}")
    error = float(np.max(np.abs(got.astype("float64") - wanted), initial=0))
    if not math.isfinite(error):
        return Finding(name, None, tolerance, "is not finite")
    return Finding(name, error, tolerance)
