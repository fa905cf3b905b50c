"""What is wrong is shown on the smallest problem that still shows it, with the step and the rows of a gate.  Takes 10 s."""

import msgspec
import pytest
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import Problem, trials
from rnnbench.check.conformance import check_all
from rnnbench.check.mutants import MUTANTS
from rnnbench.check.shrinking import smallest
from rnnbench.suite.case import Case

GENEROUS = 60.0
"""Seconds for what takes one: no busy machine may end the search before it is done."""

DEEP = Problem(Case("lstm", "step", T=7, B=3, I=4, H=5, layers=2, bidirectional=True), "orthogonal", 3.0)

ONE_GATE = """
def backward(self, tape, dy, dstate=None):
    grads, H = self.net.backward(tape, dy, dstate), self.net.spec.hidden_size
    grads.params["weight_hh_l0"][H : 2 * H] *= np.float32(1.01)
    return grads
"""

ONE_STEP = """
def backward(self, tape, dy, dstate=None):
    grads = self.net.backward(tape, dy, dstate)
    if len(dy) > 3:
        grads.x[2] += 1
    return grads
"""


LATE = """
def record(self, x, state=None):
    y, final, tape = self.net.record(x, state)
    y[1:] += 1
    return y, final, tape
"""


def loaded(tmp_path, methods: str = "pass", module: str = ""):
    return rnnbench.load_backend(backend_file(tmp_path / "wrong.py", methods, module))


def test_one_gate_s_gradient_shrinks_to_one_of_everything_and_its_row_is_named(tmp_path):
    found = smallest(loaded(tmp_path, ONE_GATE), DEEP, GENEROUS)
    assert found.problem.case == Case("lstm", "step", T=1, B=1, I=1, H=1)
    assert [finding.tensor for finding in found.findings] == ["d weight_hh_l0"]
    assert found.where == {"d weight_hh_l0": "wrong in gate f (row 1); correct in i, g, o"}


def test_the_steps_that_a_fault_needs_stay_and_the_first_wrong_one_is_named(tmp_path):
    found = smallest(loaded(tmp_path, ONE_STEP), DEEP, GENEROUS)
    assert found.problem.case == Case("lstm", "step", T=4, B=1, I=1, H=1)
    assert found.where == {"dx": "first wrong at step 2, going backward from step 3; 1 of 4 steps are wrong"}


def test_a_wrong_output_is_followed_forward(tmp_path):
    found = smallest(loaded(tmp_path, LATE), DEEP, GENEROUS)
    assert (found.problem.case.T, found.where["y"]) == (
        2,
        "first wrong at step 1, going forward; 1 of 2 steps are wrong",
    )


@pytest.mark.parametrize(
    ("name", "axis", "least"),
    [
        ("lstm: hidden units beyond 32 left out", "H", 33),
        ("elman: dy of rows beyond 64 left out", "B", 65),
        ("gru: inputs beyond 16 left out", "I", 17),
        ("jordan: dy of steps beyond 8 left out", "T", 9),
    ],
)
def test_an_axis_shrinks_to_the_edge_beyond_which_a_backend_is_wrong(name, axis, least):
    mutant = next(mutant for mutant in MUTANTS if mutant.name == name)
    sizes = {"T": 9, "B": 5, "I": 4, "H": 5} | {axis: 2 * least}
    output = 3 if mutant.cells[0] == "jordan" else None
    found = smallest(mutant.backend, Problem(Case(mutant.cells[0], "step", output_size=output, **sizes)), GENEROUS)
    assert getattr(found.problem.case, axis) == least
    assert max(getattr(found.problem.case, other) for other in "TBIH" if other != axis) <= 2  # some need a second step


def test_what_is_refused_or_raises_when_it_is_small_stays_large(tmp_path):
    raising = ONE_GATE.replace("    grads, H", "    if len(dy) < 3:\n        raise IndexError\n    grads, H")
    refusing = "def supports(spec):\n    return 'no single unit' if spec.hidden_size == 1 else None\n"
    found = smallest(loaded(tmp_path, raising, refusing), DEEP, GENEROUS)
    assert (found.problem.case.T, found.problem.case.H, found.problem.case.B) == (3, 2, 1)


def test_a_truncated_problem_keeps_a_window_that_fits():
    loop = next(mutant for mutant in MUTANTS if mutant.name == "lstm: gradient cut every 64 steps")
    case = Case("lstm", "tbptt", T=9, B=3, I=4, H=5, window=4, stride=3)
    assert smallest(loop.backend, Problem(case), GENEROUS) is None  # a right one of so few steps
    found = smallest(loop.backend, Problem(msgspec.structs.replace(case, T=140, window=130)), GENEROUS)
    assert (found.problem.case.phase, found.problem.case.T) == ("step", 65)


def test_without_time_the_problem_is_what_it_was(tmp_path):
    assert smallest(loaded(tmp_path, ONE_GATE), DEEP, 0.0).problem == DEEP
    assert smallest(rnnbench.load_backend("numpy_ref"), DEEP, GENEROUS) is None


@pytest.mark.parametrize("apart", [True, False], ids=["isolated", "here"])
def test_a_check_tells_the_smallest_problem_and_repeats_it(tmp_path, apart):
    file = backend_file(tmp_path / "wrong.py", ONE_GATE)
    report = check_all([file if apart else rnnbench.load_backend(file)], trials("smoke", ["lstm"])[:1])[0]
    assert report.smallest.problem.case.layers == 1
    said = report.first_failure()
    assert "\nsmallest problem that still fails: lstm step T" in said
    assert "wrong in gate f (row" in said
    assert f"case = Case(cell='lstm', phase='step', T={report.smallest.problem.case.T}, " in said
    assert report.to_json()["smallest"]["where"] == report.smallest.where
