"""A conformance run: whatever a backend does is a finding of its trial, and the run goes on.  Takes 25 s."""

import os
import re
import signal

import psutil
import pytest
from helpers.in_process_checks import IN_TWO_LAYERS, SCALED, here, tiny

import rnnbench
from rnnbench.check import Interrupted, Report, check, check_all, totals, trials
from rnnbench.check.isolation import LOSSES
from rnnbench.check.outcome import WHOLE
from rnnbench.networks.cells import CELLS
from rnnbench.networks.spec import DTYPES, NARROW

SMALL_LIMIT = 8.0
"""Seconds for what takes milliseconds, or for the import of NumPy and SciPy on a busy machine."""


@pytest.fixture(autouse=True)
def _no_process_is_left_behind():
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child not in before and child.is_running()]
    assert [process.cmdline() for process in left] == []


at_hand = pytest.mark.usefixtures("references_at_hand")  # the others check as a user does


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


@at_hand
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
    assert f"in 1 problem: {' '.join(finding.reason.split())}" in " ".join(report.table().split())


@at_hand
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


@at_hand
@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import sys; sys.exit(3)", "crashed: ended with exit code 3 on import"),
        ("import ctypes; ctypes.string_at(0)", "crashed: was killed by SIGSEGV on import"),
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


@at_hand
def test_an_import_that_hangs_is_a_finding(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("import time; time.sleep(600)")
    (report,) = check_all([str(path)], tiny("gru")[:1], time_limit=SMALL_LIMIT)
    assert report.outcomes[0].findings[0].reason == f"hung: no answer within {SMALL_LIMIT:g} s on import"


@at_hand
@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        ("raise RuntimeError('no device')", rnnbench.BackendUnavailable, "cannot be imported: RuntimeError: no device"),
        ("def load(:", rnnbench.BackendUnavailable, "SyntaxError"),
        ("load = print", rnnbench.UnknownBackend, "is not a backend: it lacks asarray, to_numpy"),
    ],
    ids=["raises", "syntax", "lacks"],
)
def test_a_file_that_is_no_backend_is_refused(tmp_path, source, error, said):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(error, match=said):
        check_all(["numpy_ref", str(path)], tiny("gru"))


@at_hand
def test_a_backend_that_cannot_tell_its_versions_is_refused_wherever_it_runs(planted):
    name = planted(module="def info():\n    raise OSError('no driver')\n")
    for backend in (name, rnnbench.load_backend(name)):
        with pytest.raises(rnnbench.BackendUnavailable, match="cannot run here: info raised OSError: no driver"):
            check_all([backend], tiny("gru")[:1])


@at_hand
def test_a_refused_backend_may_be_left_out(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("raise RuntimeError('no device')")
    told = []
    reports = check_all(
        [str(path), "numpy_ref"], tiny("gru")[:3], unavailable=lambda name, error: told.append((name, str(error)))
    )
    assert [report.name for report in reports] == ["numpy_ref"]
    assert told == [(str(path), f"{path} cannot be imported: RuntimeError: no device")]


@at_hand
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


@at_hand
def test_a_file_is_not_imported_in_the_process_that_asks(planted, tmp_path):
    name = planted(module=f"import os, pathlib\npathlib.Path({str(tmp_path / 'who')!r}).write_text(str(os.getppid()))\n")
    assert check_all([name], tiny("gru")[:1])[0].passed
    assert (tmp_path / "who").read_text() == str(psutil.Process().pid)


@at_hand
def test_a_backend_sees_the_variables_that_are_named_and_one_thread(planted, monkeypatch):
    monkeypatch.setenv("A_BACKEND_S_OWN", "7")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    names = ["A_BACKEND_S_OWN", "OMP_NUM_THREADS", "MKL_NUM_THREADS"]
    name = planted(module=f"import os\n\ndef info():\n    return {{n: os.environ[n] for n in {names}}}\n")
    (report,) = check_all([name], tiny("gru")[:1], env=["A_BACKEND_S_OWN"])
    assert report.info == dict(zip(names, "713", strict=True))


@pytest.mark.parametrize("methods", [SCALED, IN_TWO_LAYERS.format(statement="raise ValueError(x.shape)")])
def test_in_this_process_and_in_one_of_its_own_the_findings_are_the_same(planted, methods):
    name = planted(methods)
    todo = [*trials("smoke", ["lstm"]), *tiny("lstm")[::4]]
    apart, near = check_all([name], todo)[0], here(name, todo)
    assert apart.outcomes == near.outcomes
    assert (apart.name, apart.loading) == (near.name, near.loading)
    assert not apart.passed


def test_a_backend_is_found_wrong_in_each_cell_and_in_the_phases_in_which_it_is(planted):
    name = planted(SCALED)
    report = here(name, tiny("lstm", "gru"))
    lines = report.table().splitlines()
    assert lines[0] == f"{name}: WRONG results"
    titles, *rows = (line for line in lines if line.startswith("    ") and "  " in line.strip())
    assert titles.split()[-len(DTYPES) :] == list(DTYPES)
    for row, cell in zip(rows, ["lstm", "gru"], strict=False):
        shown, *entries = re.split(r"  +", row.strip())
        assert shown == cell
        for dtype, entry in zip(DTYPES, entries, strict=True):  # in the narrow ones 1.001 is 1 or the next number
            assert re.fullmatch(r"0\.\d+" if dtype in NARROW else r"WRONG [\d.e+]+", entry)
    for outcome in report.outcomes:
        assert outcome.passed == (outcome.problem.case.phase == "forward" or outcome.problem.case.dtype in NARROW)


def test_a_bug_that_only_truncation_shows_is_found(planted):
    """The state after a window is one that was carried: a backend that starts each window from zeros passes whole steps."""
    methods = """
        calls = 0

        def record(self, x, state=None):
            self.calls += 1
            return self.net.record(x, state if self.calls == 1 else None)
    """
    report = here(planted(methods), tiny("lstm"))
    assert {outcome.problem.case.phase for outcome in report.failures} == {"tbptt"}
    assert {outcome.problem.case.dtype for outcome in report.failures} == set(DTYPES)
    assert all(outcome.worst.ratio >= 10 for outcome in report.failures if outcome.problem.case.dtype not in NARROW)


def test_right_backends_pass_and_every_ratio_is_below_one():
    # numba_cpu compiles for seconds per cell: its own tests check the others
    reports = check_all(["numpy_ref", "numba_cpu"], trials("smoke", ["lstm"]))
    reports.append(here("numpy_ref", tiny("elman", "gru", "gru_reset_before", "jordan")))
    for report in reports:
        assert report.passed, report.table()
        assert "WRONG" not in report.table()
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
    assert "  not supported       float64: no kernel for gru in float64" in report.table().splitlines()
    ran = [outcome for outcome in report.outcomes if outcome.skipped is None]
    assert {outcome.problem.case.dtype for outcome in ran} == set(DTYPES) - {"float64"}
    assert totals([report]) == {"passed": 45, "skipped": 15}


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


# the call


@at_hand
def test_a_slip_is_told_before_anything_starts():
    with pytest.raises(rnnbench.ArgumentError, match=rf"^unknown cell 'ltsm'; expected {', '.join(CELLS)}$"):
        check("numpy_ref", cells=["lstm", "ltsm"])
    with pytest.raises(rnnbench.ArgumentError, match=r"^level is 'quick'; expected one of smoke, standard, full$"):
        check("numpy_ref", level="quick")
    with pytest.raises(rnnbench.ArgumentError, match=r"^no trials; expected at least one$"):
        check_all(["numpy_ref"], [])


def test_one_backend_is_checked_with_one_call():
    report = check("numpy_ref", level="smoke", cells=["gru"])
    assert report.passed
    assert [outcome.trial for outcome in report.outcomes] == trials("smoke", ["gru"])
