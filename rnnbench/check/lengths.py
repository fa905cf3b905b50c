"""The promises about sequences of different lengths in one batch."""

from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Probe, call_tolerance, compare_calls, compare_with_reference
from rnnbench.check.problem import Problem, lengths_of
from rnnbench.check.tolerance import Expected
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import Inputs


def concerns(case: Case) -> bool:
    return case.lengths is not None and case.phase == "step"


def beyond_lengths(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """NaN in x and dy from the length of a row on changes nothing; y and dx are exactly zero there."""
    inputs, probe = problem.inputs(), Probe(backend, problem)
    (lengths,) = lengths_of(problem.case)
    beyond = np.arange(problem.case.T)[:, None] >= lengths
    for array in (inputs.x, inputs.dy):
        array[beyond] = np.nan
    with np.errstate(invalid="ignore"):
        got = probe.step(inputs, lengths)
        inferred = probe.forward(inputs.x, inputs.state, lengths)
    findings = compare_with_reference(got, wanted, problem.case.dtype) + compare_with_reference(
        inferred, wanted, problem.case.dtype
    )
    for name, value in (("y", got["y"]), ("dx", got["dx"]), ("y of forward", inferred["y"])):
        findings.append(Finding(f"{name} beyond the lengths", float(np.sum(value[beyond] != 0)), 0.0, "is not zero"))
    return [f._replace(reason=None) if f.passed else f for f in findings]


def lengths_of_all_steps(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Lengths of T for all rows change nothing; any integers are lengths, and the caller may change them before backward."""
    inputs, probe = problem.inputs(), Probe(backend, problem)
    plain = Probe(backend, problem).step(inputs)
    findings = compare_calls(probe.step(inputs, [problem.case.T] * problem.case.B), plain, call_tolerance(backend, wanted))
    (lengths,) = lengths_of(problem.case)
    for dtype in (np.int32, np.int64):
        given = lengths.astype(dtype)
        inferred = probe.forward(inputs.x, inputs.state, given)
        got, tape = probe.record(inputs.x, inputs.state, given)
        findings.append(Finding(f"lengths of {given.dtype}", float(np.sum(given != lengths)), 0.0, "are changed"))
        given[:] = 0
        got |= probe.backward(tape, inputs.dy, inputs.dstate)
        for found in (inferred, got):
            findings += compare_with_reference(found, wanted, problem.case.dtype)
    return [f._replace(reason=None) if f.passed else f for f in findings]


def lengths_in_any_order(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Rows sorted by their lengths, longest or shortest first, have the same results as in their own order."""
    inputs, probe, findings = problem.inputs(), Probe(backend, problem), []
    (lengths,) = lengths_of(problem.case)
    for order in (np.argsort(-lengths, kind="stable"), np.argsort(lengths, kind="stable")):
        got = probe.step(inputs.map(lambda array, order=order: array[:, order]), lengths[order])
        back = np.argsort(order)
        got = {name: value if name.startswith(("d weight", "d bias")) else value[:, back] for name, value in got.items()}
        findings += compare_with_reference(got, wanted, problem.case.dtype)
    return findings


def lengths_refused(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Lengths of a wrong number, negative ones, those above T and fractions are refused."""
    inputs, probe, case = problem.inputs(), Probe(backend, problem), problem.case
    good = np.minimum(np.arange(case.B), case.T)
    wrong = {
        "a length too few": good[:-1],
        "a length too many": np.append(good, 0),
        "a negative length": np.append(good[:-1], -1),
        "a length above T": np.append(good[:-1], case.T + 1),
        "fractions": good + 0.5,
        "lengths of two axes": good[None],
    }
    return [_refused(probe, inputs, name, lengths) for name, lengths in wrong.items()]


def _refused(probe: Probe, inputs: Inputs, name: str, lengths: np.ndarray) -> Finding:
    try:
        probe.net.record(probe.to_backend(inputs.x), probe.to_backend(inputs.state), lengths)
    except Exception:  # whichever error it is
        return Finding(name, 0.0, 0.0)
    return Finding(name, None, 0.0, "is accepted; expected an error")
