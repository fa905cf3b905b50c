"""Promises that relate two calls: the reference's results of the first determine the results of the second."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from rnnbench.check.comparing import Finding, has_batch_axis
from rnnbench.check.probe import Probe, call_tolerance, compare_calls, compare_with_reference, gradients
from rnnbench.check.problem import Outputs, Problem, named
from rnnbench.check.tolerance import Expected, closed_form
from rnnbench.networks.spec import Spec
from rnnbench.networks.truncation import tbptt
from rnnbench.suite.inputs import Inputs


def batch_permuted(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    order = np.random.default_rng(problem.seed).permutation(problem.case.B)
    got = Probe(backend, problem).step(_rows(problem.inputs(), order))
    back = np.argsort(order)
    got = {name: value[:, back] if has_batch_axis(name) else value for name, value in got.items()}
    return compare_with_reference(got, wanted, problem.case.dtype)


def batch_split(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, probe, cut = problem.inputs(), Probe(backend, problem), 1 + problem.case.B // 3
    first = probe.step(_rows(inputs, slice(0, cut)))
    second = probe.step(_rows(inputs, slice(cut, None)))
    got = {}
    for name, value in first.items():
        joined = np.concatenate([value, second[name]], 1) if has_batch_axis(name) else None
        got[name] = (value.astype("float64") + second[name]).astype(value.dtype) if joined is None else joined
    return compare_with_reference(got, wanted, problem.case.dtype)


def reversed_direction(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The backward direction on x equals the forward direction on x reversed in time."""
    spec, inputs, dtype = problem.case.spec(), problem.inputs(), problem.case.dtype
    both = _bidirectional(spec)
    if backend.supports(both) is not None:
        return []
    params = problem.params()
    probe = Probe(backend, problem, spec=both, params=params | {f"{name}_reverse": value for name, value in params.items()})
    zeros, nothing = tuple(np.zeros_like(part) for part in inputs.state), np.zeros_like(inputs.dy)
    state, dstate = (
        tuple(np.concatenate(pair) for pair in zip(zeros, part, strict=True)) for part in (inputs.state, inputs.dstate)
    )
    dy = np.concatenate([nothing, inputs.dy[::-1]], 2)
    found, tape = probe.record(inputs.x[::-1], state)
    found |= probe.backward(tape, dy, dstate)
    features, states = spec.features, spec.kind.states
    got = {"y": found["y"][::-1, :, features:], "dx": found["dx"][::-1]}
    for name in (f"{kind} {state}" for kind in ("final", "d initial") for state in states):
        got[name] = found[name][1:]
    got |= {f"d {name}": found[f"d {name}_reverse"] for name in params}
    unused = [Finding(f"d {name} of the other direction", float(np.max(np.abs(found[f"d {name}"]))), 0.0) for name in params]
    return compare_with_reference(got, wanted, dtype) + unused


def linear(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Doubling the cotangents doubles the gradients, zero cotangents give zeros, and None means zeros."""
    inputs, probe, dtype = problem.inputs(), Probe(backend, problem), problem.case.dtype

    def of(dy: np.ndarray, dstate: Any) -> Outputs:
        return probe.backward(probe.record(inputs.x, inputs.state)[1], dy, dstate)

    double, zeros = tuple(2 * part for part in inputs.dstate), tuple(0 * part for part in inputs.dstate)
    twice = {name: (value / 2).astype(value.dtype) for name, value in of(2 * inputs.dy, double).items()}
    none = of(0 * inputs.dy, zeros)
    findings = compare_with_reference(twice, wanted, dtype)
    findings += [
        Finding(f"{name} without cotangents", float(np.max(np.abs(value), initial=0)), 0.0) for name, value in none.items()
    ]
    findings += compare_calls(of(inputs.dy, None), of(inputs.dy, zeros), wanted)
    start = tuple(0 * part for part in inputs.state)
    return findings + compare_calls(probe.record(inputs.x, None)[0], probe.record(inputs.x, start)[0], wanted)


def chunked(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, probe, states = problem.inputs(), Probe(backend, problem), problem.case.spec().kind.states
    cuts = sorted({0, 1, max(1, problem.case.T // 2), problem.case.T})
    state, pieces, got = inputs.state, [], {}
    for start, end in pairwise(cuts):
        got = probe.forward(inputs.x[start:end], state)
        pieces.append(got["y"])
        state = tuple(got[f"final {name}"] for name in states)
    return compare_with_reference(got | {"y": np.concatenate(pieces)}, wanted, problem.case.dtype)


def truncated(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Test a window over the whole sequence, windows of one step, and overlapping windows with a remainder.

    The tolerances are the larger of the closed form and those of full BPTT.  The closed form is too small if rounding errors
    grow from step to step; full BPTT covers that case, because no window is longer.
    """
    inputs, case, probe = problem.inputs(), problem.case, Probe(backend, problem)
    states = case.spec().kind.states

    def of(window: int, stride: int) -> Outputs:
        x, dy, state = (probe.to_backend(part) for part in (inputs.x, inputs.dy, inputs.state))
        y, final, grads = tbptt(probe.net, x, dy, window, stride, state)
        return probe.to_numpy(named(case, y, final) | gradients(states, grads))

    whole, tape = probe.record(inputs.x, inputs.state)
    whole |= probe.backward(tape, inputs.dy, None)
    findings = compare_calls(of(case.T, case.T), whole, call_tolerance(backend, wanted))
    overlapping = (max(1, case.T // 2), max(1, case.T // 16))
    for window, stride in {(1, 1), overlapping, (max(1, case.T - 1), max(1, case.T // 2))}:
        shorter = msgspec.structs.replace(case, phase="tbptt", window=window, stride=stride)
        exact = Problem(shorter, problem.scheme, problem.forget_bias, problem.source, problem.text_file, problem.seed)
        own = closed_form(exact)
        tolerances = {name: np.maximum(own.tolerances[name], wanted.tolerances[name]) for name in own.values}
        found = compare_with_reference(of(window, stride), own._replace(tolerances=tolerances), case.dtype)
        findings += [f._replace(reason=f"with window {window} and stride {stride}") if not f.passed else f for f in found]
    return findings


def causal(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, probe, cut = problem.inputs(), Probe(backend, problem), problem.case.T // 2
    later = inputs.x.copy()
    later[cut:] = -later[cut:] + 1
    findings = []
    for call in (probe.forward, lambda x, state: probe.record(x, state)[0]):
        before, after = call(inputs.x, inputs.state)["y"][:cut], call(later, inputs.state)["y"][:cut]
        findings += compare_calls({"y": after}, {"y": before}, call_tolerance(backend, wanted))
    return findings


def units_permuted(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Permuting the hidden units changes nothing but their order."""
    case, inputs, feeds_back = problem.case, problem.inputs(), problem.case.spec().kind.feeds_back_output
    order = np.random.default_rng(problem.seed).permutation(case.H)
    back, none = np.argsort(order), np.arange(inputs.dy.shape[2])
    outward = none if feeds_back else order  # the permutation of y and of the state that the recurrence reads
    params = {name: _permuted(name, value, order, outward) for name, value in problem.params().items()}
    moved = Inputs(
        inputs.x,
        _permuted_state(inputs.state, outward, order),
        inputs.dy[..., outward],
        _permuted_state(inputs.dstate, outward, order),
    )
    found = Probe(backend, problem, params=params).step(moved)
    inward = none if feeds_back else back
    got = {}
    for name, value in found.items():
        if name.startswith(("d weight", "d bias", "d gain")):
            got[name] = _permuted(name.removeprefix("d "), value, back, inward)
        else:
            of_units = name in ("final c", "d initial c")
            got[name] = value if name == "dx" else value[..., back if of_units else inward]
    return compare_with_reference(got, wanted, case.dtype)


def _permuted_state(state: tuple[np.ndarray, ...], outward: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, ...]:
    """Permute the recurrent part of a state, and the units of its other parts."""
    return tuple(part[..., order if place else outward] for place, part in enumerate(state))


def _permuted(name: str, value: np.ndarray, order: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """Permute the hidden units of a parameter of a single layer."""
    if name.startswith("bias_ho"):
        return value
    if name.startswith(("weight_ho", "weight_hr")):
        return value[:, order]
    gates = np.concatenate([part[order] for part in np.split(value, len(value) // len(order))])
    return gates[:, outward] if name.startswith("weight_hh") else gates


def _rows(inputs: Inputs, rows: Any) -> Inputs:
    return inputs.map(lambda array: array[:, rows])


def _bidirectional(spec: Spec) -> Spec:
    return Spec(
        spec.cell, spec.input_size, spec.hidden_size, bidirectional=True, nonlinearity=spec.nonlinearity, bias=spec.bias,
        output_size=spec.output_size, projection_size=spec.projection_size, dtype=spec.dtype,
    )  # fmt: skip
