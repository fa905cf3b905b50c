"""While one backend is sampled the others use no processor, whatever their threads would do."""

import sys

import pytest
from helpers.runs import GOOD, measured, of, planned
from helpers.wrapped_reference import backend_file

from rnnbench.cli.main import main
from rnnbench.measure.client import WorkerProcess
from rnnbench.measure.disturbances import MAX_SIBLINGS, combined, is_disturbed
from rnnbench.measure.plan import Settings
from rnnbench.results.rows import Failure, Time
from rnnbench.selftests import siblings
from rnnbench.selftests.siblings import Pair, table

pytestmark = pytest.mark.usefixtures("no_process_left_behind")

SPINS = """
    import threading

    def spin():
        while True:
            pass

    threading.Thread(target=spin, daemon=True).start()
"""
"""A pool that never sleeps: at least of this much is what the pool of a library does for some time after a call."""

SPINS_ELSEWHERE = """
    import subprocess, sys

    subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
"""

linux = pytest.mark.skipif(sys.platform != "linux", reason="this system has no processor clocks of other processes")


def siblings_of_the_reference(tmp_path, module: str) -> list[float]:
    """What the reference's rows say of a backend beside it."""
    name = backend_file(tmp_path / "beside.py", module=module)
    contents = measured(planned(tmp_path, ["numpy_ref", name], [GOOD], rounds=2, vain_repeats=0))
    assert [row for row in of(Failure, contents) if row.backend == "numpy_ref"] == []
    return [row.events["siblings"] for row in of(Time, contents, backend="numpy_ref")]


@linux
@pytest.mark.parametrize("module", [SPINS, SPINS_ELSEWHERE], ids=["in a thread", "in a session of its own"])
def test_what_spins_beside_a_sample_is_stopped(tmp_path, module):
    assert all(used <= MAX_SIBLINGS for used in siblings_of_the_reference(tmp_path, module))


@linux
def test_what_siblings_used_all_the_same_is_stored_and_disturbs(tmp_path, monkeypatch):
    monkeypatch.setattr(WorkerProcess, "stop", lambda _: None)
    found = siblings_of_the_reference(tmp_path, SPINS)
    assert all(used > MAX_SIBLINGS for used in found)
    assert all(is_disturbed({"siblings": used}, 1.0) for used in found)


def test_the_limit_is_one_hundredth_of_a_processor():
    assert not is_disturbed({"siblings": 0.0099}, 1.0)
    assert is_disturbed({"siblings": 0.0101}, 1.0)
    assert combined([{"siblings": 0.0}, {"siblings": 0.5}]) == {"siblings": 0.25}


def test_all_go_on_where_asking_one_of_them_failed(tmp_path):
    module = """
        def load(spec, params, *, threads=None):
            network = Network(numpy_ref.load(spec, params, threads=threads))
            network.calls = 0
            return network
    """
    methods = """
        def record(self, x, state=None):
            import os
            self.calls += 1
            if self.calls == 3:
                os._exit(5)
            return self.net.record(x, state)
    """
    name = backend_file(tmp_path / "dies.py", methods, module)
    contents = measured(planned(tmp_path, ["numpy_ref", name], [GOOD], rounds=2))
    assert [row.stage for row in of(Failure, contents)] == ["time"]
    assert [row.round for row in of(Time, contents, backend="numpy_ref")] == [0, 1]


def test_the_ratio_of_a_pair_in_one_run_is_compared_with_that_of_runs_alone(capsys, monkeypatch, tmp_path):
    """Here on a small case, with processes that spin, and with no bar: the machine is not quiet."""
    name = backend_file(tmp_path / "spins.py", module=SPINS)
    monkeypatch.setattr(siblings, "CASES", [GOOD])
    monkeypatch.setattr(siblings, "BAR", float("inf"))
    monkeypatch.setattr("rnnbench.cli.common.signal.signal", lambda *_: None)
    monkeypatch.setattr(
        siblings, "Settings", lambda rounds: Settings(rounds=rounds, samples=2, shortest_sample=1e-4, vain_repeats=0)
    )
    assert main(["self-test", "siblings", "--rounds", "1", "--backends", f"numpy_ref,{name}"]) == 0
    (pair, within) = capsys.readouterr().out.splitlines()
    assert pair.startswith(GOOD.label())
    assert f"{name} / numpy_ref: " in pair
    assert within.startswith("1 of 1 within ")


def test_pairs_that_lie_apart_by_more_than_the_bar_are_counted():
    apart = [Pair(GOOD, "a", "b", 1.0, 1.019), Pair(GOOD, "a", "c", 1.021, 1.0)]
    assert table(apart).splitlines()[-1] == "1 of 2 within 2%"
