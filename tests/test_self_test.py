"""Every planted bug is found at ten times the tolerance, and nothing is found where none is.  Takes 40 s."""

import functools
import math

import numpy as np
import pytest

import rnnbench
from rnnbench.check import mutation_test as module
from rnnbench.check import problem as checked
from rnnbench.check.levels import Trial, trials
from rnnbench.check.mutants import AREAS, MUTANTS, Mutant, Planted
from rnnbench.check.mutants.hooks import in_gradients
from rnnbench.check.mutants.truncation import Loop
from rnnbench.check.mutation_test import KILLED_AT, Harness, Result, SelfTest, self_test
from rnnbench.check.problem import Problem, outputs
from rnnbench.networks.cells import CELLS

CELL = "gru_reset_before"
"""For runs of a whole self-test: the cell with the fewest mutants and one nonlinearity."""

HARMLESS = Mutant("harmless", "forward", (CELL,), Planted())


@pytest.fixture(autouse=True, scope="module")
def _expectations_are_computed_once():
    """A harness keeps its own, and these tests make several of the same trials."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "expected", functools.cache(module.expected))
        yield


@pytest.fixture(scope="module")
def harness() -> Harness:
    return Harness(trials("standard"))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_planted_bug_is_found_far_beyond_the_tolerance(harness, mutant):
    result = harness.kill(mutant)
    assert result.killed, result
    assert result.ratio >= KILLED_AT
    # an exception is a kill, too; where it is not the bug itself the mutant is broken, and shows nothing
    said = result.raised or "raised nothing"
    assert said.startswith(f"raised {mutant.raises.__name__ if mutant.raises else 'nothing'}"), result


def test_there_are_enough_bugs_each_with_a_name_in_every_area_and_cell():
    assert len(MUTANTS) >= 60
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert {mutant.area for mutant in MUTANTS} == set(AREAS)
    assert {cell for mutant in MUTANTS for cell in mutant.cells} == set(CELLS)


def test_a_mutant_without_its_bug_gives_the_reference_s_results_to_the_bit():
    for trial in trials("smoke", ["lstm", "jordan"]):
        right = outputs(rnnbench.load_backend("numpy_ref"), trial.problem)
        got = outputs(Planted(), trial.problem)
        assert right.keys() == got.keys()
        for name in right:
            np.testing.assert_array_equal(got[name], right[name])


def test_the_loop_that_bugs_of_truncation_are_planted_in_is_right(harness):
    """Else its mutants are found for another reason than their bugs."""
    concerned = [trial for trial in harness.trials if trial.problem.case.phase == "tbptt"]
    result = Harness(concerned).kill(Mutant("no bug", "truncation", ("lstm",), Planted(), Loop()))
    assert result.where.startswith("lstm tbptt")
    assert 0 < result.ratio <= 1


def test_a_bug_that_changes_nothing_survives_and_fails_the_self_test():
    outcome = self_test(cells=[CELL], mutants=[HARMLESS])
    assert [result.backend for result in outcome.survivors] == ["harmless"]
    assert outcome.killed == []
    assert outcome.unmutated == []
    assert not outcome.passed
    first, last = outcome.table().splitlines()
    assert first.startswith("harmless  SURVIVES  ")
    assert last == "0 of 1 planted bugs killed"


def test_a_bug_within_ten_times_the_tolerance_survives():
    """Four units of roundoff in every gradient is what a right backend may do, and a little beyond."""
    factor = np.float32(1 + 2.0**-22)
    slight = in_gradients(lambda _, grads: grads._replace(params={n: g * factor for n, g in grads.params.items()}))
    result = Harness(trials("smoke", ["lstm"])).kill(HARMLESS._replace(cells=("lstm",), backend=slight))
    assert 0 < result.ratio < KILLED_AT
    assert not result.killed


def test_a_self_test_runs_the_mutants_of_its_cells_and_passes_if_all_are_found():
    calls = []
    outcome = self_test(lambda done, total: calls.append((done, total)), cells=[CELL])
    names = [mutant.name for mutant in MUTANTS if mutant.cells == (CELL,)]
    assert [result.backend for result in outcome.results] == names
    assert calls == [(done, len(names)) for done in range(len(names))]
    assert outcome.passed, outcome.table()
    lines = outcome.table().splitlines()
    assert len(lines) == len(names) + 1
    for line, name in zip(lines, names, strict=False):
        assert line.startswith(name)
        assert CELL in line.partition("  killed  ")[2]
    assert lines[-1] == f"{len(names)} of {len(names)} planted bugs killed"


def test_a_self_test_is_void_where_the_reference_itself_does_not_pass(monkeypatch):
    wrong = in_gradients(lambda _, grads: grads._replace(x=-grads.x))
    monkeypatch.setattr(module, "reference_backend", lambda: wrong)
    outcome = SelfTest([Result("some bug", "bptt", ratio=100)], Harness(trials("smoke", [CELL])).unmutated([CELL]))
    assert outcome.unmutated
    assert not outcome.passed
    assert "the self-test is void: the backend without a bug does not pass" in outcome.table()
    assert outcome.table().endswith("1 of 1 planted bugs killed")


def test_a_self_test_without_bugs_does_not_pass():
    assert not SelfTest().passed


def test_an_exception_is_a_kill_that_is_named():
    def refuse(spec, grads):
        raise ZeroDivisionError("by nothing")

    result = Harness(trials("smoke", [CELL])).kill(HARMLESS._replace(backend=in_gradients(refuse)))
    assert result.killed
    assert result.ratio == math.inf
    assert result.raised == "raised ZeroDivisionError: by nothing"
    assert "killed  raised ZeroDivisionError: by nothing  " in result.line()


def test_nothing_of_a_mutant_remains_when_it_has_run():
    loop = next(mutant for mutant in MUTANTS if mutant.tbptt)
    before = checked.tbptt
    problem = next(t.problem for t in trials("standard", ["lstm"]) if t.problem.case.phase == "tbptt")
    right = outputs(rnnbench.load_backend("numpy_ref"), problem)
    Harness([Trial(problem)]).kill(loop)
    assert checked.tbptt is before
    after = outputs(rnnbench.load_backend("numpy_ref"), Problem(**problem.__dict__))
    assert all(np.array_equal(after[name], right[name]) for name in right)
