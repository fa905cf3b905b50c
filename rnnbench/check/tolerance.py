"""What a right implementation may deviate: the float64 reference, run again with the noise of the target's rounding.

Every operation that rounds gets a relative error of the target's unit roundoff u times a standard normal number: a
product the noise u (|v| |w| + |bias|), an activation 2u, an elementwise result and an addition u, a sum of n rows, which
may be taken one after the other, u sqrt(n/3).  The largest deviation of M such runs from the exact one, times four, is the
tolerance of a tensor; a deviation of u times the largest element is allowed in any case, because every result is rounded
when it is stored, and one of the smallest normal number, below which numbers have fewer digits.  The tolerance carries
sequence length, sizes and conditioning by itself; no number in it was chosen to make a check pass.

In bfloat16 and float16 the sums within a product are taken in float32, and the result is rounded to the dtype; so are sums
over the rows of one time step, whose totals are then added step after step.

float16 ends at 65504, and its smallest normal number is 2^-14, not far from what gradients are.  Below that its numbers lie
2^-24 apart: every result gets an absolute error of half of it besides, u 2^-14, which is carried along like all others, and
no more is allowed to small numbers, for no processor takes float16's for zero unless it is told to.  What vanishes below
2^-25 is right as a zero.  A value beyond 65504 is infinite and fails: no such case can be computed in float16.

For a float64 target the reference rounds as much as what it is compared with, so twice the tolerance holds there.
"""

from typing import NamedTuple

import ml_dtypes
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
"""The unit roundoff of sums within a product, in units of the target's."""

SMALLEST = {"float32": 0.0, "float64": 0.0, "bfloat16": 0.0, "float16": 2.0**-14}
"""The normal number below which roundings are absolute; 0 where no value of a network that is not 0 comes near it."""

FLUSHED = {name: float(ml_dtypes.finfo(name).tiny) for name in ("float32", "float64", "bfloat16")} | {"float16": 0.0}
"""What is smaller may be taken for zero."""

NOISE = UNIT_ROUNDOFF | {"float64": 2.0**-40}
"""The noise's unit: the target's, or one that stands clear of the reference's own rounding and is small enough that
deviations are proportional to it, in a network that amplifies them too."""

ROUNDINGS = {"float32": 1, "float64": 2, "bfloat16": 1, "float16": 1}
"""The target's alone, or the reference's as well."""


class Expected(NamedTuple):
    """The reference's outputs in float64, the tolerances of each, and how the batch repeats the rows that they are of.

    A tensor whose first axis holds gates has one tolerance per gate, any other has one: equal parts of the first axis.
    """

    values: Outputs
    tolerances: dict[str, np.ndarray]
    rows: Rows


def expected(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """What the reference gives, and the larger of the tolerances by noisy runs and in closed form.

    The runs know of errors that grow from step to step, and the closed form of bad luck: all draws of a single element
    may be small.  ``inputs`` in float64 replace those of the distinct rows.
    """
    runs, form = noisy_runs(problem, inputs), closed_form(problem, inputs)
    return runs._replace(tolerances={name: np.maximum(form.tolerances[name], t) for name, t in runs.tolerances.items()})


def noisy_runs(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """Run the reference on a problem, exactly and with noise."""
    reference = reference_backend()
    exact = distinct_outputs(reference, problem.in_float64(), inputs)
    deviations = {name: np.zeros(gates(problem.case, name)) for name in exact}
    unit, finer, smallest = NOISE[problem.case.dtype], ACCUMULATION[problem.case.dtype], _smallest(problem)
    for run in range(NOISY_RUNS):
        rng = np.random.default_rng([problem.seed, run])
        arithmetic = noisy(reference.Arithmetic, unit, rng, problem.repeats(), finer, smallest)
        for name, value in distinct_outputs(WithArithmetic(reference, arithmetic), problem.in_float64(), inputs).items():
            deviations[name] = np.maximum(deviations[name], _largest(value - exact[name], len(deviations[name])) / unit)
    return _expected(problem, exact, deviations)


def closed_form(problem: Problem, inputs: Inputs | None = None) -> Expected:
    """The same from one run that carries the variance of every value's error along (``rnnbench.check.propagation``)."""
    exact, deviations = {}, {}
    reference = WithVariances(problem.repeats(), ACCUMULATION[problem.case.dtype], _smallest(problem))
    for name, value in distinct_outputs(reference, problem.in_float64(), inputs).items():
        exact[name] = np.real(value)
        parts = np.split(np.imag(value), gates(problem.case, name))
        deviations[name] = np.array([median_largest(part, NOISY_RUNS) for part in parts])
    return _expected(problem, exact, deviations)


def _expected(problem: Problem, exact: Outputs, deviations: dict[str, np.ndarray]) -> Expected:
    """``deviations`` are in units of the unit roundoff."""
    dtype = problem.case.dtype
    factor = FACTOR * ROUNDINGS[dtype] * UNIT_ROUNDOFF[dtype]
    least = max(FLUSHED[dtype], factor * _smallest(problem))
    tolerances = {
        name: np.maximum(factor * np.maximum(d, _largest(exact[name], len(d))), least) for name, d in deviations.items()
    }
    return Expected(exact, tolerances, problem.rows())


def _smallest(problem: Problem) -> float:
    """As it is beside the cotangents of a distinct row, which are those of all its repetitions: of these a gradient is a
    part, and underflows so much sooner."""
    index, weight = rows = problem.rows()
    used = weight > 0
    return SMALLEST[problem.case.dtype] * float(np.max(rows.totals[index[used]] / weight[used]))


def gates(case: Case, name: str) -> int:
    """Into how many equal parts of its first axis, a gate each, a tensor is compared; the output's weights have no gates."""
    weights = name.startswith(("d weight_", "d bias_")) and not name.startswith(("d weight_ho", "d bias_ho"))
    return len(case.spec().kind.gates) if weights else 1


def _largest(array: np.ndarray, parts: int) -> np.ndarray:
    return np.array([np.max(np.abs(part), initial=0) for part in np.split(array, parts)])


def window_cost(problem: Problem) -> dict[str, float]:
    """Relative error of the truncated gradients against full BPTT, by tensor and for ``all`` parameters, in float64."""
    return truncation_error(reference_backend(), problem.in_float64())
