"""Promises about calls on one network: calls repeat, do not affect each other, and refuse invalid arguments."""

import os
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Probe, call_tolerance, compare_calls, compare_with_reference, run_reference
from rnnbench.check.problem import Outputs, Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.networks.params import Params, init_params
from rnnbench.suite.inputs import Inputs


def second_call(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    probe, inputs = Probe(backend, problem), problem.inputs()
    first = probe.step(inputs)
    findings = compare_with_reference(first, wanted, problem.case.dtype)
    for _ in range(3):
        findings += compare_calls(probe.step(inputs), first, call_tolerance(backend, wanted))
    probe.step(_other(inputs))
    return findings + compare_calls(probe.step(inputs), first, call_tolerance(backend, wanted))


def inference(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, probe = problem.inputs(), Probe(backend, problem)
    findings = compare_with_reference(probe.forward(inputs.x, inputs.state), wanted, problem.case.dtype)
    probe.record(inputs.x, inputs.state)
    return findings + compare_with_reference(probe.forward(inputs.x, inputs.state), wanted, problem.case.dtype)


def two_tapes(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, findings = problem.inputs(), []
    other = _other(inputs)
    stale = None
    for recorded_last, used_first in ((False, True), (True, True), (True, False)):
        probe = Probe(backend, problem)
        tapes = {}
        for name in ("other", "mine") if recorded_last else ("mine", "other"):
            given = inputs if name == "mine" else other
            tapes[name] = probe.record(given.x, given.state)[1]
        if not used_first:
            probe.backward(tapes["other"], other.dy, other.dstate)
        got = probe.backward(tapes["mine"], inputs.dy, inputs.dstate)
        found = compare_with_reference(got, wanted, problem.case.dtype)
        if not all(finding.passed for finding in found):
            stale = stale or _fresh_gradients(backend, problem, other, inputs)
            if all(finding.passed for finding in compare_calls(got, stale, wanted)):
                found = [finding._replace(reason="is the gradient of another tape: a stale tape was used") for finding in found]
        findings += found
    return findings


def _fresh_gradients(backend: Any, problem: Problem, recorded: Inputs, cotangents: Inputs) -> Outputs:
    probe = Probe(backend, problem)
    return probe.backward(probe.record(recorded.x, recorded.state)[1], cotangents.dy, cotangents.dstate)


def results_kept(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, probe, case = problem.inputs(), Probe(backend, problem), problem.case
    other = _other(inputs)
    inferred = named(case, *probe.net.forward(probe.to_backend(inputs.x), probe.to_backend(inputs.state)))
    y, final, tape = probe.net.record(probe.to_backend(inputs.x), probe.to_backend(inputs.state))
    grads = probe.net.backward(tape, probe.to_backend(inputs.dy), probe.to_backend(inputs.dstate))
    probe.step(other)
    probe.forward(other.x, other.state)
    return compare_with_reference(probe.to_numpy(inferred), wanted, case.dtype) + compare_with_reference(
        probe.to_numpy(named(case, y, final, grads)), wanted, case.dtype
    )


def results_lent(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Overwrite y, the final and the initial state before ``backward``."""
    inputs, probe = problem.inputs(), Probe(backend, problem)
    state = probe.to_backend(inputs.state)
    y, final, tape = probe.net.record(probe.to_backend(inputs.x), state)
    try:
        for array in (y, *final, *state):
            array[...] = float("nan")
        got = probe.backward(tape, inputs.dy, inputs.dstate)
    except Exception:  # read-only arrays, or a library that detects the change: neither gives wrong gradients
        return [Finding("y and the states", 0.0, 0.0)]
    return compare_with_reference(got, wanted, problem.case.dtype)


def update(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """All weights are replaced; tapes keep the weights they were recorded with; the caller's arrays are copied."""
    inputs, case, new = problem.inputs(), problem.case, problem.params()
    old = init_params(case.spec(), problem.seed + 1, problem.scheme, problem.forget_bias)
    old = {name: value + value.dtype.type(0.25 if "bias" in name else 0) for name, value in old.items()}
    probe = Probe(backend, problem, params={name: value.copy() for name, value in old.items()})
    probe.step(inputs)
    given = {name: value.copy() for name, value in new.items()}
    probe.net.update(given)
    for value in given.values():
        value[...] = 0
    for value in probe.net.params().values():
        value[...] = 0
    after = compare_with_reference(probe.step(inputs), wanted, case.dtype)
    if not all(finding.passed for finding in after):
        after = _with_stale_names(after, probe, problem, wanted, new, old)
    current = probe.net.params()
    after += [_param_finding(name, current.get(name), new[name], old[name]) for name in new]
    _, tape = probe.record(inputs.x, inputs.state)
    probe.net.update(old)
    probe.forward(inputs.x, inputs.state)
    return after + compare_with_reference(probe.backward(tape, inputs.dy, inputs.dstate), wanted, case.dtype)


def _param_finding(name: str, got: np.ndarray | None, new: np.ndarray, old: np.ndarray) -> Finding:
    if got is not None and np.array_equal(got, new):
        return Finding(f"params() {name}", 0.0, 0.0)
    stale = got is not None and np.array_equal(got, old)
    return Finding(f"params() {name}", None, 0.0, f"update() kept the old {name}" if stale else "is not what update() got")


def _with_stale_names(
    findings: list[Finding], probe: Probe, problem: Problem, wanted: Expected, new: Params, old: Params
) -> list[Finding]:
    """Name the parameters that kept their old values, if that explains the results."""
    inputs = problem.inputs()
    got = probe.step(inputs)
    biases = [name for name in new if "bias" in name]
    weights = [name for name in new if "weight" in name]
    guesses = [[name] for name in new] + [
        [n for n in names if key in n] for names in (biases, weights) for key in ("ih", "hh", "")
    ]
    first = [name for name in new if "_l0" in name]
    for names in [*guesses, first, [name for name in new if name not in first], list(new)]:
        if not names:
            continue
        values = run_reference(problem, params={name: (old if name in names else new)[name] for name in new})
        if all(finding.passed for finding in compare_with_reference(got, wanted._replace(values=values), problem.case.dtype)):
            reason = f"update() kept the old {', '.join(names)}"
            return [finding if finding.passed else finding._replace(reason=reason) for finding in findings]
    return findings


def many_shapes(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    probe, inputs = Probe(backend, problem), problem.inputs()
    findings = []
    for repeat, steps in ((2, 2), (1, 1)):
        larger = _tiled(_other(inputs), repeat)
        probe.step(Inputs(larger.x[:1], larger.state, larger.dy[:1], larger.dstate))
        long = Inputs(np.concatenate([larger.x] * steps), larger.state, np.concatenate([larger.dy] * steps), larger.dstate)
        probe.step(long)
        findings += compare_with_reference(probe.step(inputs), wanted, problem.case.dtype)
        probe.step(inputs.map(lambda array: array[:, :1]))
        findings += compare_with_reference(probe.step(inputs), wanted, problem.case.dtype)
    return findings


def threads(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, findings = problem.inputs(), []
    for count in range(1, min(2, os.cpu_count() or 1) + 1):
        findings += compare_with_reference(Probe(backend, problem, threads=count).step(inputs), wanted, problem.case.dtype)
    return findings


def shared_arrays(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """dy may be y itself; the final state of one call may be the initial state of the next, which does not change it."""
    inputs, probe = problem.inputs(), Probe(backend, problem)
    x, state = probe.to_backend(inputs.x), probe.to_backend(inputs.state)
    y, final, tape = probe.net.record(x, state)
    before = probe.to_numpy({"y": y, "final": final[0]})
    got = probe.to_numpy(named(problem.case, y, final, probe.net.backward(tape, y, final)))
    unshared = Probe(backend, problem)
    fresh, tape = unshared.record(inputs.x, inputs.state)
    finals = tuple(fresh[f"final {name}"] for name in problem.case.spec().kind.states)
    fresh |= unshared.backward(tape, fresh["y"], finals)
    probe.net.record(x, final)
    after = probe.to_numpy({"y": y, "final": final[0]})
    return compare_calls(got, fresh, call_tolerance(backend, wanted)) + compare_calls(after, before)


def other_contents(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Refill an array in place, if it is writable, and call again: nothing may be cached by the identity of an array."""
    inputs, probe = problem.inputs(), Probe(backend, problem)
    x, state, dy, dstate = (probe.to_backend(part) for part in inputs)
    y, final, tape = probe.net.record(x, state)
    first = probe.to_numpy(named(problem.case, y, final, probe.net.backward(tape, dy, dstate)))
    held = backend.to_numpy(x)
    if not (isinstance(held, np.ndarray) and held.flags.writeable):
        return compare_with_reference(first, wanted, problem.case.dtype)
    held[...] = -held
    changed = np.array(backend.to_numpy(x))  # unchanged if to_numpy returned a copy
    y, final, tape = probe.net.record(x, state)
    got = probe.to_numpy(named(problem.case, y, final, probe.net.backward(tape, dy, dstate)))
    fresh = Probe(backend, problem).step(inputs._replace(x=changed))
    return compare_calls(got, fresh, call_tolerance(backend, wanted))


def refusals(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs = problem.inputs()
    probe, stranger = Probe(backend, problem), Probe(backend, problem)
    net, to_backend = probe.net, probe.to_backend
    x, state, dy, dstate = (to_backend(part) for part in inputs)
    wrong_dtype = "float64" if problem.case.dtype == "float32" else "float32"
    _, _, used = net.record(x, state)
    net.backward(used, dy, dstate)
    _, _, tape = net.record(x, state)
    _, _, foreign = stranger.net.record(x, state)
    wider = np.concatenate([inputs.x] * 2, 2)
    params = problem.params()
    first = next(iter(params))
    wrong = {
        "x with two axes": lambda: net.forward(to_backend(inputs.x[0]), state),
        "x with another input size": lambda: net.forward(to_backend(wider), state),
        "x with another dtype": lambda: net.record(to_backend(inputs.x.astype(wrong_dtype)), state),
        "a state with another batch size": lambda: net.forward(
            x, to_backend(tuple(np.concatenate([s] * 2, 1) for s in inputs.state))
        ),
        "dy with another length": lambda: net.backward(tape, to_backend(np.concatenate([inputs.dy] * 2)), dstate),
        "a used tape": lambda: net.backward(used, dy, dstate),
        "a tape of another network": lambda: net.backward(foreign, dy, dstate),
        "update() without a parameter": lambda: net.update(dict(list(params.items())[1:])),
        "update() with a flattened weight": lambda: net.update(params | {first: params[first].ravel()}),
    }
    return [Finding(name, *refused(call)) for name, call in wrong.items()]


def refused(call: Any) -> tuple[float | None, float, str | None]:
    """The rest of a finding about a call that has to fail."""
    try:
        call()
    except Exception:  # the contract allows any exception
        return 0.0, 0.0, None
    return None, 0.0, "was accepted without an error"


def _other(inputs: Inputs) -> Inputs:
    """Other inputs of the same shapes."""
    return inputs.map(lambda array: -array[..., ::-1])


def _tiled(inputs: Inputs, count: int) -> Inputs:
    """Repeat the rows of a batch."""
    return inputs.map(lambda array: np.concatenate([array] * count, 1))
