"""Diagnosis of wrong results: hypotheses are tested on the reference until one reproduces what the backend returned."""

from collections.abc import Callable, Iterator
from itertools import combinations, permutations
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding, compared
from rnnbench.check.probe import run_reference
from rnnbench.check.problem import INPUT_CHANGE, Outputs, Prepared, Problem, outputs
from rnnbench.check.tolerance import Expected, gate_names
from rnnbench.networks.params import Params
from rnnbench.suite.inputs import Inputs

Hypothesis = tuple[str, Callable[[], Outputs]]
"""The message of a hypothesis, and a function that returns the reference's results under it."""


def explained(backend: Any, problem: Problem, wanted: Expected, findings: list[Finding]) -> list[Finding]:
    """Set the ``reason`` of failing findings to their diagnosis, if there is one.

    Only comparisons with the reference are diagnosed; tests of promises give their own reasons.
    """
    failing = [f for f in findings if not f.passed and f.promise is None]
    if not failing:
        return findings
    got = outputs(backend, problem)
    reasons = {f.tensor: f.reason for f in failing if f.reason}
    for finding in failing:
        if finding.tensor == INPUT_CHANGE:
            reasons[INPUT_CHANGE] = _changed(backend, problem)
    unexplained = {f.tensor for f in failing if f.error is not None and f.tensor != INPUT_CHANGE}
    if problem.distinct_rows() == problem.case.B and unexplained:
        reasons |= _diagnosed(problem, wanted, got, unexplained)
    return [f._replace(reason=reasons.get(f.tensor, f.reason)) if f in failing else f for f in findings]


def _diagnosed(problem: Problem, wanted: Expected, got: Outputs, names: set[str]) -> dict[str, str]:
    """Return the first hypothesis that reproduces each tensor."""
    reasons: dict[str, str] = {}
    for message, compute in _hypotheses(problem, wanted, got):
        left = names - set(reasons)
        if not left:
            break
        values = compute()
        for name in left & set(values):
            candidate = wanted._replace(values={name: values[name]})
            if values[name].shape == wanted.values[name].shape and _fits(name, got, candidate, wanted, problem.case.dtype):
                reasons[name] = message
    return reasons


def _fits(name: str, got: Outputs, candidate: Expected, wanted: Expected, dtype: str) -> bool:
    """Whether a tensor is within its tolerance of a hypothesis that differs from the correct result."""
    if not np.any(np.abs(candidate.values[name] - wanted.values[name]) > np.max(wanted.tolerances[name])):
        return False
    return all(finding.passed for finding in compared({name: got[name]}, candidate, dtype))


def _hypotheses(problem: Problem, wanted: Expected, got: Outputs) -> Iterator[Hypothesis]:
    case, inputs = problem.case, problem.distinct_inputs()
    states, params, exact = case.spec().kind.states, problem.in_float64().params(), wanted.values

    def run(**changed: Any) -> Callable[[], Outputs]:
        return lambda: run_reference(problem, inputs._replace(**changed))

    def weights(changed: Params) -> Callable[[], Outputs]:
        return lambda: run_reference(problem, params=params | changed)

    def finals() -> Outputs:
        shorter = run_reference(problem, Inputs(inputs.x[:-1], inputs.state, inputs.dy[:-1], inputs.dstate))
        return {name: value for name, value in shorter.items() if name.startswith("final")}

    if case.T > 1:
        yield "is the state one step before the end", finals
    for name, other in ((a, b) for a in states for b in states if a != b):
        yield f"is the final {other}", lambda name=name, other=other: {f"final {name}": exact[f"final {other}"]}
    yield (
        "is the initial state",
        lambda: {f"final {n}": part.astype("float64") for n, part in zip(states, inputs.state, strict=True)},
    )
    for by, message in ((1, "is one step late"), (-1, "is one step early")):
        yield message, lambda by=by: {"y": _with_open_end(np.roll(exact["y"], by, 0), got["y"], by)}
    yield "is reversed in time", lambda: {name: exact[name][::-1] for name in ("y", "dx") if name in exact}
    zeros = tuple(np.zeros_like(part) for part in inputs.state)
    yield "is that of a network that ignores the initial state", run(state=zeros)
    if "dx" in exact:
        yield "is that of dy reversed in time", run(dy=inputs.dy[::-1])
        yield "lacks the contribution of dstate", run(dstate=zeros)
        yield "is that of dstate alone, without dy", run(dy=np.zeros_like(inputs.dy))
        yield "has the rows of dy in another order", run(dy=inputs.dy[:, ::-1])
        for count, of in ((case.B, "the batch"), (case.T, "time"), (case.B * case.T, "batch and time")):
            if count > 1:
                yield f"is the mean over {of}, not the sum", lambda count=count: _gradients(exact, 1 / count)
        yield "is twice the correct value", lambda: _gradients(exact, 2)
        yield "is zero", lambda: _gradients(exact, 0)
        yield "has the other sign", lambda: _gradients(exact, -1)
        yield "is that of the input bias", lambda: _swapped(exact, "bias_ih", "bias_hh")
    for name in params:
        if "bias" in name:
            yield f"is that of a network without {name}", weights({name: np.zeros_like(params[name])})
    count = len(case.spec().kind.gates)
    gates = case.spec().kind.gates
    for order in list(permutations(range(count)))[1:]:
        read = ", ".join(gates[place] for place in order)
        yield (
            f"is correct if gates are read in the order {read}, not {', '.join(gates)}",
            lambda order=order: _in_order(problem, params, order),
        )
    for name, value in params.items():
        if "weight_hh" in name and value.shape[0] == count * value.shape[1]:
            transposed = np.concatenate([gate.T for gate in np.split(value, count)])
            yield f"is that of a network with {name} transposed", weights({name: transposed})
        if "bias" not in name:
            parts = gate_names(case, f"d {name}")
            for a, b in combinations(range(len(parts)), 2):
                yield (
                    f"is that of a network with gates {parts[a]} and {parts[b]} of {name} swapped",
                    weights({name: _gates_swapped(value, len(parts), a, b)}),
                )
    yield "is off by a factor", lambda: _scaled(exact, got, wanted)


def _with_open_end(rolled: np.ndarray, got: np.ndarray, by: int) -> np.ndarray:
    """Copy from ``got`` the end of the sequence that a shift leaves undefined."""
    rolled = rolled.copy()
    end = 0 if by > 0 else -1
    rolled[end] = got[end]
    return rolled


def _gradients(exact: Outputs, factor: float) -> Outputs:
    return {name: value * factor for name, value in exact.items() if name.startswith("d")}


def _swapped(exact: Outputs, a: str, b: str) -> Outputs:
    return {name: exact[name.replace(b, a)] for name in exact if b in name and name.replace(b, a) in exact}


def _gates_swapped(value: np.ndarray, count: int, a: int, b: int) -> np.ndarray:
    gates = np.split(value, count)
    gates[a], gates[b] = gates[b], gates[a]
    return np.concatenate(gates)


def _in_order(problem: Problem, params: Params, order: tuple[int, ...]) -> Outputs:
    """Results of a network that reads the rows of its k-th gate as those of gate ``order[k]``, forward and backward."""

    def gated(name: str) -> bool:
        return name.startswith(("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

    def moved(value: np.ndarray, places: list[int]) -> np.ndarray:
        parts = np.split(value, len(order))
        return np.concatenate([parts[place] for place in places])

    back = [order.index(place) for place in range(len(order))]
    read = {name: moved(value, back) if gated(name) else value for name, value in params.items()}
    found = run_reference(problem, params=read)
    return {
        name: moved(value, list(order)) if name.startswith("d ") and gated(name.removeprefix("d ")) else value
        for name, value in found.items()
    }


def _scaled(exact: Outputs, got: Outputs, wanted: Expected) -> Outputs:
    """Scale each gate, or the whole tensor, by the least-squares factor."""
    found = {}
    for name, value in exact.items():
        if got[name].shape == value.shape:
            parts = zip(
                np.split(value, len(wanted.tolerances[name])), np.split(got[name], len(wanted.tolerances[name])), strict=True
            )
            found[name] = np.concatenate([part * (np.vdot(part, given) / (np.vdot(part, part) or 1)) for part, given in parts])
    return found


def _changed(backend: Any, problem: Problem) -> str:
    """Name the arguments that a call changes."""
    inputs = problem.inputs()
    prepared = Prepared(backend, problem, inputs.map(np.copy), problem.params())
    prepared.call()
    backend.synchronize()
    now = {"x": prepared.x, "state": prepared.state, "dy": prepared.dy, "dstate": prepared.dstate}
    names = [name for name, part in now.items() if _differs(backend, part, getattr(inputs, name))]
    names += [name for name, value in problem.params().items() if not np.array_equal(prepared.params[name], value)]
    return f"{', '.join(names)} changed in place"


def _differs(backend: Any, now: Any, before: Any) -> bool:
    if isinstance(now, tuple):
        return any(_differs(backend, a, b) for a, b in zip(now, before, strict=True))
    return not np.array_equal(np.asarray(backend.to_numpy(now)), before)
