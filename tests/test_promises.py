"""Each promise is broken by a backend with just that fault, and kept by every right one.  Takes 25 s."""

import functools
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from helpers import lazy_backend
from hypothesis import given, settings
from hypothesis import strategies as st

import rnnbench
from rnnbench.check import PROMISES, Problem, examine, expected, gate
from rnnbench.check.mutants import MUTANTS
from rnnbench.check.mutants.hooks import in_arguments, in_network, in_results, replaced
from rnnbench.check.mutation_test import KILLED_AT
from rnnbench.check.tolerance import Expected
from rnnbench.networks.cells import CELLS
from rnnbench.networks.params import SCHEMES
from rnnbench.networks.spec import DTYPES
from rnnbench.suite.case import Case, refusal

PLANTED = {mutant.name: mutant for mutant in MUTANTS}

KINDS = [(cell, nonlinearity) for cell, kind in CELLS.items() for nonlinearity in kind.nonlinearities]


def wrong_after_a_longer_one(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: Any) -> Any:
    """A workspace as long as the longest sequence yet, of which a shorter one reads the wrong end."""
    net.longest = max(net.__dict__.get("longest", 0), len(dy))
    return right(tape, dy if len(dy) == net.longest else replaced(dy, 0), dstate)


def wrong_in_a_smaller_batch(right: Any, net: Any, x: np.ndarray, state: Any) -> Any:
    """Rows of the first batch's size: where there are fewer, the last one is taken for padding."""
    size = net.__dict__.setdefault("size", 7)
    y, final, *tape = right(x, state)
    return (y if y.shape[1] == size else replaced(y, (slice(None), -1)), final, *tape)


def wrong_from_a_carried_state(right: Any, net: Any, x: np.ndarray, state: Any) -> Any:
    """The state that the last call returned is taken for one that was carried before, and dropped."""
    last = net.__dict__.get("last")
    carried = last is not None and np.array_equal(last, state[0])
    y, final, *tape = right(x, tuple(0 * part for part in state) if carried else state)
    net.last = final[0].copy()
    return (y, final, *tape)


def scaled_by_row(spec: Any, y: np.ndarray, final: Any) -> Any:
    return y * (1 + np.arange(y.shape[1], dtype=y.dtype)[:, None] / 64), final


def with_the_mean_over_time(spec: Any, x: np.ndarray, state: Any) -> Any:
    return x + x.mean(0, keepdims=True), state


def planted(name: str) -> tuple[str, Any]:
    return PLANTED[name].cells[0], PLANTED[name].backend


def from_memory(right: Any, net: Any, x: np.ndarray, state: Any) -> Any:
    """An array that was seen before is taken for what it held then."""
    known = net.__dict__.setdefault("known", {})
    held = known.setdefault(id(x), (x, x.copy()))[1]
    return right(held, state)


HIDDEN = {
    "computed": ("lstm", lazy_backend),
    "other contents": ("gru", in_network(_record=from_memory)),
    "second call": planted("elman: every third call spoils the last element of y"),
    "inference": planted("lstm: forward alone ignores the initial state"),
    "two tapes": planted("gru: the latest tape serves every backward"),
    "update": planted("elman: an update keeps the old biases"),
    "results kept": planted("elman: y is overwritten by the next call"),
    "results lent": planted("gru: the tape refers to the caller's y"),
    "many shapes": ("elman", in_network(_backward=wrong_after_a_longer_one)),
    "threads": planted("lstm: two threads leave out an odd row"),
    "refusals": planted("gru: a tape can be used twice"),
    "batch split": ("gru", in_network(_record=wrong_in_a_smaller_batch)),
    "reversed": planted("gru: reverse direction runs forward"),
    "linear": planted("lstm: without a state a call goes on from the last one's"),
    "chunked": ("elman", in_network(_forward=wrong_from_a_carried_state)),
    "truncated": planted("elman: dx is overwritten by the next backward"),
    "units permuted": planted("elman: weights in Fortran order misread"),
    "layouts": planted("elman: negative strides of x read forward"),
    "NaN": planted("gru: NaN in y returned as 0"),
    "saturated": planted("lstm: sigmoid overflows to NaN"),
    "subnormal": planted("elman: subnormal x flushed to zero"),
    "zero steps": planted("gru: a step whose x is all zeros is skipped as padding"),
    "empty": planted("lstm: the final state of an empty sequence is zero"),
    "beyond the lengths": planted("elman: y of the padding multiplied by zero"),
    "lengths of T": planted("gru: the tape refers to the caller's lengths"),
    "lengths in any order": planted("lstm: rows of no steps at the end lose their state"),
    "lengths refused": planted("gru: a missing length is T"),
    "model": planted("model, cross-entropy: mask ignored"),
    "training": planted("model, optimiser: state not carried"),
    "states": planted("lstm: states of all steps have h for c"),
    "streamed": planted("lstm: a stream forgets its state"),
}
"""Faults that one call on ordinary input does not show, by the promise that they break."""

SHOWN = {
    "batch permuted": ("lstm", in_results(scaled_by_row)),
    "causal": ("gru", in_arguments(with_the_mean_over_time)),
    "shared arrays": planted("lstm: backward zeroes the y that record returned"),
}
"""Faults that the comparison with the reference finds as well."""


@functools.cache
def wanted_of(problem: Problem) -> Expected:
    """What is expected, computed once: all promises are examined on the same problems."""
    return expected(problem)


def problem_of(cell: str, **fields: Any) -> Problem:
    return Problem(Case(cell, "step", T=7, B=7, I=4, H=5, output_size=6 if cell == "jordan" else None, **fields), seed=3)


def for_promise(name: str, problem: Problem) -> Problem:
    """The problem with lengths, if the promise is about them."""
    with_lengths = msgspec.structs.replace(problem.case, lengths="corners")
    return replace(problem, case=with_lengths) if PROMISES[name].concerns(with_lengths) else problem


def test_every_promise_has_a_fault_that_breaks_it():
    assert set(HIDDEN) | set(SHOWN) == set(PROMISES)


@pytest.mark.parametrize("name", HIDDEN)
def test_a_fault_that_one_call_does_not_show_is_found_by_its_promise(name):
    cell, backend = HIDDEN[name]
    problem = for_promise(name, problem_of(cell))
    wanted = wanted_of(problem)
    assert all(finding.passed for finding in gate(backend, problem, wanted))
    with np.errstate(all="ignore"):  # some faults overflow, and no warning is to say so
        worst = examine(backend, problem, wanted, [name])[0]
    assert worst.promise == name
    assert worst.ratio >= KILLED_AT


@pytest.mark.parametrize("name", SHOWN)
def test_a_promise_is_found_broken_by_itself_too(name):
    cell, backend = SHOWN[name]
    problem = for_promise(name, problem_of(cell))
    worst = max(PROMISES[name].examine(backend, problem, wanted_of(problem)), key=lambda finding: finding.ratio)
    assert worst.ratio >= KILLED_AT


available = [entry.name for entry in rnnbench.backends() if entry.available]


@st.composite
def examinations(draw: Any) -> tuple[str, Problem]:
    """A backend, and a problem of its cells that promises can be examined on."""
    name, (cell, nonlinearity) = draw(st.sampled_from(available)), draw(st.sampled_from(KINDS))
    sizes = {axis: draw(st.integers(1, limit)) for axis, limit in {"T": 9, "B": 7, "I": 20, "H": 35}.items()}
    case = Case(
        cell,
        "step",
        **sizes,
        layers=draw(st.integers(1, 2)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
        nonlinearity=nonlinearity,
        dtype=draw(st.sampled_from(DTYPES)),
        output_size=draw(st.integers(1, 20)) if CELLS[cell].feeds_back_output else None,
    )
    return name, Problem(case, draw(st.sampled_from(SCHEMES)), seed=draw(st.integers(0, 2**31)))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(examinations())
@pytest.mark.parametrize("name", PROMISES)
def test_every_available_backend_keeps_its_promises(name, examination):
    backend_name, problem = examination[0], for_promise(name, examination[1])
    backend = rnnbench.load_backend(backend_name)
    if refusal(backend, problem.case) is None and PROMISES[name].concerns(problem.case):
        for finding in examine(backend, problem, wanted_of(problem), [name]):
            assert finding.passed, (backend_name, finding)
