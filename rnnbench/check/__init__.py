"""Conformance tests: every output and gradient is compared with a float64 reference, within derived tolerances."""

from rnnbench.check.comparing import Finding, compared, gate
from rnnbench.check.conformance import Interrupted, check, check_all
from rnnbench.check.isolation import TIME_LIMIT
from rnnbench.check.levels import LEVELS, SMALL, TINY, Sizes, Trial, numbers_only, problems, random_trials, trials
from rnnbench.check.outcome import Outcome
from rnnbench.check.problem import Prepared, Problem, outputs
from rnnbench.check.promises import PROMISES, Promise, examine
from rnnbench.check.report import Report, json_document, text, totals, worst
from rnnbench.check.tolerance import Expected, expected, window_cost

__all__ = [
    "LEVELS",
    "PROMISES",
    "SMALL",
    "TIME_LIMIT",
    "TINY",
    "Expected",
    "Finding",
    "Interrupted",
    "Outcome",
    "Prepared",
    "Problem",
    "Promise",
    "Report",
    "Sizes",
    "Trial",
    "check",
    "check_all",
    "compared",
    "examine",
    "expected",
    "gate",
    "json_document",
    "numbers_only",
    "outputs",
    "problems",
    "random_trials",
    "text",
    "totals",
    "trials",
    "window_cost",
    "worst",
]
