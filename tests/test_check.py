"""The gate can fail, and says where; its tolerance is derived, not chosen.  Takes 15 s, most of it conformance runs."""

import contextlib
import io
import math
import textwrap
from typing import NamedTuple

import numpy as np
import pytest
from wrapped_reference import backend_file

import rnnbench
from rnnbench.cells import CELLS
from rnnbench.check import (
    TINY,
    Outcome,
    Problem,
    Report,
    check,
    compared,
    expected,
    gate,
    outputs,
    problems,
    totals,
)
from rnnbench.check.problem import INPUT_CHANGE
from rnnbench.store import Case

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
        changed_gradients('grads.params["weight_hr_l0"] = dy'), "d weight_hr_l0", "is no output of this phase"
    ),
    "NaN in y": Bug(changed_result("y[3, 1, 2] = np.nan"), "y", "is not finite"),
    "infinity in a gradient": Bug(
        changed_gradients('grads.params["weight_ih_l0"][0, 0] = np.inf'), "d weight_ih_l0", "is not finite"
    ),
}  # fmt: skip


@pytest.fixture
def planted(tmp_path):
    """Load a bug as a backend; gives its name and its module."""

    def plant(bug: Bug):
        name = backend_file(tmp_path / "planted.py", bug.methods, bug.module)
        return name, rnnbench.load_backend(name)

    return plant


@pytest.fixture(scope="module")
def lstm_step():
    problem = Problem(step_case(), source="noise")
    return problem, expected(problem)


@pytest.mark.parametrize("title", BUGS)
def test_a_planted_bug_fails_in_its_tensor_far_beyond_the_tolerance_and_is_named(title, planted, lstm_step):
    bug = BUGS[title]
    (name, module), (problem, wanted) = planted(bug), lstm_step
    findings = gate(module, problem, wanted)
    by_name = {finding.tensor: finding for finding in findings}
    found = by_name[bug.tensor]
    assert not found.passed
    assert found.ratio >= CAUGHT
    assert found.reason == bug.reason
    if bug.reason:
        assert found.error is None
        assert found.ratio == math.inf
    report = Report(name, [Outcome(problem, findings)])
    assert not report.passed
    assert "1 FAILED" in report.table()
    assert str(max((f for f in findings if not f.passed), key=lambda f: f.ratio)) in report.table()


def test_a_change_of_one_tensor_is_found_in_that_tensor_alone(planted, lstm_step):
    problem, wanted = lstm_step
    _, module = planted(BUGS["one gate's weight gradient scaled by 1.001"])
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


def test_right_backends_pass_every_cell_and_report_nothing_but_ratios_below_one():
    names = ["numpy_ref", "numba_cpu"]
    # numba_cpu compiles for seconds per cell: its own tests check the others
    reports = check({name: rnnbench.load_backend(name) for name in names}, cells=["lstm"])
    reports += check({"numpy_ref": rnnbench.load_backend("numpy_ref")}, cells=["elman", "gru", "gru_reset_before"])
    for report in reports:
        assert report.passed, report.table()
        assert report.failures == []
        assert "FAILED" not in report.table()
        assert all(0 <= finding.ratio <= 1 for outcome in report.outcomes for finding in outcome.findings)
    assert totals(reports) == {"passed": sum(len(report.outcomes) for report in reports)}


def test_a_conformance_run_fails_for_each_cell_in_which_a_backend_is_wrong(planted):
    bug = Bug(changed_gradients("grads.params['weight_ih_l0'][...] *= 1.001"), "d weight_ih_l0")
    name, module = planted(bug)
    (report,) = check({name: module}, cells=["lstm", "gru"], sizes=TINY)
    assert not report.passed
    lines = report.table().splitlines()
    assert lines[0] == name
    for line, cell, dtype in zip(lines[1:5], ["lstm"] * 2 + ["gru"] * 2, ["float32", "float64"] * 2, strict=True):
        assert line.split()[:2] == [cell, dtype]
        assert line.endswith("FAILED")
        assert "in d weight_ih_l0" in line
    forward = [outcome for outcome in report.outcomes if outcome.problem.case.phase == "forward"]
    assert forward
    assert all(outcome.passed for outcome in forward)
    assert all(not outcome.passed for outcome in report.outcomes if outcome.problem.case.phase != "forward")


def test_a_bug_that_only_truncation_shows_is_found(planted):
    """The state after a window is one that was carried: a backend that starts each window from zeros passes whole steps."""
    methods = """
        calls = 0

        def record(self, x, state=None):
            self.calls += 1
            return self.net.record(x, state if self.calls == 1 else None)
    """
    name, module = planted(Bug(methods, "y"))
    (report,) = check({name: module}, cells=["lstm"])
    assert {outcome.problem.case.phase for outcome in report.failures} == {"tbptt"}
    assert all(outcome.worst.ratio >= CAUGHT for outcome in report.failures)


def test_an_exception_is_a_failure_of_its_problem_and_the_others_go_on(planted):
    methods = """
        def backward(self, tape, dy, dstate=None):
            if self.net.spec.num_layers == 2:
                raise ValueError("two layers are\\nbeyond me")
            return self.net.backward(tape, dy, dstate)
    """
    name, module = planted(Bug(methods, ""))
    (report,) = check({name: module}, cells=["elman"], sizes=TINY)
    failing = {(outcome.problem.case.layers, outcome.problem.case.phase) for outcome in report.failures}
    assert failing == {(2, "step"), (2, "tbptt")}
    assert all(outcome.raised == "raised ValueError: two layers are\nbeyond me" for outcome in report.failures)
    assert "raised ValueError: two layers are" in report.first_failure()
    assert not report.passed


def test_an_exception_while_asked_what_is_supported_is_a_failure_too(planted):
    module_source = """
        def supports(spec):
            raise RuntimeError("no idea")
    """
    name, module = planted(Bug("pass", "", module=module_source))
    (report,) = check({name: module}, cells=["elman"], sizes=TINY)
    assert {outcome.raised for outcome in report.outcomes} == {"raised RuntimeError: no idea"}


def test_a_skip_shows_the_backend_s_own_reason(planted):
    module_source = """
        def supports(spec):
            return f"no kernel for {spec.cell} in {spec.dtype}" if spec.dtype == "float64" else None
    """
    name, module = planted(Bug("pass", "", module=module_source))
    (report,) = check({name: module}, cells=["elman"], sizes=TINY)
    assert report.passed
    assert "elman                    float64  skipped: no kernel for elman in float64" in report.table()
    ran = [outcome for outcome in report.outcomes if outcome.skipped is None]
    assert {outcome.problem.case.dtype for outcome in ran} == {"float32"}
    assert totals([report]) == {"passed": len(ran), "skipped": len(report.outcomes) - len(ran)}


def test_a_report_in_which_nothing_ran_does_not_pass(planted):
    module_source = """
        def supports(spec):
            return "nothing at all"
    """
    name, module = planted(Bug("pass", "", module=module_source))
    (report,) = check({name: module}, cells=["elman"], sizes=TINY)
    assert report.failures == []
    assert not report.passed
    assert not Report("empty").passed


@pytest.mark.parametrize("title", ["reversed dy", "missing gradient", "y in float64", "input dy changed"])
def test_the_snippet_of_the_first_failure_prints_the_same_findings(title, planted):
    name, module = planted(BUGS[title])
    (report,) = check({name: module}, cells=["lstm"], sizes=TINY)
    printed = run_snippet(report)
    for finding in report.failures[0].findings:
        assert str(finding) in printed
    said = report.first_failure().split("\n\n")[0].splitlines()[1:]
    assert [line.strip() for line in said] == printed[: len(said)]


def test_the_snippet_of_a_failure_that_raised_raises_the_same(planted):
    methods = """
        def forward(self, x, state=None):
            raise ArithmeticError(f"of {x.shape}")
    """
    name, module = planted(Bug(methods, ""))
    (report,) = check({name: module}, cells=["gru"], sizes=TINY)
    with pytest.raises(ArithmeticError) as caught:
        run_snippet(report)
    assert f"raised ArithmeticError: {caught.value}" in report.first_failure()


def run_snippet(report: Report) -> list[str]:
    _, _, snippet = report.first_failure().partition("reproduce it with\n\n")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(textwrap.dedent(snippet), "snippet", "exec"), {})
    return printed.getvalue().splitlines()


def test_an_unknown_cell_is_named_with_those_that_are_known():
    with pytest.raises(
        rnnbench.ArgumentError, match=r"^unknown cell 'ltsm'; expected elman, jordan, lstm, gru, gru_reset_before$"
    ):
        check({"numpy_ref": rnnbench.load_backend("numpy_ref")}, cells=["lstm", "ltsm"])


def test_the_problems_of_a_run_hold_every_phase_dtype_depth_direction_and_both_memory_regimes():
    found = problems(["lstm"])
    cases = [problem.case for problem in found]
    assert {case.phase for case in cases} == {"forward", "step", "tbptt"}
    assert {(case.dtype, case.layers, case.bidirectional) for case in cases if case.phase == "step"} == {
        (dtype, layers, bidirectional)
        for dtype in ("float32", "float64")
        for layers in (1, 2)
        for bidirectional in (False, True)
    }
    assert {(problem.scheme, problem.forget_bias) for problem in found} >= {("torch-default", 0.0), ("orthogonal", 3.0)}
    assert {case.bias for case in cases} == {True, False}
    assert all(case.T % case.window and case.stride < case.window < case.T for case in cases if case.phase == "tbptt")
    assert len({problem.seed for problem in found}) == len(found)
