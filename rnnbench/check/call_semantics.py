"""Promises about calls on one network: that they repeat, do not disturb each other, and refuse what they cannot take."""

import os
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Caller, closeness, matched, reference_with, same
from rnnbench.check.problem import Outputs, Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.networks.params import Params, init_params
from rnnbench.suite.inputs import Inputs


def second_call(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    caller, inputs = Caller(backend, problem), problem.inputs()
    first = caller.step(inputs)
    findings = matched(first, wanted, problem.case.dtype)
    for _ in range(3):
        findings += same(caller.step(inputs), first, closeness(backend, wanted))
    caller.step(_other(inputs))
    return findings + same(caller.step(inputs), first, closeness(backend, wanted))


def inference(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, caller = problem.inputs(), Caller(backend, problem)
    findings = matched(caller.forward(inputs.x, inputs.state), wanted, problem.case.dtype)
    caller.record(inputs.x, inputs.state)
    return findings + matched(caller.forward(inputs.x, inputs.state), wanted, problem.case.dtype)


def two_tapes(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, findings = problem.inputs(), []
    other = _other(inputs)
    stale = None
    for recorded_last, used_first in ((False, True), (True, True), (True, False)):
        caller = Caller(backend, problem)
        tapes = {}
        for name in ("other", "mine") if recorded_last else ("mine", "other"):
            given = inputs if name == "mine" else other
            tapes[name] = caller.record(given.x, given.state)[1]
        if not used_first:
            caller.backward(tapes["other"], other.dy, other.dstate)
        got = caller.backward(tapes["mine"], inputs.dy, inputs.dstate)
        found = matched(got, wanted, problem.case.dtype)
        if not all(finding.passed for finding in found):
            stale = stale or _fresh_gradients(backend, problem, other, inputs)
            if all(finding.passed for finding in same(got, stale, wanted)):
                found = [finding._replace(reason="is the gradient of another tape: a stale one was used") for finding in found]
        findings += found
    return findings


def _fresh_gradients(backend: Any, problem: Problem, recorded: Inputs, cotangents: Inputs) -> Outputs:
    caller = Caller(backend, problem)
    return caller.backward(caller.record(recorded.x, recorded.state)[1], cotangents.dy, cotangents.dstate)


def results_kept(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, caller, case = problem.inputs(), Caller(backend, problem), problem.case
    other = _other(inputs)
    inferred = named(case, *caller.net.forward(caller.lent(inputs.x), caller.lent(inputs.state)))
    y, final, tape = caller.net.record(caller.lent(inputs.x), caller.lent(inputs.state))
    grads = caller.net.backward(tape, caller.lent(inputs.dy), caller.lent(inputs.dstate))
    caller.step(other)
    caller.forward(other.x, other.state)
    return matched(caller.read(inferred), wanted, case.dtype) + matched(
        caller.read(named(case, y, final, grads)), wanted, case.dtype
    )


def results_lent(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """What a caller does with y, the final and the initial state before ``backward``."""
    inputs, caller = problem.inputs(), Caller(backend, problem)
    state = caller.lent(inputs.state)
    y, final, tape = caller.net.record(caller.lent(inputs.x), state)
    try:
        for array in (y, *final, *state):
            array[...] = float("nan")
        got = caller.backward(tape, inputs.dy, inputs.dstate)
    except Exception:  # arrays that cannot be changed, or a library that notices: neither gives a wrong number
        return [Finding("y and the states", 0.0, 0.0)]
    return matched(got, wanted, problem.case.dtype)


def update(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Weights are replaced, all of them; tapes keep those that they were recorded with; what the caller holds is a copy."""
    inputs, case, mine = problem.inputs(), problem.case, problem.params()
    others = init_params(case.spec(), problem.seed + 1, problem.scheme, problem.forget_bias)
    others = {name: value + value.dtype.type(0.25 if "bias" in name else 0) for name, value in others.items()}
    caller = Caller(backend, problem, params={name: value.copy() for name, value in others.items()})
    caller.step(inputs)
    given = {name: value.copy() for name, value in mine.items()}
    caller.net.update(given)
    for value in given.values():
        value[...] = 0
    for value in caller.net.params().values():
        value[...] = 0
    after = matched(caller.step(inputs), wanted, case.dtype)
    if not all(finding.passed for finding in after):
        after = _named_kept(after, caller, problem, wanted, mine, others)
    held = caller.net.params()
    after += [_held(name, held.get(name), mine[name], others[name]) for name in mine]
    _, tape = caller.record(inputs.x, inputs.state)
    caller.net.update(others)
    caller.forward(inputs.x, inputs.state)
    return after + matched(caller.backward(tape, inputs.dy, inputs.dstate), wanted, case.dtype)


def _held(name: str, got: np.ndarray | None, new: np.ndarray, old: np.ndarray) -> Finding:
    if got is not None and np.array_equal(got, new):
        return Finding(f"params() {name}", 0.0, 0.0)
    kept = got is not None and np.array_equal(got, old)
    return Finding(f"params() {name}", None, 0.0, f"update() kept the old {name}" if kept else "is not what update() was given")


def _named_kept(
    findings: list[Finding], caller: Caller, problem: Problem, wanted: Expected, new: Params, old: Params
) -> list[Finding]:
    """Say which parameters kept their old values, if that explains what came out."""
    inputs = problem.inputs()
    got = caller.step(inputs)
    biases = [name for name in new if "bias" in name]
    weights = [name for name in new if "weight" in name]
    guesses = [[name] for name in new] + [
        [n for n in names if key in n] for names in (biases, weights) for key in ("ih", "hh", "")
    ]
    first = [name for name in new if "_l0" in name]
    for names in [*guesses, first, [name for name in new if name not in first], list(new)]:
        if not names:
            continue
        values = reference_with(problem, params={name: (old if name in names else new)[name] for name in new})
        if all(finding.passed for finding in matched(got, wanted._replace(values=values), problem.case.dtype)):
            says = f"update() kept the old {', '.join(names)}"
            return [finding if finding.passed else finding._replace(reason=says) for finding in findings]
    return findings


def many_shapes(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    caller, inputs = Caller(backend, problem), problem.inputs()
    findings = []
    for repeat, steps in ((2, 2), (1, 1)):
        larger = _tiled(_other(inputs), repeat)
        caller.step(Inputs(larger.x[:1], larger.state, larger.dy[:1], larger.dstate))
        long = Inputs(np.concatenate([larger.x] * steps), larger.state, np.concatenate([larger.dy] * steps), larger.dstate)
        caller.step(long)
        findings += matched(caller.step(inputs), wanted, problem.case.dtype)
        caller.step(inputs.map(lambda array: array[:, :1]))
        findings += matched(caller.step(inputs), wanted, problem.case.dtype)
    return findings


def threads(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs, findings = problem.inputs(), []
    for count in range(1, min(2, os.cpu_count() or 1) + 1):
        findings += matched(Caller(backend, problem, threads=count).step(inputs), wanted, problem.case.dtype)
    return findings


def shared_arrays(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """dy may be y itself, and the final state of one call the initial state of the next, which leaves it as it is."""
    inputs, caller = problem.inputs(), Caller(backend, problem)
    x, state = caller.lent(inputs.x), caller.lent(inputs.state)
    y, final, tape = caller.net.record(x, state)
    mine = caller.read({"y": y, "final": final[0]})
    itself = caller.net.backward(tape, y, final)
    got = caller.read(named(problem.case, y, final, itself))
    copied = Caller(backend, problem)
    again, tape = copied.record(inputs.x, inputs.state)
    finals = tuple(again[f"final {name}"] for name in problem.case.spec().kind.states)
    fresh = again | copied.backward(tape, again["y"], finals)
    caller.net.record(x, final)
    return same(got, fresh, closeness(backend, wanted)) + same(caller.read({"y": y, "final": final[0]}), mine)


def other_contents(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Where arrays can be written to: what is known of an array by its identity is not known of what it holds."""
    inputs, caller = problem.inputs(), Caller(backend, problem)
    x, state, dy, dstate = (caller.lent(part) for part in inputs)
    y, final, tape = caller.net.record(x, state)
    first = caller.read(named(problem.case, y, final, caller.net.backward(tape, dy, dstate)))
    held = backend.to_numpy(x)
    if not (isinstance(held, np.ndarray) and held.flags.writeable):
        return matched(first, wanted, problem.case.dtype)
    held[...] = -held
    changed = np.array(backend.to_numpy(x))  # as before, where to_numpy gave a copy
    y, final, tape = caller.net.record(x, state)
    got = caller.read(named(problem.case, y, final, caller.net.backward(tape, dy, dstate)))
    fresh = Caller(backend, problem).step(inputs._replace(x=changed))
    return same(got, fresh, closeness(backend, wanted))


def refusals(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    inputs = problem.inputs()
    caller, stranger = Caller(backend, problem), Caller(backend, problem)
    net, lent = caller.net, caller.lent
    x, state, dy, dstate = (lent(part) for part in inputs)
    wrong_dtype = "float64" if problem.case.dtype == "float32" else "float32"
    _, _, used = net.record(x, state)
    net.backward(used, dy, dstate)
    _, _, tape = net.record(x, state)
    _, _, foreign = stranger.net.record(x, state)
    wider = np.concatenate([inputs.x] * 2, 2)
    params = problem.params()
    first = next(iter(params))
    wrong = {
        "x of two axes": lambda: net.forward(lent(inputs.x[0]), state),
        "x of another input size": lambda: net.forward(lent(wider), state),
        "x of another dtype": lambda: net.record(lent(inputs.x.astype(wrong_dtype)), state),
        "a state of another batch": lambda: net.forward(x, lent(tuple(np.concatenate([s] * 2, 1) for s in inputs.state))),
        "dy of another length": lambda: net.backward(tape, lent(np.concatenate([inputs.dy] * 2)), dstate),
        "a tape that was used": lambda: net.backward(used, dy, dstate),
        "a tape of another network": lambda: net.backward(foreign, dy, dstate),
        "update() without a parameter": lambda: net.update(dict(list(params.items())[1:])),
        "update() with a flattened weight": lambda: net.update(params | {first: params[first].ravel()}),
    }
    return [Finding(name, *_refused(call)) for name, call in wrong.items()]


def _refused(call: Any) -> tuple[float | None, float, str | None]:
    try:
        call()
    except Exception:  # whichever it is, the caller knows
        return 0.0, 0.0, None
    return None, 0.0, "was taken without an error"


def _other(inputs: Inputs) -> Inputs:
    """Other inputs of the same shapes."""
    return inputs.map(lambda array: -array[..., ::-1])


def _tiled(inputs: Inputs, count: int) -> Inputs:
    """The rows of a batch, so many times."""
    return inputs.map(lambda array: np.concatenate([array] * count, 1))
