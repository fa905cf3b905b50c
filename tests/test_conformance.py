"""A conformance run: whatever a backend does is a finding of its trial, and the run goes on.  Takes 30 s."""

import contextlib
import io
import itertools
import json
import os
import signal
import textwrap

import msgspec
import psutil
import pytest
from wrapped_reference import backend_file

import rnnbench
from rnnbench.cells import CELLS
from rnnbench.check import (
    LEVELS,
    PROMISES,
    TINY,
    Interrupted,
    Problem,
    Report,
    Trial,
    check,
    check_all,
    json_document,
    problems,
    random_trials,
    text,
    totals,
    trials,
    worst,
)
from rnnbench.check.isolation import LOSSES
from rnnbench.check.levels import LARGEST, LONG_MEMORY_BIAS, networks, simulator_trials
from rnnbench.check.report import WHOLE, loading_code
from rnnbench.spec import DTYPES

SMALL_LIMIT = 4.0
"""Seconds for what takes milliseconds, or for the import of NumPy and SciPy on a busy machine."""

IN_TWO_LAYERS = """
    def record(self, x, state=None):
        if self.net.spec.num_layers == 2:
            {statement}
        return self.net.record(x, state)
"""

SCALED = """
    def record(self, x, state=None):
        y, final, tape = self.net.record(x, state)
        return y * x.dtype.type(1.001), final, tape
"""


def tiny(*cells: str) -> list[Trial]:
    return [Trial(problem) for problem in problems(cells, TINY)]


@pytest.fixture
def planted(tmp_path):
    """Write a backend with methods or functions of its own to a file; gives the file's name."""
    return lambda methods="pass", module="": backend_file(tmp_path / "planted.py", methods, module)


@pytest.fixture(autouse=True)
def _no_process_is_left_behind():
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child not in before and child.is_running()]
    assert [process.cmdline() for process in left] == []


def here(name: str, todo: list[Trial]) -> Report:
    """Check a file's module in this process."""
    return check_all([rnnbench.load_backend(name)], todo)[0]


# what a backend does


FAULTS = {
    "segfault": ("import ctypes; ctypes.string_at(0)", "crashed: was killed by SIGSEGV"),
    "exit": ("import os; os._exit(3)", "crashed: ended with exit code 3"),
    "exit-0": ("raise SystemExit", "crashed: ended with exit code 0"),
    "abort": ("import os, sys; print('last words', file=sys.stderr, flush=True); os.abort()", "SIGABRT: last words"),
    "hang": (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
        f"hung: no answer within {SMALL_LIMIT:g} s",
    ),
    "raises": ("raise ValueError('two layers are\\nbeyond me')", "raised ValueError: two layers are\nbeyond me"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_a_finding_of_its_trial_and_the_run_goes_on(planted, fault):
    statement, said = FAULTS[fault]
    name = planted(IN_TWO_LAYERS.format(statement=statement))
    todo = [trial for trial in tiny("gru") if trial.problem.case.phase == "step"]
    first_bad = next(trial for trial in todo if trial.problem.case.layers == 2)
    chosen = [todo[0], first_bad, todo[1]]
    (report,) = check_all([name], chosen, time_limit=SMALL_LIMIT)
    assert [outcome.trial for outcome in report.outcomes] == chosen
    assert [outcome.passed for outcome in report.outcomes] == [True, False, True]
    (finding,) = report.outcomes[1].findings
    assert (finding.tensor, finding.error, finding.promise) == (WHOLE, None, None)
    assert said in finding.reason
    assert f"failed: 1 problem: {' '.join(finding.reason.split())}" in report.table()


def test_after_some_crashes_the_rest_is_not_run_and_counts_as_failed(planted):
    name = planted(IN_TWO_LAYERS.format(statement="import os; os._exit(1)"))
    todo = tiny("elman")[:15]
    (report,) = check_all([name], todo)
    assert len(report.outcomes) == len(todo)
    reasons = [outcome.findings[0].reason for outcome in report.outcomes]
    crashes = [number for number, reason in enumerate(reasons) if reason and reason.startswith("crashed")]
    assert len(crashes) == LOSSES
    assert set(reasons[crashes[-1] + 1 :]) == {f"not run: crashed or hung {LOSSES} times"}
    assert all(outcome.passed for outcome in report.outcomes[: crashes[0]])
    assert totals([report])["failed"] == len(todo) - crashes[0] - sum(o.passed for o in report.outcomes[crashes[0] :])


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit(3)", "crashed at import: ended with exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "crashed at import: was killed by SIGSEGV"),
    ],
    ids=["exit", "segfault"],
)
def test_an_import_that_crashes_fails_every_trial(tmp_path, source, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    (report,) = check_all([str(path)], tiny("gru")[: LOSSES + 2])
    reasons = [outcome.findings[0].reason for outcome in report.outcomes]
    assert reasons == [said] * LOSSES + [f"not run: crashed or hung {LOSSES} times"] * 2
    assert not report.passed


def test_an_import_that_hangs_is_a_finding(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import time; time.sleep(600)")
    (report,) = check_all([str(path)], tiny("gru")[:1], time_limit=SMALL_LIMIT)
    assert report.outcomes[0].findings[0].reason == f"hung at import: no answer within {SMALL_LIMIT:g} s"


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("raise RuntimeError('no device')", rnnbench.BackendUnavailable, "cannot be imported: RuntimeError: no device"),
        ("def load(:", rnnbench.BackendUnavailable, "SyntaxError"),
        ("load = print", rnnbench.UnknownBackend, "is no backend: it lacks asarray, to_numpy"),
    ],
    ids=["raises", "syntax", "lacks"],
)
def test_a_file_that_is_no_backend_is_refused(tmp_path, source, error, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(error, match=said):
        check_all(["numpy_ref", str(path)], tiny("gru"))


def test_a_backend_that_cannot_tell_its_versions_is_refused_wherever_it_runs(planted):
    name = planted(module="def info():\n    raise OSError('no driver')\n")
    for backend in (name, rnnbench.load_backend(name)):
        with pytest.raises(rnnbench.BackendUnavailable, match="cannot run here: info raised OSError: no driver"):
            check_all([backend], tiny("gru")[:1])


def test_a_refused_backend_may_be_left_out(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no device')")
    told = []
    reports = check_all(
        [str(path), "numpy_ref"], tiny("gru")[:3], unavailable=lambda name, error: told.append((name, str(error)))
    )
    assert [report.name for report in reports] == ["numpy_ref"]
    assert told == [(str(path), f"{path} cannot be imported: RuntimeError: no device")]


def test_what_is_printed_is_no_answer(planted):
    """Not at import, not in a call, not as JSON."""
    module = """
        import os
        print('{"answer": null}', flush=True)

        def synchronize():
            os.write(1, b'{"answer": []}\\n\\xff\\n')
            print("garbage " * 10_000)
    """
    assert check_all([planted(module=module)], tiny("gru")[:4])[0].passed


def test_a_file_is_not_imported_in_the_process_that_asks(planted, tmp_path):
    name = planted(module=f"import os, pathlib\npathlib.Path({str(tmp_path / 'who')!r}).write_text(str(os.getppid()))\n")
    assert check_all([name], tiny("gru")[:1])[0].passed
    assert (tmp_path / "who").read_text() == str(psutil.Process().pid)


def test_a_backend_sees_the_environment_and_one_thread(planted, monkeypatch):
    monkeypatch.setenv("A_BACKEND_S_OWN", "7")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ["A_BACKEND_S_OWN", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    name = planted(module=f"import os\n\ndef info():\n    return {{n: os.environ[n] for n in {names}}}\n")
    assert check_all([name], tiny("gru")[:1])[0].info == dict(zip(names, "713", strict=True))


@pytest.mark.parametrize("methods", [SCALED, IN_TWO_LAYERS.format(statement="raise ValueError(x.shape)")])
def test_in_this_process_and_in_one_of_its_own_the_findings_are_the_same(planted, methods):
    name = planted(methods)
    todo = [*trials("smoke", ["lstm"]), *tiny("lstm")]
    apart, near = check_all([name], todo)[0], here(name, todo)
    assert apart.outcomes == near.outcomes
    assert (apart.name, apart.loading) == (near.name, near.loading)
    assert not apart.passed


def test_a_backend_is_found_wrong_in_each_cell_and_in_the_phases_in_which_it_is(planted):
    name = planted(SCALED)
    report = here(name, tiny("lstm", "gru"))
    lines = report.table().splitlines()
    assert lines[0] == name
    for line, (cell, dtype) in zip(lines[1:7], itertools.product(["lstm", "gru"], DTYPES), strict=True):
        assert line.split()[:2] == [cell, dtype]
        if dtype == "bfloat16":  # in which 1.001 is 1
            assert line.endswith(" ok")
        else:
            assert line.endswith(" 11 FAILED")
            assert " in y " in line
    for outcome in report.outcomes:
        assert outcome.passed == (outcome.problem.case.phase == "forward" or outcome.problem.case.dtype == "bfloat16")


def test_a_bug_that_only_truncation_shows_is_found(planted):
    """The state after a window is one that was carried: a backend that starts each window from zeros passes whole steps."""
    methods = """
        calls = 0

        def record(self, x, state=None):
            self.calls += 1
            return self.net.record(x, state if self.calls == 1 else None)
    """
    report = here(planted(methods), [Trial(problem) for problem in problems(["lstm"])])
    assert {outcome.problem.case.phase for outcome in report.failures} == {"tbptt"}
    assert {outcome.problem.case.dtype for outcome in report.failures} == set(DTYPES)
    assert all(outcome.worst.ratio >= 10 for outcome in report.failures if outcome.problem.case.dtype != "bfloat16")


def test_right_backends_pass_and_every_ratio_is_below_one():
    # numba_cpu compiles for seconds per cell: its own tests check the others
    reports = check_all(["numpy_ref", "numba_cpu"], trials("smoke", ["lstm"]))
    reports.append(here("numpy_ref", tiny("elman", "gru", "gru_reset_before", "jordan")))
    for report in reports:
        assert report.passed, report.table()
        assert "FAILED" not in report.table()
        assert all(0 <= finding.ratio <= 1 for outcome in report.outcomes for finding in outcome.findings)
    assert totals(reports) == {"passed": sum(len(report.outcomes) for report in reports)}


# skips


def test_a_skip_shows_the_backend_s_own_reason_and_how_often(planted):
    module = """
        def supports(spec):
            return f"no kernel for {spec.cell} in {spec.dtype}" if spec.dtype == "float64" else None
    """
    report = here(planted(module=module), tiny("gru"))
    assert report.passed
    assert "skipped: 15 problems: no kernel for gru in float64" in report.table()
    ran = [outcome for outcome in report.outcomes if outcome.skipped is None]
    assert {outcome.problem.case.dtype for outcome in ran} == set(DTYPES) - {"float64"}
    assert totals([report]) == {"passed": 30, "skipped": 15}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("raise RuntimeError('no idea')", "raised RuntimeError: no idea"),
        ("return True", "raised TypeError: supports returned True; expected None, or the reason why not"),
        ("return ''", "raised TypeError: supports returned ''; expected None, or the reason why not"),
    ],
)
def test_an_answer_to_what_is_supported_that_is_none_is_a_failure(planted, statement, said):
    report = here(planted(module=f"def supports(spec):\n    {statement}\n"), tiny("gru")[:2])
    assert {finding.reason for outcome in report.outcomes for finding in outcome.findings} == {said}
    assert len(report.failures) == 2


def test_a_report_in_which_nothing_ran_does_not_pass(planted):
    report = here(planted(module="def supports(spec):\n    return 'nothing at all'\n"), tiny("gru"))
    assert report.failures == []
    assert not report.passed
    assert not Report("empty").passed


# reports


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
    assert last[1] == "45 passed, 0 failed, 0 skipped in 3 s"


# interruption


@pytest.mark.parametrize("apart", [True, False], ids=["isolated", "here"])
def test_an_interrupted_run_tells_what_is_known(planted, apart):
    def interrupt(done: int, total: int) -> None:
        if done == 4:
            os.kill(os.getpid(), signal.SIGINT)

    name, todo = planted(), tiny("gru")
    with pytest.raises(Interrupted) as caught:
        check_all([name if apart else rnnbench.load_backend(name)], todo, progress=interrupt)
    (report,) = caught.value.reports
    assert 4 <= len(report.outcomes) < len(todo)
    assert all(outcome.passed for outcome in report.outcomes)


# levels


def test_each_level_holds_more_than_the_one_below():
    found = [trials(level) for level in LEVELS]
    sizes = [len(of_level) for of_level in found]
    assert sizes == sorted(sizes)
    assert sizes[0] * 10 < sizes[1] < sizes[2]
    for of_level in found:
        assert {trial.problem.case.cell for trial in of_level} == set(CELLS)
    assert {network(trial) for trial in found[1]} == {network(trial) for trial in found[2]} == set(networks(CELLS))


def network(trial: Trial) -> tuple[str, str, str]:
    return (trial.problem.case.cell, trial.problem.case.nonlinearity, trial.problem.case.dtype)


@pytest.mark.parametrize("level", ["standard", "full"])
def test_every_network_sees_every_promise_that_concerns_it(level):
    by_network: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials(level):
        by_network.setdefault(network(trial), []).append(trial)
        assert all(PROMISES[name].concerns(trial.problem.case) for name in trial.promises)
    for found in by_network.values():
        concerning = {name for trial in found for name in PROMISES if PROMISES[name].concerns(trial.problem.case)}
        assert {name for trial in found for name in trial.promises} == concerning


def test_the_standard_level_holds_every_phase_dtype_depth_direction_and_both_memory_regimes():
    found = [trial.problem for trial in trials("standard", ["lstm"])]
    cases = [problem.case for problem in found]
    assert {case.phase for case in cases} == {"forward", "step", "tbptt"}
    assert {(case.dtype, case.layers, case.bidirectional) for case in cases if case.phase == "step"} >= {
        (dtype, layers, bidirectional) for dtype in DTYPES for layers in (1, 2) for bidirectional in (False, True)
    }
    assert {(problem.scheme, problem.forget_bias) for problem in found} >= {
        ("torch-default", 0.0),
        ("orthogonal", LONG_MEMORY_BIAS),
    }
    assert {case.bias for case in cases} == {True, False}
    assert all(case.T % case.window and case.stride < case.window < case.T for case in cases if case.phase == "tbptt")
    assert len({problem.seed for problem in found}) == len(found)
    assert any(case.H == case.B == case.T == case.I == 1 for case in cases)
    assert any(case.I > case.H > 32 and case.B > 64 for case in cases)


def test_the_full_level_reaches_far():
    cases = [trial.problem.case for trial in trials("full")]
    assert max(case.T for case in cases) == 4096
    assert max(case.H for case in cases) == 1024
    for name in ("H", "B", "I"):
        assert {1, 2, 3, 5, 15, 16, 17, 31, 33, 63, 64, 65, 127, 129} <= {getattr(case, name) for case in cases}


def test_random_trials_are_the_same_for_the_same_seed_and_valid_for_each():
    found = random_trials(300, 7)
    assert random_trials(20, 7) == found[:20]
    assert random_trials(20, 8) != found[:20]
    cases = [trial.problem.case for trial in found]
    for case in cases:
        case.spec()
        assert all(1 <= getattr(case, name) <= limit for name, limit in LARGEST.items())
    for name, limit in LARGEST.items():
        assert max(getattr(case, name) for case in cases) > 0.8 * limit
        assert sorted(getattr(case, name) for case in cases)[150] < 0.1 * limit
    for name in ("cell", "phase", "layers", "bidirectional", "bias", "dtype", "nonlinearity"):
        assert len({getattr(case, name) for case in cases}) > 1, name
    assert {trial.problem.scheme for trial in found} == {"torch-default", "xavier", "orthogonal"}
    assert all(trial.problem.case.cell == "gru" for trial in random_trials(20, 7, ["gru"]))


def test_the_simulator_gets_little():
    assert 0 < len(simulator_trials("smoke")) < len(simulator_trials("standard")) == len(problems())
    assert {trial.problem.case.T for trial in simulator_trials("standard")} == {TINY.T}
    with pytest.raises(rnnbench.ArgumentError, match=r"^level is 'full' for the simulator; expected smoke or standard"):
        simulator_trials("full")


def test_a_slip_is_told_before_anything_starts():
    with pytest.raises(
        rnnbench.ArgumentError, match=r"^unknown cell 'ltsm'; expected elman, jordan, lstm, gru, gru_reset_before$"
    ):
        check("numpy_ref", cells=["lstm", "ltsm"])
    with pytest.raises(rnnbench.ArgumentError, match=r"^level is 'quick'; expected one of smoke, standard, full$"):
        check("numpy_ref", level="quick")
    with pytest.raises(rnnbench.ArgumentError, match=r"^no trials; expected at least one$"):
        check_all(["numpy_ref"], [])


def test_one_backend_is_checked_with_one_call():
    report = check("numpy_ref", level="smoke", cells=["gru"])
    assert report.passed
    assert [outcome.trial for outcome in report.outcomes] == trials("smoke", ["gru"])
