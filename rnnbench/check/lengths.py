"""The promises about sequences of different lengths in one batch."""

import functools
from typing import Any

import numpy as np

from rnnbench.check.call_semantics import refused
from rnnbench.check.comparing import Finding, has_batch_axis
from rnnbench.check.probe import Probe, call_tolerance, compare_calls, compare_with_reference
from rnnbench.check.problem import Problem, lengths_of
from rnnbench.check.tolerance import Expected
from rnnbench.suite.case import Case


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
        findings.append(_none(f"{name} beyond the lengths", value[beyond] != 0, "is not zero"))
    return findings


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
        findings.append(_none(f"lengths of {given.dtype}", given != lengths, "are changed"))
        given[:] = 0
        got |= probe.backward(tape, inputs.dy, inputs.dstate)
        for found in (inferred, got):
            findings += compare_with_reference(found, wanted, problem.case.dtype)
    return findings


def lengths_in_any_order(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """Rows sorted by their lengths, longest or shortest first, have the same results as in their own order."""
    inputs, probe, findings = problem.inputs(), Probe(backend, problem), []
    (lengths,) = lengths_of(problem.case)
    for order in (np.argsort(-lengths, kind="stable"), np.argsort(lengths, kind="stable")):
        got = probe.step(inputs.map(lambda array, order=order: array[:, order]), lengths[order])
        back = np.argsort(order)
        got = {name: value[:, back] if has_batch_axis(name) else value for name, value in got.items()}
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
    x, state = probe.to_backend(inputs.x), probe.to_backend(inputs.state)
    return [Finding(name, *refused(functools.partial(probe.net.record, x, state, lengths))) for name, lengths in wrong.items()]


def _none(name: str, wrong: np.ndarray, reason: str) -> Finding:
    """A finding that passes if nothing is ``wrong``."""
    return Finding(name, float(np.sum(wrong)), 0.0, reason if wrong.any() else None)
