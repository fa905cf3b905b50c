"""Promises that relate calls to each other: what the reference gave for the one says what the other must give."""

from itertools import pairwise
from typing import Any

import msgspec
import numpy as np

from rnnbench.check.comparing import Finding, has_batch_axis
from rnnbench.check.probe import Caller, closeness, gradients, matched, same
from rnnbench.check.problem import Outputs, Problem, named
from rnnbench.check.tolerance import Expected, closed_form
from rnnbench.networks.spec import Spec
from rnnbench.networks.truncation import tbptt
from rnnbench.suite.inputs import Inputs


def batch_permuted(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    order = np.random.default_rng(problem.seed).permutation(problem.case.B)
    got = Caller(backend, problem).step(_rows(problem.inputs(), order))
    back = np.argsort(order)
    got = {name: value[:, back] if has_batch_axis(name) else value for name, value in got.items()}
    return matched(got, wanted, problem.case.dtype)


def batch_split(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, caller, cut = problem.inputs(), Caller(backend, problem), 1 + problem.case.B // 3
    first = caller.step(_rows(inputs, slice(0, cut)))
    second = caller.step(_rows(inputs, slice(cut, None)))
    got = {}
    for name, value in first.items():
        joined = np.concatenate([value, second[name]], 1) if has_batch_axis(name) else None
        got[name] = (value.astype("float64") + second[name]).astype(value.dtype) if joined is None else joined
    return matched(got, wanted, problem.case.dtype)


def reversed_direction(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The backward direction on x is the forward one on x reversed in time."""
    spec, inputs, dtype = problem.case.spec(), problem.inputs(), problem.case.dtype
    both = _bidirectional(spec)
    if backend.supports(both) is not None:
        return []
    params = problem.params()
    caller = Caller(backend, problem, spec=both, params=params | {f"{name}_reverse": value for name, value in params.items()})
    zeros, nothing = tuple(np.zeros_like(part) for part in inputs.state), np.zeros_like(inputs.dy)
    state, dstate = (
        tuple(np.concatenate(pair) for pair in zip(zeros, part, strict=True)) for part in (inputs.state, inputs.dstate)
    )
    dy = np.concatenate([nothing, inputs.dy[::-1]], 2)
    found, tape = caller.record(inputs.x[::-1], state)
    found |= caller.backward(tape, dy, dstate)
    features, states = spec.features, spec.kind.states
    got = {"y": found["y"][::-1, :, features:], "dx": found["dx"][::-1]}
    for name in (f"{kind} {state}" for kind in ("final", "d initial") for state in states):
        got[name] = found[name][1:]
    got |= {f"d {name}": found[f"d {name}_reverse"] for name in params}
    unused = [Finding(f"d {name} of the other direction", float(np.max(np.abs(found[f"d {name}"]))), 0.0) for name in params]
    return matched(got, wanted, dtype) + unused


def linear(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Twice the cotangents give twice the gradients, none give zeros, and None stands for zeros."""
    inputs, caller, dtype = problem.inputs(), Caller(backend, problem), problem.case.dtype

    def of(dy: np.ndarray, dstate: Any) -> Outputs:
        return caller.backward(caller.record(inputs.x, inputs.state)[1], dy, dstate)

    double, zeros = tuple(2 * part for part in inputs.dstate), tuple(0 * part for part in inputs.dstate)
    twice = {name: (value / 2).astype(value.dtype) for name, value in of(2 * inputs.dy, double).items()}
    none = of(0 * inputs.dy, zeros)
    findings = matched(twice, wanted, dtype)
    findings += [
        Finding(f"{name} without cotangents", float(np.max(np.abs(value), initial=0)), 0.0) for name, value in none.items()
    ]
    findings += same(of(inputs.dy, None), of(inputs.dy, zeros), wanted)
    start = tuple(0 * part for part in inputs.state)
    return findings + same(caller.record(inputs.x, None)[0], caller.record(inputs.x, start)[0], wanted)


def chunked(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, caller, states = problem.inputs(), Caller(backend, problem), problem.case.spec().kind.states
    cuts = sorted({0, 1, max(1, problem.case.T // 2), problem.case.T})
    state, pieces, got = inputs.state, [], {}
    for start, end in pairwise(cuts):
        got = caller.forward(inputs.x[start:end], state)
        pieces.append(got["y"])
        state = tuple(got[f"final {name}"] for name in states)
    return matched(got | {"y": np.concatenate(pieces)}, wanted, problem.case.dtype)


def truncated(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Windows of the whole sequence, of one step, and of several that overlap and leave a rest.

    The closed form makes the tolerances, and where rounding errors grow from step to step, for which it falls short, those
    of full BPTT: no window is longer.
    """
    inputs, case, caller = problem.inputs(), problem.case, Caller(backend, problem)
    states = case.spec().kind.states

    def of(window: int, stride: int) -> Outputs:
        x, dy, state = (caller.lent(part) for part in (inputs.x, inputs.dy, inputs.state))
        y, final, grads = tbptt(caller.net, x, dy, window, stride, state)
        return caller.read(named(case, y, final) | gradients(states, grads))

    whole, tape = caller.record(inputs.x, inputs.state)
    whole |= caller.backward(tape, inputs.dy, None)
    findings = same(of(case.T, case.T), whole, closeness(backend, wanted))
    overlapping = (max(1, case.T // 2), max(1, case.T // 16))
    for window, stride in {(1, 1), overlapping, (max(1, case.T - 1), max(1, case.T // 2))}:
        shorter = msgspec.structs.replace(case, phase="tbptt", window=window, stride=stride)
        exact = Problem(shorter, problem.scheme, problem.forget_bias, problem.source, problem.text_file, problem.seed)
        own = closed_form(exact)
        tolerances = {name: np.maximum(own.tolerances[name], wanted.tolerances[name]) for name in own.values}
        found = matched(of(window, stride), own._replace(tolerances=tolerances), case.dtype)
        findings += [f._replace(reason=f"with window {window} and stride {stride}") if not f.passed else f for f in found]
    return findings


def causal(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, caller, cut = problem.inputs(), Caller(backend, problem), problem.case.T // 2
    later = inputs.x.copy()
    later[cut:] = -later[cut:] + 1
    findings = []
    for call in (caller.forward, lambda x, state: caller.record(x, state)[0]):
        before, after = call(inputs.x, inputs.state)["y"][:cut], call(later, inputs.state)["y"][:cut]
        findings += same({"y": after}, {"y": before}, closeness(backend, wanted))
    return findings


def units_permuted(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Hidden units have no order of their own."""
    case, inputs, jordan = problem.case, problem.inputs(), problem.case.spec().kind.feeds_back_output
    order = np.random.default_rng(problem.seed).permutation(case.H)
    back, none = np.argsort(order), np.arange(inputs.dy.shape[2])
    outward = none if jordan else order  # what y and the state are permuted by
    params = {name: _permuted(name, value, order, outward) for name, value in problem.params().items()}
    moved = Inputs(
        inputs.x,
        tuple(s[..., outward] for s in inputs.state),
        inputs.dy[..., outward],
        tuple(s[..., outward] for s in inputs.dstate),
    )
    found = Caller(backend, problem, params=params).step(moved)
    inward = none if jordan else back
    got = {}
    for name, value in found.items():
        if name.startswith(("d weight", "d bias")):
            got[name] = _permuted(name.removeprefix("d "), value, back, inward)
        else:
            got[name] = value if name == "dx" else value[..., inward]
    return matched(got, wanted, case.dtype)


def _permuted(name: str, value: np.ndarray, order: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """A parameter of a single layer with its hidden units in another order."""
    if name.startswith("bias_ho"):
        return value
    if name.startswith("weight_ho"):
        return value[:, order]
    gates = np.concatenate([part[order] for part in np.split(value, len(value) // len(order))])
    return gates[:, outward] if name.startswith("weight_hh") else gates


def _rows(inputs: Inputs, rows: Any) -> Inputs:
    return inputs.map(lambda array: array[:, rows])


def _bidirectional(spec: Spec) -> Spec:
    return Spec(
        spec.cell, spec.input_size, spec.hidden_size, bidirectional=True, nonlinearity=spec.nonlinearity, bias=spec.bias,
        output_size=spec.output_size, dtype=spec.dtype,
    )  # fmt: skip
