"""A time limit tells a worker that hangs from one that compiles, and from one whom other work keeps from a processor.  20 s."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from rnnbench.processes import deadlines
from rnnbench.processes.worker_process import WorkerFailure, WorkerProcess

MODULE = """
import time

import numba
from numba.core import event

from rnnbench.processes.worker_process import serve


class Answers:
    def info(self):
        return {}

    def work(self, seconds: float):
        while time.process_time() < seconds:
            pass
        return "done"

    def sleep(self, seconds: float):
        time.sleep(seconds)

    def compile(self, seconds: float, then: float = 0.0):
        with event.trigger_event("numba:compile"):
            with event.trigger_event("numba:compile"):
                time.sleep(seconds / 2)
            time.sleep(seconds / 2)
        time.sleep(then)
        return "compiled"

    def really_compile(self):
        numba.njit(lambda x: x + 1)(1)


if __name__ == "__main__":
    serve(lambda name: Answers())
"""


@pytest.fixture
def worker(tmp_path):
    (tmp_path / "answers.py").write_text(MODULE)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    started = WorkerProcess("answers", "nobody", os.environ | {"PYTHONPATH": path})
    started.greeting(60)
    yield started
    started.end()


def failure(worker, call: str, limit: float, **arguments: float) -> str:
    with pytest.raises(WorkerFailure) as caught:
        worker.ask(call, limit, **arguments)
    assert caught.value.reason == "timeout"
    return str(caught.value)


def test_a_worker_that_compiles_has_not_hung(worker):
    """Not for itself nor within another; what comes behind it has the usual limit again."""
    assert worker.ask("compile", 1.0, seconds=3.0) == "compiled"
    assert worker.ask("compile", 1.0, seconds=2.0, then=0.2) == "compiled"
    assert failure(worker, "compile", 1.0, seconds=2.0, then=60.0) == "no answer within 1 s"


def test_compiling_has_a_limit_of_its_own(worker, monkeypatch):
    monkeypatch.setattr(deadlines, "COMPILE_LIMIT", 1.0)
    assert failure(worker, "compile", 60.0, seconds=30.0) == "still compiling after 1 s"


def test_numba_tells_of_what_it_compiles(worker, monkeypatch):
    told = []
    monkeypatch.setattr(deadlines.Deadline, "set_compiling", lambda _, compiling: told.append(compiling))
    worker.ask("really_compile", 600.0)
    assert told == [True, False]


def test_a_worker_that_sleeps_has_hung(worker):
    began = time.monotonic()
    assert failure(worker, "sleep", 1.0, seconds=600.0) == "no answer within 1 s"
    assert time.monotonic() - began < 600


@pytest.fixture
def crowded(worker):
    """Three processes that never rest share one processor with the worker."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system does not bind processes to processors")
    one = {min(os.sched_getaffinity(0))}
    # in sessions of their own, as the worker is: Linux shares a processor among sessions first
    crowd = [subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True) for _ in range(3)]
    for number in (worker._process.pid, *(other.pid for other in crowd)):
        os.sched_setaffinity(number, one)
    yield
    for other in crowd:
        other.kill()
        other.wait()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells how long a process waited for a processor")
def test_a_worker_that_waits_for_a_processor_has_not_hung(worker, crowded):
    """It needs 1.5 s of a processor of which it has a quarter; one that never ends is ended all the same."""
    began = time.monotonic()
    assert worker.ask("work", 3.0, seconds=1.5 + spent(worker)) == "done"
    assert time.monotonic() - began > 3.0
    assert failure(worker, "work", 1.0, seconds=1e6) == "no answer within 1 s"


def spent(worker) -> float:
    """Seconds of a processor that the worker has used so far."""
    return sum(psutil.Process(worker._process.pid).cpu_times()[:2])
