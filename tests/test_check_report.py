"""What a conformance run says: its table, the code that repeats its first failure, its JSON document.  Takes 8 s."""

import contextlib
import io
import json
import textwrap

import msgspec
import pytest
from helpers.in_process_checks import IN_TWO_LAYERS, SCALED, here, tiny
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import (
    PROMISES,
    TINY,
    Finding,
    Outcome,
    Problem,
    Report,
    Trial,
    check_all,
    json_document,
    problems,
    text,
    totals,
    trials,
    worst,
)  # fmt: skip
from rnnbench.check.outcome import WHOLE
from rnnbench.check.refusals import refused
from rnnbench.check.snippet import loading_code
from rnnbench.suite.case import Case


def run_snippet(told: str) -> list[str]:
    _, _, snippet = told.partition("reproduce it with\n\n")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(textwrap.dedent(snippet), "snippet", "exec"), {})
    return printed.getvalue().splitlines()


@pytest.mark.parametrize(
    ("change", "apart"),
    [
        ("y = y * np.float32(1.001)", True),
        ("y = y * np.float32(1.001)", False),
        ("y = y.astype('float64')", False),
        ("x[0, 0, 0] += 1", False),
        ("y = y.swapaxes(0, 1)", False),
    ],
)
def test_the_snippet_of_the_first_failure_prints_what_it_says(planted, change, apart):
    methods = f"""
        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            {change}
            return y, final, tape
    """
    name = planted(methods)
    todo = trials("smoke", ["jordan", "lstm"], TINY)
    report = check_all([name], todo)[0] if apart else here(name, todo)
    told = report.first_failure().partition("\n\nreproduce it with")[0]
    assert told.startswith(f"first failure of {name}: jordan step T3 B2 I3 H4 layers2 bidirectional output_size5 orthogonal")
    said = told.rpartition("smallest problem that still fails: ")[2].splitlines()
    printed = run_snippet(report.first_failure())
    assert len(printed) >= len(said) - 1 > 0
    for line, again in zip(said[1:], printed, strict=False):
        assert line.strip() == again or line.strip().startswith(f"{again}; ") or line.startswith("  and ")


def test_the_snippet_of_a_failure_that_raised_raises_the_same(planted):
    report = here(planted(IN_TWO_LAYERS.format(statement="raise ArithmeticError(f'of {x.shape}')")), tiny("gru"))
    with pytest.raises(ArithmeticError) as caught:
        run_snippet(report.first_failure())
    assert f"{WHOLE}: raised ArithmeticError: {caught.value}" in report.first_failure()


def test_a_backend_is_loaded_again_as_it_was(tmp_path):
    module = rnnbench.load_backend("numpy_ref")
    path = backend_file(tmp_path / "mine.py")
    assert loading_code("numpy_ref") == "rnnbench.load_backend('numpy_ref')"
    assert loading_code(module) == "importlib.import_module('rnnbench.impls.numpy_ref')"
    assert loading_code(rnnbench.load_backend(path)) == f"rnnbench.load_backend({path!r})"
    assert loading_code(object()) == "...  # the object that was checked"


def test_the_lines_of_a_table_fit_a_terminal(planted):
    report = here("numpy_ref", trials("smoke"))
    assert max(map(len, report.table().splitlines())) <= 120


def test_the_json_document_holds_what_was_found(planted):
    module = """
        def supports(spec):
            return "too deep" if spec.num_layers == 2 else None
    """
    reports = [here(planted(SCALED, module), tiny("gru")), here("numpy_ref", tiny("gru"))]
    document = json.loads(json_document(reports, {"level": "standard"}, 1.5), parse_constant=pytest.fail)
    assert document["rnnbench"] == rnnbench.__version__
    assert document["level"] == "standard"
    assert document["passed"] is False
    assert document["totals"] == {name: totals(reports)[name] for name in ("passed", "failed", "skipped")}
    largest = worst(reports)
    assert document["worst"]["finding"]["ratio"] == largest.finding.ratio
    assert msgspec.convert(document["worst"]["problem"], Problem) == largest.problem
    for report, held in zip(reports, document["reports"], strict=True):
        assert (held["name"], held["passed"]) == (report.name, report.passed)
        assert held["info"]["device"] == "cpu"
        assert len(held["trials"]) == len(report.outcomes)
        for outcome, trial in zip(report.outcomes, held["trials"], strict=True):
            assert msgspec.convert(trial["problem"], Problem) == outcome.problem
            assert trial["skipped"] == outcome.skipped
            assert trial["passed"] == (outcome.passed and not outcome.skipped)
            for finding, one in zip(outcome.findings, trial["findings"], strict=True):
                assert {name: one[name] for name in finding._fields} == finding._asdict()
                assert one["passed"] == finding.passed


def test_the_text_ends_with_what_was_not_examined_and_how_many_problems_failed():
    (report,) = reports = [here("numpy_ref", tiny("gru"))]
    last = text(reports, 3.4).splitlines()[-2:]
    assert last == [
        f"not tested: the {len(PROMISES)} promises about calls",
        f"{len(report.outcomes)} problems tested, none failed, in 3 s",
    ]


# verdicts


def spoken(outcomes: list[Outcome], **facts) -> str:
    return " ".join(Report("theirs", outcomes, **facts).table().split())


RIGHT, WRONG = Finding("dx", 0.5, 1.0), Finding("dx", 7.0, 1.0)


def test_right_gradients_are_told_though_promises_are_broken_and_each_says_what_to_change():
    trial = trials("smoke", ["gru"])[0]
    promise = PROMISES["results lent"]
    lent = Finding("dx", None, 1.0, "is not finite", "results lent")
    kept = Finding("y", 0.0, 1.0, None, "results kept")
    said = spoken([Outcome(trial, [lent, RIGHT, kept])])
    assert said.startswith("theirs: correct results, but broken promises")
    assert "outputs, gradients correct in 1 problem; largest error / tolerance: 0.5 (dx, gru step" in said
    assert "promises BROKEN: 1 of 2" in said
    assert f"results lent: {promise.says} dx: is not finite" in said
    assert f"To fix it: {promise.fix} docs/contract.md#results-lent" in said


def test_promises_are_not_judged_by_problems_whose_numbers_are_wrong():
    trial = trials("smoke", ["gru"])[0]
    broken = Finding("dx", 7.0, 1.0, None, "two tapes")
    report = Report("theirs", [Outcome(trial, [WRONG, broken])])
    assert (report.numbers_right, report.broken, report.judged, report.examined) == (False, {}, [], ["two tapes"])
    said = spoken(report.outcomes)
    assert said.startswith("theirs: WRONG results outputs, gradients WRONG in 1 of 1 problem; largest error / tolerance: 7 (dx")
    assert "promises unknown: the results are wrong in every problem that tests one" in said
    report.outcomes.append(Outcome(trial, [RIGHT, broken]))
    assert list(report.broken) == ["two tapes"]


def test_a_promise_of_which_nothing_was_found_was_not_examined():
    """As where the backward direction is to be compared, and a backend has none."""
    trial = trials("standard", ["gru"])[0]._replace(promises=("reversed", "linear"))
    report = Report("theirs", [Outcome(trial, [RIGHT, RIGHT._replace(promise="linear")])])
    assert report.examined == ["linear"]
    assert "not tested second call, " in spoken(report.outcomes)
    assert "reversed" in report.not_examined


def test_what_is_refused_is_told_once_for_each_reason_in_the_backend_s_words():
    def supports(case: Case) -> str | None:
        if case.cell not in ("lstm", "gru"):
            return "LSTM and GRU alone"
        if case.dtype in ("bfloat16", "float16"):
            return "no half precision"
        return "one layer" if case.layers > 1 else None

    every = problems(["lstm", "gru", "elman", "jordan"])
    refusals = {problem: reason for problem in every if (reason := supports(problem.case))}
    ran = [problem for problem in every if problem not in refusals]
    told = refused(refusals, ran)
    assert set(told) == {
        "elman, jordan: LSTM and GRU alone",
        "bfloat16, float16: no half precision",
        "several layers: one layer",
    }
    said = spoken([Outcome(Trial(problem), [RIGHT]) for problem in ran], refusals=refusals)
    assert "elman, jordan: LSTM and GRU alone" in said.partition(" not supported ")[2]


def test_many_reasons_are_cut_short():
    every = problems(["lstm"])
    told = refused({problem: f"reason {number}" for number, problem in enumerate(every)}, every)
    assert len(told) == 7
    assert told[-1] == f"and {len(every) - 6} more reasons"
