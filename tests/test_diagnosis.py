"""A fault is named as what it is, by the command line too; what is not known is not guessed at."""

import numpy as np
import pytest
from wrapped_reference import backend_file

from rnnbench.check import Problem, expected, gate
from rnnbench.check.diagnosis import explained
from rnnbench.check.levels import SMALL
from rnnbench.check.mutants import MUTANTS
from rnnbench.check.mutants.hooks import in_network
from rnnbench.check.problem import INPUT_CHANGE
from rnnbench.cli.common import CHECK_FAILED
from rnnbench.cli.main import main
from rnnbench.suite.case import Case

PLANTED = {mutant.name: mutant for mutant in MUTANTS}

RECORD = """
def record(self, x, state=None):
    y, final, tape = self.net.record(x, state)
    {change}
    return y, final, tape
"""

BACKWARD = """
def backward(self, tape, dy, dstate=None):
    {before}
    grads = self.net.backward(tape, dy, dstate)
    {after}
    return grads
"""

THIRD_PARTY = {
    "a stale tape": (
        """
        latest = None

        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            self.again = (x.copy(), None if state is None else tuple(part.copy() for part in state))
            return y, final, tape

        def backward(self, tape, dy, dstate=None):
            return self.net.backward(self.net.record(*self.again)[2], dy, dstate)
        """,
        "is the gradient of another tape: a stale one was used",
    ),
    "a mutated dy": (BACKWARD.format(before="dy *= 2", after="pass"), "dy changed in place"),
    "float64 for float32": (
        RECORD.format(change="y = y.astype('float64')"),
        "y: has dtype float64; expected float32",
    ),
    "a final state off by one step": (
        RECORD.format(change="final = self.net.forward(x[:-1], state)[1] if len(x) > 1 else final"),
        "is the state one step before the end",
    ),
    "an update that keeps old biases": (
        """
        def update(self, params):
            old = self.net.params()
            self.net.update({name: old[name] if "bias" in name else value for name, value in params.items()})
        """,
        "update() kept the old bias_ih_l0",
    ),
}


@pytest.mark.parametrize("fault", THIRD_PARTY)
def test_a_third_party_s_fault_is_named(fault, tmp_path, capsys):
    methods, said = THIRD_PARTY[fault]
    file = backend_file(tmp_path / "theirs.py", methods)
    assert main(["check", file, "--level", "smoke", "--cell", "lstm", "--cell", "gru"]) == CHECK_FAILED
    assert said in capsys.readouterr().out


def reasons(backend, problem: Problem) -> dict[str, str | None]:
    wanted = expected(problem)
    findings = explained(backend, problem, wanted, gate(backend, problem, wanted))
    return {finding.tensor: finding.reason for finding in findings if not finding.passed}


@pytest.mark.parametrize(
    ("mutant", "tensor", "said"),
    [
        ("gru: final state is that of one step before", "final h", "is the state one step before the end"),
        ("gru: final state is the initial one", "final h", "is the initial state"),
        ("gru: dy overwritten", INPUT_CHANGE, "dy changed in place"),
        ("lstm: dstate overwritten", INPUT_CHANGE, "dstate changed in place"),
        ("elman: x overwritten", INPUT_CHANGE, "x changed in place"),
        ("elman: y returned batch first", "y", "has shape (3, 7, 5); expected (7, 3, 5)"),
    ],
)
def test_a_planted_bug_is_named(mutant, tensor, said):
    planted = PLANTED[mutant]
    case = Case(planted.cells[0], "step", SMALL.T, SMALL.B, SMALL.I, SMALL.H)
    assert reasons(planted.backend, Problem(case, seed=5))[tensor] == said


@pytest.mark.parametrize(
    ("cell", "order", "said"),
    [
        ("lstm", (0, 2, 1, 3), "is right if gates are read in the order i, g, f, o, not i, f, g, o"),
        ("lstm", (0, 3, 1, 2), "is right if gates are read in the order i, o, f, g, not i, f, g, o"),  # of ONNX
        ("gru", (1, 0, 2), "is right if gates are read in the order z, r, n, not r, z, n"),  # of Keras
        ("gru_reset_before", (2, 0, 1), "is right if gates are read in the order n, r, z, not r, z, n"),
    ],
)
def test_gates_in_another_order_forward_and_back_alike_are_named(cell, order, said):
    """All of it is wrong, and each tensor is explained by the same."""
    back = tuple(order.index(place) for place in range(len(order)))

    def moved(params, places):
        parts = {name: np.split(value, len(order)) for name, value in params.items()}
        return {name: np.concatenate([parts[name][place] for place in places]) for name in params}

    def backward(right, net, *arguments):  # what in_network gives
        grads = right(*arguments)
        return grads._replace(params=moved(grads.params, order))

    def set_params(right, net, params):
        return right(moved(params, back))

    backend = in_network(_set_params=set_params, _backward=backward)
    found = reasons(backend, Problem(Case(cell, "step", SMALL.T, SMALL.B, SMALL.I, SMALL.H, layers=2), seed=5))
    assert "y" in found
    assert set(found.values()) == {said}
