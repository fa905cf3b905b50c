"""``pytest --rnnbench-backend``: a test per trial, in the words of ``rnnbench check``.  Takes 15 s."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.wrapped_reference import backend_file

from rnnbench.check.levels import trials

OWN = "def test_of_their_own():\n    assert True\n"


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    (folder / "test_theirs.py").write_text(OWN)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--rnnbench-level=smoke", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_right_backend_passes_every_trial_beside_the_tests_of_its_project(tmp_path):
    code, said = run(tmp_path, "--rnnbench-backend=numpy_ref", "-v")
    assert code == 0, said
    assert f"{len(trials('smoke')) + 1} passed" in said
    assert "test_theirs.py::test_of_their_own PASSED" in said
    assert "rnnbench/numpy_ref/lstm step T7 B3 I4 H5 layers2 bidirectional" in said


def test_without_the_option_nothing_of_it_is_seen(tmp_path):
    code, said = run(tmp_path)
    assert (code, "1 passed" in said) == (0, True), said


@pytest.mark.parametrize("processes", ["0", "2"])  # of pytest-xdist, which sends what a test said from one to another
def test_a_wrong_backend_fails_with_what_to_run(tmp_path, processes):
    methods = """
        def record(self, x, state=None):
            y, final, tape = self.net.record(x, state)
            return y * np.float32(1.001), final, tape
    """
    file = backend_file(tmp_path / "theirs.py", methods)
    code, said = run(tmp_path, f"--rnnbench-backend={file}", "-k", "gru and not before and not norm", "-n", processes)
    assert code == 1, said
    assert "3 failed, 1 passed" in said  # steps and tbptt record, forward does not
    assert "y: error " in said
    assert f"backend = rnnbench.load_backend({file!r})" in said
    assert "Traceback" not in said


def test_a_crash_and_a_hang_fail_their_tests_and_no_others(tmp_path):
    methods = """
        def record(self, x, state=None):
            if self.net.spec.cell == "gru":
                import os
                os.abort()
            if self.net.spec.cell == "elman":
                while True:
                    pass
            return self.net.record(x, state)
    """
    file = backend_file(tmp_path / "theirs.py", methods)
    code, said = run(
        tmp_path, f"--rnnbench-backend={file}", "--rnnbench-time-limit=2", "-k", "elman or jordan or lstm or gru and not before"
    )
    assert code == 1, said
    assert "crashed: was killed by SIGABRT" in said
    assert "hung: no answer within 2 s" in said
    assert "passed" in said


def test_what_is_not_supported_is_skipped_with_the_backend_s_reason(tmp_path):
    module = """
        def supports(spec):
            return None if spec.cell == "gru" else f"no kernel for {spec.cell}"
    """
    file = backend_file(tmp_path / "theirs.py", module=module)
    code, said = run(tmp_path, f"--rnnbench-backend={file}", "-rs")
    assert code == 0, said
    assert "no kernel for jordan" in said


def test_an_unknown_backend_is_an_error_of_its_tests(tmp_path):
    code, said = run(tmp_path, "--rnnbench-backend=nunba_cpu", "-k", "jordan")
    assert code == 1, said
    assert "unknown backend 'nunba_cpu'" in said


def test_an_unknown_level_is_refused_before_anything_runs(tmp_path):
    code, said = run(tmp_path, "--rnnbench-level=quick")
    assert code == 4
    assert "invalid choice: 'quick' (choose from" in said
