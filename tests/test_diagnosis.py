"""A fault is named as what it is, by the command line too; what is not known is not guessed at."""

import pytest
from wrapped_reference import backend_file

from rnnbench.check import Problem, expected, gate
from rnnbench.check.diagnosis import explained
from rnnbench.check.levels import SMALL
from rnnbench.check.mutants import MUTANTS
from rnnbench.check.problem import INPUT_CHANGE
from rnnbench.cli import CHECK_FAILED, main
from rnnbench.store import Case

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
