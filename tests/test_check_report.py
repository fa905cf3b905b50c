"""What a conformance run says: its table, the code that repeats its first failure, its JSON document.  Takes 8 s."""

import contextlib
import io
import json
import textwrap

import msgspec
import pytest
from checked_here import IN_TWO_LAYERS, SCALED, here, tiny
from wrapped_reference import backend_file

import rnnbench
from rnnbench.check import TINY, Problem, check_all, json_document, text, totals, trials, worst
from rnnbench.check.report import WHOLE, loading_code


def run_snippet(told: str) -> list[str]:
    _, _, snippet = told.partition("repeat it with\n\n")
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
    said = report.first_failure().partition("\n\n")[0].splitlines()
    assert said[0].startswith(f"first failure of {name}: jordan step T3 B2 I3 H4 layers2 bidirectional output_size5 orthogonal")
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


def test_the_text_ends_with_the_worst_and_the_totals():
    (report,) = reports = [here("numpy_ref", tiny("gru"))]
    last = text(reports, 3.4).splitlines()[-2:]
    largest = max(finding.ratio for outcome in report.outcomes for finding in outcome.findings)
    assert last[0].startswith(f"worst error/tolerance {largest:.3g} in ")
    assert "rnnbench.impls.numpy_ref, gru " in last[0]
    assert last[1] == f"{len(report.outcomes)} passed, 0 failed, 0 skipped in 3 s"
