"""Promises about unusual inputs: memory layouts, NaN, saturation, subnormal numbers, zero steps and empty sequences."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding, has_batch_axis
from rnnbench.check.probe import Probe, compare_with_reference, in_float64
from rnnbench.check.problem import Problem, named
from rnnbench.check.tolerance import Expected, expected
from rnnbench.networks.bfloat16 import finfo
from rnnbench.suite.inputs import Inputs


def layouts(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Strided, Fortran-ordered, reversed and read-only arrays give the same results after ``asarray``."""
    inputs, case, findings = problem.inputs(), problem.case, []
    for name, lay in _LAYOUTS.items():
        probe = Probe(backend, problem)
        x, state, dy, dstate = inputs.map(lambda array, lay=lay: backend.asarray(lay(array)))
        y, final, tape = probe.net.record(x, state)
        got = probe.to_numpy(named(case, y, final, probe.net.backward(tape, dy, dstate)))
        inferred = probe.to_numpy(named(case, *probe.net.forward(x, state)))
        found = compare_with_reference(got, wanted, case.dtype) + compare_with_reference(inferred, wanted, case.dtype)
        findings += [f if f.passed else f._replace(reason=f.reason or f"with {name} arrays") for f in found]
    return findings


def _strided(array: np.ndarray) -> np.ndarray:
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
    wide[..., ::2] = array
    return wide[..., ::2]


def _reversed(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[::-1, ::-1])[::-1, ::-1]


def _read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


_LAYOUTS = {
    "strided": _strided,
    "Fortran-ordered": np.asfortranarray,
    "negatively strided": _reversed,
    "read-only": _read_only,
}


def not_a_number(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """A NaN in one row of the batch makes that row NaN from its step on, and does not affect the other rows."""
    inputs, case = problem.inputs(), problem.case
    row, step = case.B - 1, case.T // 2
    inputs.x[step, row] = np.nan
    with np.errstate(invalid="ignore"):
        got = Probe(backend, problem).step(inputs)
        inferred = Probe(backend, problem).forward(inputs.x, inputs.state)
    others = np.arange(case.B) != row
    numbers = {name: float(np.mean(~np.isnan(got[name]))) for name in got if name.startswith("d weight_ih_l0")}
    lost = "is not NaN everywhere although x has NaN"
    findings = [Finding(name, share, 0.0, lost if share else None) for name, share in numbers.items()]
    for outputs in (got, inferred):
        share = float(np.mean(~np.isnan(outputs["y"][step, row])))
        findings.append(Finding("y of a row with NaN", share, 0.0, "is not NaN everywhere" if share else None))
        for name in filter(has_batch_axis, outputs):
            findings += [_row(name, outputs[name], b, wanted) for b in np.flatnonzero(others).tolist()]
    return findings


def _row(name: str, got: np.ndarray, row: int, wanted: Expected) -> Finding:
    """Compare one row of the batch with the distinct row that it repeats."""
    index, weight = wanted.rows.index[row], wanted.rows.weight[row]
    factor = weight / wanted.rows.totals[index] if name.startswith("d") else 1.0
    error = float(np.max(np.abs(got[:, row].astype("float64") - wanted.values[name][:, index] * factor), initial=0))
    finite = bool(np.isfinite(error))
    tolerance = float(np.max(wanted.tolerances[name]) * factor)
    return Finding(name, error if finite else None, tolerance, None if finite else "is not finite in a row without NaN")


INPUT_SCALE = {"float32": 1e6, "float64": 1e6, "bfloat16": 1e6, "float16": 2.0**8}
"""Factor of the inputs that saturates the gates, by dtype.

Not all cotangents vanish, so gradients of weights are sums of products with these inputs; in float16 they must stay below
65504.
"""

COTANGENT_SCALE = {"float32": 2.0**20, "float64": 2.0**20, "bfloat16": 2.0**20, "float16": 2.0**4}
"""Factor of the cotangents for subnormal inputs, by dtype; in float16 sums of the cotangents must stay below 65504."""


def saturated(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Inputs that saturate every gate give finite results, and no activation exceeds its bounds."""
    inputs = problem.inputs()
    large = Inputs(inputs.x * inputs.x.dtype.type(INPUT_SCALE[problem.case.dtype]), inputs.state, inputs.dy, inputs.dstate)
    probe = Probe(backend, problem)
    got = probe.step(large) | {"y of forward": probe.forward(large.x, large.state)["y"]}
    findings = []
    for name, value in got.items():
        wrong = float(np.mean(~np.isfinite(value)))
        findings.append(Finding(name, wrong, 0.0, "is not finite everywhere" if wrong else None))
    bound = max(1.0, *(float(np.max(np.abs(part))) for part in inputs.state))
    excess = max(0.0, float(np.max(np.abs(np.nan_to_num(got["y"])), initial=0)) - bound)
    eps = float(finfo(inputs.x.dtype).eps)
    rounding = 4 * problem.case.T * bound * eps  # no cell rounds a value more than four times per step
    return [*findings, Finding("largest y", excess, rounding)]


def subnormal(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Inputs and states below the smallest normal number are computed like any others.

    Weights are drawn by the default scheme: its biases hide the low precision of subnormal numbers.  Cotangents are large,
    so that the inputs' contributions to gradients are not subnormal.
    """
    inputs = problem.distinct_inputs()
    largest = max(1.0, *(float(np.max(np.abs(part), initial=0)) for part in (inputs.x, *inputs.state)))
    tiny = float(finfo(inputs.x.dtype).tiny)

    def small(inputs: Inputs) -> Inputs:
        shrunk = inputs.map(lambda array: (array / largest * tiny).astype(array.dtype))
        grown = inputs.map(lambda array: array * array.dtype.type(COTANGENT_SCALE[problem.case.dtype]))
        return Inputs(shrunk.x, shrunk.state, grown.dy, grown.dstate)

    return _on_changed(backend, replace(problem, scheme="torch-default", forget_bias=0.0), small)


def zero_steps(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Zeros in x are ordinary input; they do not mark the end of a sequence, or a gap."""

    def with_zeros(inputs: Inputs) -> Inputs:
        x = inputs.x.copy()
        x[1::2] = 0
        x[-1] = 0
        return inputs._replace(x=x)

    return _on_changed(backend, problem, with_zeros)


def _on_changed(backend: Any, problem: Problem, change: Callable[[Inputs], Inputs]) -> list[Finding]:
    got = Probe(backend, problem).step(change(problem.inputs()))
    return compare_with_reference(got, expected(problem, in_float64(change(problem.distinct_inputs()))), problem.case.dtype)


def empty(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Without steps, y is empty, the state is unchanged, its cotangent is passed on, and weight gradients are zero."""
    inputs, case, probe = problem.inputs(), problem.case, Probe(backend, problem)
    nothing = Inputs(inputs.x[:0], inputs.state, inputs.dy[:0], inputs.dstate)
    got, findings = probe.step(nothing), []
    inferred = probe.forward(nothing.x, nothing.state)
    shapes = {"y": nothing.dy.shape, "dx": nothing.x.shape}
    for place, name in enumerate(case.spec().kind.states):
        finals = [outputs[f"final {name}"] for outputs in (got, inferred)]
        findings += [_equal(f"final {name}", final, inputs.state[place]) for final in finals]
        findings.append(_equal(f"d initial {name}", got[f"d initial {name}"], inputs.dstate[place]))
    findings += [_equal(name, got[name], np.zeros(shape, inputs.x.dtype)) for name, shape in shapes.items()]
    return findings + [_equal(f"d {n}", got[f"d {n}"], np.zeros(v.shape, v.dtype)) for n, v in problem.params().items()]


def _equal(name: str, got: np.ndarray, wanted: np.ndarray) -> Finding:
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return Finding(name, None, 0.0, f"is {got.dtype} {got.shape}; expected {wanted.dtype} {wanted.shape}")
    error = float(np.max(np.abs(got - wanted), initial=0))
    return Finding(name, error if np.isfinite(error) else None, 0.0, None if np.isfinite(error) else "is not finite")
