"""The gate can fail, and says where.  Takes 2 s."""

import math
from typing import NamedTuple

import numpy as np
import pytest
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import Problem, compared, expected, gate, outputs
from rnnbench.check.problem import INPUT_CHANGE
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case

CAUGHT = 10
"""Times the tolerance: a bug nearer to it than this would be missed at another seed or shape."""


def step_case(cell: str = "lstm", **fields) -> Case:
    sizes = {"T": 7, "B": 3, "I": 4, "H": 5} | fields
    return Case(cell, "step", output_size=6 if cell == "jordan" else None, **sizes)


class Bug(NamedTuple):
    """What is planted, the first tensor that it must show in, and what is said where the error has no number."""

    methods: str
    tensor: str
    reason: str | None = None
    module: str = ""


def changed_result(statement: str) -> str:
    return f"""
        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            {statement}
            return y, final, tape
    """


def changed_gradients(statement: str) -> str:
    return f"""
        def backward(self, tape, dy, dstate=None):
            grads = self.net.backward(tape, dy, dstate)
            {statement}
            return grads
    """


def changed_call(arguments: str) -> str:
    return f"""
        def backward(self, tape, dy, dstate=None):
            return self.net.backward(tape, {arguments})
    """


def loaded_with(statement: str) -> str:
    return f"""
        def load(spec, params, *, threads=None):
            H, params = spec.hidden_size, dict(params)
            {statement}
            return Network(numpy_ref.load(spec, params, threads=threads))
    """


BUGS = {
    "one gate's weight gradient scaled by 1.001": Bug(
        changed_gradients('grads.params["weight_hh_l0"][:5] *= np.float32(1.001)'), "d weight_hh_l0"
    ),
    "one gate's bias gradient scaled by 1.001": Bug(
        changed_gradients('grads.params["bias_ih_l0"][-5:] *= np.float32(1.001)'), "d bias_ih_l0"
    ),
    "dx scaled by 1.001": Bug(changed_gradients("grads.x[...] *= np.float32(1.001)"), "dx"),
    "dx of the last step dropped": Bug(changed_gradients("grads.x[-1] = 0"), "dx"),
    "gradient of the mean": Bug(changed_gradients('grads.params["bias_hh_l0"][...] /= 3'), "d bias_hh_l0"),
    "gradient added up over two passes": Bug(changed_gradients('grads.params["bias_hh_l0"][...] *= 2'), "d bias_hh_l0"),
    "reversed dy": Bug(changed_call("dy[::-1].copy(), dstate"), "dx"),
    "dy of the batch rows swapped": Bug(changed_call("dy[:, ::-1].copy(), dstate"), "dx"),
    "missing dstate": Bug(changed_call("dy"), "d initial h"),
    "zero initial gradient": Bug(
        changed_gradients("grads = Gradients(grads.params, grads.x, tuple(np.zeros_like(d) for d in grads.state))"),
        "d initial h",
    ),
    "final state one step off": Bug(changed_result("final = self.net.forward(x[:-1], state)[1]"), "final h"),
    "final h for final c": Bug(changed_result("final = (final[0], final[0])"), "final c"),
    "y one step late": Bug(changed_result("y = np.roll(y, 1, 0)"), "y"),
    "ignored initial state": Bug(
        """
        def record(self, x, state=None):
            return self.net.record(x)
        """,
        "y",
    ),
    "two gates swapped": Bug(
        "pass",
        "y",
        module=loaded_with('params["weight_hh_l0"] = params["weight_hh_l0"][np.r_[H : 2 * H, :H, 2 * H : 4 * H]]'),
    ),
    "recurrent weights transposed": Bug(
        "pass",
        "y",
        module=loaded_with(
            'params["weight_hh_l0"] = np.concatenate([g.T for g in np.split(params["weight_hh_l0"], len(spec.kind.gates))])'
        ),
    ),
    "one bias dropped": Bug(
        "pass", "y", module=loaded_with('params["bias_hh_l0"] = np.zeros_like(params["bias_hh_l0"])')
    ),
    "weights rounded to half precision": Bug(
        "pass",
        "y",
        module=loaded_with("params = {n: v.astype('float16').astype('float32') for n, v in params.items()}"),
    ),
    "input dy changed": Bug(
        """
        def backward(self, tape, dy, dstate=None):
            grads = self.net.backward(tape, dy, dstate)
            dy += 1
            return grads
        """,
        INPUT_CHANGE,
    ),
    "input x changed": Bug(changed_result("x[0, 0, 0] += 1"), INPUT_CHANGE),
    "initial state overwritten": Bug(changed_result("state[0][...] = final[0]"), INPUT_CHANGE),
    "input dy made NaN": Bug(
        """
        def backward(self, tape, dy, dstate=None):
            grads = self.net.backward(tape, dy, dstate)
            dy[...] = np.nan
            return grads
        """,
        INPUT_CHANGE,
        "is not finite",
    ),
    "y in float64": Bug(changed_result("y = y.astype('float64')"), "y", "has dtype float64; expected float32"),
    "gradient in float64": Bug(
        changed_gradients('grads.params["weight_ih_l0"] = grads.params["weight_ih_l0"].astype("float64")'),
        "d weight_ih_l0",
        "has dtype float64; expected float32",
    ),
    "y without its last unit": Bug(changed_result("y = y[:, :, :-1]"), "y", "has shape (7, 3, 4); expected (7, 3, 5)"),
    "y batch first": Bug(changed_result("y = y.swapaxes(0, 1)"), "y", "has shape (3, 7, 5); expected (7, 3, 5)"),
    "missing gradient": Bug(changed_gradients('del grads.params["bias_hh_l0"]'), "d bias_hh_l0", "is missing"),
    "gradient of no parameter": Bug(
        changed_gradients('grads.params["weight_hr_l0"] = dy'), "d weight_hr_l0", "is not an output of this phase"
    ),
    "NaN in y": Bug(changed_result("y[3, 1, 2] = np.nan"), "y", "is not finite"),
    "infinity in a gradient": Bug(
        changed_gradients('grads.params["weight_ih_l0"][0, 0] = np.inf'), "d weight_ih_l0", "is not finite"
    ),
}  # fmt: skip


@pytest.fixture
def planted(tmp_path):
    """Load a bug as a backend; gives its module."""
    return lambda bug: rnnbench.load_backend(backend_file(tmp_path / "planted.py", bug.methods, bug.module))


@pytest.fixture(scope="module")
def lstm_step():
    problem = Problem(step_case(), source="noise")
    return problem, expected(problem)


@pytest.mark.parametrize("title", BUGS)
def test_a_planted_bug_fails_in_its_tensor_far_beyond_the_tolerance_and_is_named(title, planted, lstm_step):
    bug = BUGS[title]
    module, (problem, wanted) = planted(bug), lstm_step
    findings = gate(module, problem, wanted)
    by_name = {finding.tensor: finding for finding in findings}
    found = by_name[bug.tensor]
    assert not found.passed
    assert found.ratio >= CAUGHT
    assert found.reason == bug.reason
    if bug.reason:
        assert found.error is None
        assert found.ratio == math.inf


def test_a_change_of_one_tensor_is_found_in_that_tensor_alone(planted, lstm_step):
    problem, wanted = lstm_step
    module = planted(BUGS["one gate's weight gradient scaled by 1.001"])
    assert [finding.tensor for finding in gate(module, problem, wanted) if not finding.passed] == ["d weight_hh_l0"]


@pytest.mark.parametrize("cell", CELLS)
def test_every_tensor_of_every_cell_is_compared(cell):
    """Each tensor in turn is moved by ten tolerances, which nothing but a comparison of that tensor can see."""
    problem = Problem(step_case(cell), source="noise")
    wanted, right = expected(problem), outputs(rnnbench.load_backend("numpy_ref"), problem)
    states = problem.case.spec().kind.states
    assert set(right) == {
        *("y", "dx", INPUT_CHANGE),
        *(f"final {name}" for name in states),
        *(f"d initial {name}" for name in states),
        *(f"d {name}" for name in problem.case.spec().param_shapes()),
    }
    for name in right:
        assert all(finding.passed for finding in compared(right, wanted, "float32"))
        step = np.float32(1.5 * CAUGHT * np.max(wanted.tolerances.get(name, 0)) or 1e-30)
        wrong = right | {name: right[name] + step}
        assert [f.tensor for f in compared(wrong, wanted, "float32") if not f.passed] == [name]
