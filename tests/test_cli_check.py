"""``rnnbench check``: what it prints where, and its exit codes.  Takes 10 s."""

import json
import re
import signal
import subprocess
import sys
import time

from helpers.command_lines import without_progress
from helpers.one_layer_backends import KEPT, one_layer_file
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check.levels import SMOKE_PROMISES
from rnnbench.check.promises import PROMISES

WRONG = """
    def record(self, x, state=None):
        y, final, tape = self.net.record(x, state)
        return y * np.float32(1.001), final, tape
"""


def test_check_prints_a_table_and_ends_with_0_where_all_is_right(command, tmp_path):
    path = backend_file(tmp_path / "mine.py")
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "gru_reset_before", "--level", "smoke")
    assert code == 0
    assert without_progress(stderr) == []
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith(" ")][:2] == ["numpy_ref: passed", f"{path}: passed"]
    assert lines[1].startswith("  outputs, gradients  correct in 4 problems; largest error / tolerance: 0.")
    assert [float(ratio) < 1 for ratio in re.findall(r"^ +gru_reset_before +(\S+)$", text, re.MULTILINE)] == [True, True]
    assert f"  promises            all {len(SMOKE_PROMISES)} kept" in lines
    assert "not tested: results lent, " in text
    assert lines[-1].startswith("8 problems tested, none failed, in ")


def test_check_ends_with_1_where_one_backend_is_wrong_and_says_how_to_see_it(command, tmp_path):
    path = backend_file(tmp_path / "wrong.py", WRONG)
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert without_progress(stderr) == []
    assert f"first failure of {path}: lstm step T7 B3 I4 H5 layers2 bidirectional orthogonal forget bias 3 seed 0" in text
    assert f"backend = rnnbench.load_backend({path!r})" in text
    assert "first failure of numpy_ref" not in text
    # y is scaled in record alone: forward still passes
    assert f"{path}: WRONG results\n  outputs, gradients  WRONG in 3 of 4 problems" in text
    assert text.splitlines()[-1].startswith("8 problems tested, 3 of them failed, in ")


def test_check_ends_with_1_where_a_backend_supports_nothing(command, tmp_path):
    path = backend_file(tmp_path / "none.py", module="def supports(spec):\n    return 'not ready'\n")
    code, text, _ = command("check", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert text.startswith(f"{path}: nothing was tested: no problem is supported\n  not supported       lstm: not ready\n")
    assert text.splitlines()[-1].startswith("0 problems tested, none failed, in ")


def test_check_ends_with_1_where_a_backend_crashes(command, tmp_path):
    path = backend_file(tmp_path / "crashes.py", "def forward(self, x, state=None):\n    import ctypes; ctypes.string_at(0)\n")
    code, text, stderr = command("check", path, "--cell", "lstm", "--level", "smoke")
    assert code == 1
    assert without_progress(stderr) == []
    assert "the call: crashed: was killed by SIGSEGV" in text


def test_cells_may_be_named_several_times_and_trials_drawn_at_random_come_besides(command):
    cells = ["--cell", "gru", "--cell", "lstm", "--cell", "gru"]
    code, text, _ = command("check", "numpy_ref", *cells, "--level", "smoke", "--random", "4", "--seed", "3", "--json")
    assert code == 0
    document = json.loads(text)
    assert (document["level"], document["random"], document["seed"]) == ("smoke", 4, 3)
    asked = [trial["problem"]["case"]["cell"] for trial in document["reports"][0]["trials"]]
    assert asked[:8] == ["gru"] * 4 + ["lstm"] * 4
    assert len(asked) == 12
    assert set(asked) == {"gru", "lstm"}


def test_a_dtype_may_be_named_and_an_unknown_one_is_refused(command):
    code, text, _ = command("check", "numpy_ref", "--cell", "lstm", "--level", "smoke", "--dtype", "float16")
    assert code == 0
    assert re.search(r"^ +error / tolerance +float16\n +lstm +0\.\d+$", text, re.MULTILINE)
    code, text, stderr = command("check", "numpy_ref", "--dtype", "half")
    assert (code, text) == (2, "")
    assert stderr == "rnnbench: unknown dtype 'half'; expected float32, float64, bfloat16, float16\n"


def test_with_json_there_is_nothing_else_on_standard_output(command, tmp_path):
    path = backend_file(tmp_path / "wrong.py", WRONG, "print('hello')")
    code, text, stderr = command("check", "numpy_ref", path, "--cell", "lstm", "--level", "smoke", "--json")
    assert code == 1
    assert without_progress(stderr) == []
    document = json.loads(text)
    assert [report["name"] for report in document["reports"]] == ["numpy_ref", path]
    assert [report["passed"] for report in document["reports"]] == [True, False]
    assert document["totals"] == {"passed": 5, "failed": 3, "skipped": 0}


def test_gradients_alone_may_be_checked_whatever_a_backend_does_about_calls(command, tmp_path):
    path = one_layer_file(tmp_path / "mine.py", KEPT["an update that forgets a weight"])
    options = ["--cell", "gru", "--level", "smoke"]
    code, text, _ = command("check", path, *options)
    assert code == 1
    assert text.startswith(f"{path}: correct results, but broken promises\n")
    assert "\n  outputs, gradients  correct in 4 problems" in text
    assert "  promises            BROKEN: 1 of 7\n" in text
    code, text, _ = command("check", path, *options, "--gradients-only")
    assert code == 0
    assert text.startswith(f"{path}: correct results; no promises were tested\n")
    assert "\n  promises " not in text
    assert f"not tested: the {len(PROMISES)} promises about calls\n" in text
    wrong = backend_file(tmp_path / "wrong.py", WRONG)
    assert command("check", wrong, *options, "--gradients-only")[0] == 1


def test_without_names_all_that_can_run_are_checked_and_the_others_named(command):
    code, text, stderr = command("check", "--cell", "elman", "--level", "smoke", "--json")
    assert code == 0
    listing = rnnbench.backends()
    assert [report["name"] for report in json.loads(text)["reports"]] == [entry.name for entry in listing if entry.available]
    told = [f"rnnbench: not checked: {entry.reason}" for entry in listing if not entry.available]
    assert without_progress(stderr) == told


def test_a_check_that_is_interrupted_prints_what_it_knows_and_ends_with_130(tmp_path):
    stuck = "def forward(self, x, state=None):\n    import time; time.sleep(600)\n"
    path = backend_file(tmp_path / "stuck.py", stuck, f"open({str(tmp_path / 'started')!r}, 'w').close()")
    command = [sys.executable, "-m", "rnnbench", "check", path, "--cell", "gru", "--level", "smoke"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not (tmp_path / "started").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        time.sleep(2)  # step and tbptt are done by then, forward never is
        process.send_signal(signal.SIGINT)
        text, stderr = process.communicate(timeout=1800)
    assert process.returncode == 130
    assert text.splitlines()[-1].startswith("3 problems tested, none failed, in ") or "none failed" in text
    assert without_progress(stderr) == ["rnnbench: interrupted; what is printed was known by then"]


def test_the_self_test_prints_its_table_and_tells_whether_a_bug_survived(command, monkeypatch):
    from rnnbench.check import mutation_test as module

    class Outcome:
        passed = True

        def table(self):
            return "2 of 2 planted bugs killed"

    monkeypatch.setattr(module, "self_test", lambda _: Outcome())
    assert command("check", "--self-test")[:2] == (0, "2 of 2 planted bugs killed\n")
    monkeypatch.setattr(Outcome, "passed", False)
    assert command("check", "--self-test")[0] == 1
