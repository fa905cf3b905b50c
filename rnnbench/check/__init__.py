"""The correctness harness: every output and gradient against a float64 reference, within derived tolerances."""

from rnnbench.check.conformance import SMALL, TINY, Outcome, Report, Sizes, check, problems, totals
from rnnbench.check.gate import Finding, compared, gate
from rnnbench.check.problem import Prepared, Problem, outputs
from rnnbench.check.tolerance import Expected, expected, window_cost

__all__ = [
    "SMALL",
    "TINY",
    "Expected",
    "Finding",
    "Outcome",
    "Prepared",
    "Problem",
    "Report",
    "Sizes",
    "check",
    "compared",
    "expected",
    "gate",
    "outputs",
    "problems",
    "totals",
    "window_cost",
]
