"""Tolerances of correct implementations, derived from runs of the float64 reference with random rounding errors.

Every operation that rounds gets a random error: a standard normal number times

    u (|v| |w| + |bias|)    for a product of v and w
    2 u |r|                 for the result r of an activation
    u |r|                   for the result r of an elementwise equation or an addition
    u sqrt(n/3) |r|         for the sum r of n rows, which may be added one after the other

where u is the unit roundoff of the target dtype.

The tolerance of a tensor is FACTOR times the largest deviation of NOISY_RUNS such runs from the exact run.  It is at least
FACTOR times u times the largest element, because every result is rounded when it is stored, and at least the smallest normal
number, because subnormal numbers may be flushed to zero.  The tolerance thus follows from sequence length, sizes and
conditioning; no number in it was chosen to make a check pass.

In bfloat16 and float16, sums within a product are taken in float32, and the result is rounded to the dtype.  The same holds
for sums over the rows of one time step; their totals are then added step by step.

The smallest normal number of float16 is 2^-14, close to the size of gradients, and its subnormal numbers are 2^-24 apart.
Every result therefore also gets an absolute error of half that spacing, u 2^-14, which is propagated like the others.
Small numbers get no further tolerance, because processors do not flush float16 to zero by default; results below 2^-25 are
correct as zero.  Values beyond 65504 become infinite and fail: float16 cannot represent such a case.

For a float64 target the reference rounds as much as the target does, so the tolerance is doubled.
"""

from typing import NamedTuple

import numpy as np

from rnnbench.check.noise import WithArithmetic, noisy
from rnnbench.check.problem import Outputs, Problem, Rows, distinct_outputs, truncation_error
from rnnbench.check.propagation import WithVariances, median_largest
from rnnbench.networks.registry import reference_backend
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import Inputs

NOISY_RUNS = 8
FACTOR = 4

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53, "bfloat16": 2.0**-8, "float16": 2.0**-11}

ACCUMULATION = {"float32": 1.0, "float64": 1.0, "bfloat16": 2.0**-16, "float16": 2.0**-13}
"""Unit roundoff of sums within a product, in units of the dtype's unit roundoff."""

SMALLEST_NORMAL = {"float32": 0.0, "float64": 0.0, "bfloat16": 0.0, "float16": 2.0**-14}
"""Smallest normal number, below which rounding errors are absolute; 0 if values of networks are far larger."""

FLUSHED = {"float32": 2.0**-126, "float64": 2.0**-1022, "bfloat16": 2.0**-126, "float16": 0.0}
"""Magnitude below which results may be flushed to zero."""

NOISE = UNIT_ROUNDOFF | {"float64": 2.0**-40}
"""Unit roundoff of the random errors.

For float64 it is larger than the reference's own, and small enough to keep deviations proportional even in networks that
amplify them.
"""

ROUNDINGS = {"float32": 1, "float64": 2, "bfloat16": 1, "float16": 1}
"""Number of computations that round at the target's precision: the target, and for float64 the reference too."""


class Expected(NamedTuple):
    """The reference's results in float64, their tolerances, and the repetition of their rows in the batch.

    A tensor whose first axis holds gates has one tolerance per gate, for equal parts of that axis; any other tensor has one.
    """

    values: Outputs
    tolerances: dict[str, np.ndarray]
    rows: Rows


def expected(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """Return the reference's results, and the larger of the tolerances from noisy runs and in closed form.

    The noisy runs account for errors that grow from step to step.  The closed form accounts for single elements, whose few
    random errors may all be small.  ``inputs``, in float64, replace those of the distinct rows.
    """
    runs, form = noisy_runs(problem, inputs), closed_form(problem, inputs)
    return runs._replace(tolerances={name: np.maximum(form.tolerances[name], t) for name, t in runs.tolerances.items()})


def noisy_runs(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """Run the reference on a problem, exactly and with random rounding errors."""
    reference = reference_backend()
    exact = distinct_outputs(reference, problem.in_float64(), inputs)
    deviations = {name: np.zeros(gates(problem.case, name)) for name in exact}
    unit, accumulation, smallest = NOISE[problem.case.dtype], ACCUMULATION[problem.case.dtype], _smallest_normal(problem)
    for run in range(NOISY_RUNS):
        rng = np.random.default_rng([problem.seed, run])
        arithmetic = noisy(reference.Arithmetic, unit, rng, problem.repeats(), accumulation, smallest)
        for name, value in distinct_outputs(WithArithmetic(reference, arithmetic), problem.in_float64(), inputs).items():
            deviations[name] = np.maximum(deviations[name], _largest(value - exact[name], len(deviations[name])) / unit)
    return _expected(problem, exact, deviations)


def closed_form(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """Compute results and tolerances in one run that propagates the variances of errors (``rnnbench.check.propagation``)."""
    exact, deviations = {}, {}
    reference = WithVariances(problem.repeats(), ACCUMULATION[problem.case.dtype], _smallest_normal(problem))
    for name, value in distinct_outputs(reference, problem.in_float64(), inputs).items():
        exact[name] = np.real(value)
        parts = np.split(np.imag(value), gates(problem.case, name))
        deviations[name] = np.array([median_largest(part, NOISY_RUNS) for part in parts])
    return _expected(problem, exact, deviations)


def _expected(problem: Problem, exact: Outputs, deviations: dict[str, np.ndarray]) -> Expected:
    """Turn deviations, in units of the unit roundoff, into tolerances."""
    dtype = problem.case.dtype
    factor = FACTOR * ROUNDINGS[dtype] * UNIT_ROUNDOFF[dtype]
    minimum = max(FLUSHED[dtype], factor * _smallest_normal(problem))
    tolerances = {
        name: np.maximum(factor * np.maximum(d, _largest(exact[name], len(d))), minimum) for name, d in deviations.items()
    }
    return Expected(exact, tolerances, problem.rows())


def _smallest_normal(problem: Problem) -> float:
    """The smallest normal number, scaled to the reference's gradients.

    The reference gets the summed cotangents of all repetitions of a row.  The gradient of one repetition is a fraction of
    the reference's, and underflows that much earlier.
    """
    index, weight = rows = problem.rows()
    used = weight > 0
    return SMALLEST_NORMAL[problem.case.dtype] * float(np.max(rows.totals[index[used]] / weight[used]))


def gate_names(case: Case, name: str) -> tuple[str, ...]:
    """The gates, equal parts of the first axis, in which a tensor is compared; none for tensors without gates."""
    kind = case.spec().kind
    if name.startswith("d weight_ch"):
        return kind.peepholes
    return kind.gates if name.startswith(("d weight_ih", "d weight_hh", "d bias_ih", "d bias_hh")) else ()


def gates(case: Case, name: str) -> int:
    """Number of parts in which a tensor is compared: gates, or 1 for tensors without gates."""
    return len(gate_names(case, name)) or 1


def _largest(array: np.ndarray, parts: int) -> np.ndarray:
    return np.array([np.max(np.abs(part), initial=0) for part in np.split(array, parts)])


def window_cost(problem: Problem) -> dict[str, float]:
    """Relative error of truncated gradients against full BPTT, by parameter and for ``all`` together, in float64."""
    return truncation_error(reference_backend(), problem.in_float64())
