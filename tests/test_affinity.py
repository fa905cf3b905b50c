"""Workers on chosen processors: what is asked for is checked before, holds for every thread, and is stored.  Takes 5 s."""

import json
import os
from pathlib import Path

import pytest
from helpers.runs import GOOD, measured, of, planned, planned_by
from helpers.wrapped_reference import backend_file

from rnnbench.cli.main import main
from rnnbench.errors import ArgumentError
from rnnbench.machine.facts import environment
from rnnbench.measure import affinity
from rnnbench.measure.plan import resumed_plan
from rnnbench.results.rows import Failure, Time
from rnnbench.results.writer import Writer

if not hasattr(os, "sched_getaffinity"):
    pytest.skip("this system does not let a process choose its processors", allow_module_level=True)

ALLOWED = os.sched_getaffinity(0)
LAST = str(max(ALLOWED))


def planned_on(tmp_path: Path, names: list[str], processors: str):
    plan = planned(tmp_path, names, [GOOD], affinity=processors)
    plan.run.environment.update(environment(processors))
    return plan


@pytest.mark.parametrize(("given", "meant"), [("5", "5"), ("2,0", "0,2"), ("3,1,2,2", "1-3"), ("0-2,4,6-7,9", "0-2,4,6-7,9")])
def test_a_list_is_put_in_order(monkeypatch, given, meant):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(10)))
    assert affinity.checked(given) == meant


@pytest.mark.parametrize("given", ["", "a", "1,", "-1", "1-", "0x1", "2-1", "1 2", "²", "12", "0-12", "1" * 30])
def test_what_is_no_list_of_processors_of_this_process_is_refused(monkeypatch, given):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 5})
    with pytest.raises(ArgumentError) as caught:
        affinity.checked(given)
    said = f"--affinity is {given!r}; expected processors of this process, which may use 0-2,5"
    assert str(caught.value) == said


def test_it_is_refused_before_anything_else_is_looked_at(capsys):
    assert main(["run", "nope.toml", "--backends", "nope", "--affinity", "99999"]) == 2
    assert capsys.readouterr().err.startswith("rnnbench: --affinity is '99999'; expected processors of this process")


def test_more_threads_than_chosen_processors_are_refused(capsys):
    assert main(["run", "--backends", "numpy_ref", "--affinity", LAST, "--threads", "2"]) == 2
    assert f"--threads is 2 with --affinity {LAST}; expected at most 1" in capsys.readouterr().err


def test_the_run_stores_what_was_asked_for():
    run = planned_by("quick", "--affinity", LAST).run
    assert (run.settings["affinity"], run.environment["affinity"], run.environment["cores"]) == (LAST, LAST, 1)
    run = planned_by("quick").run
    assert (run.settings["affinity"], run.environment["affinity"], run.environment["cores"]) == (None, None, len(ALLOWED))


def test_every_thread_of_a_worker_runs_where_it_was_asked_to_and_this_process_where_it_did(tmp_path):
    module = """
        import json, os, pathlib, threading

        def processors():
            return sorted(os.sched_getaffinity(0))

        threads = [processors()]  # of the import, when libraries start theirs
        other = threading.Thread(target=lambda: threads.append(processors()))
        other.start()
        other.join()
        pathlib.Path(f"{__file__}.{os.getpid()}").write_text(json.dumps(threads))
    """
    name = backend_file(tmp_path / "looks.py", module=module)
    contents = measured(planned_on(tmp_path, [name], LAST))
    workers = [path for path in tmp_path.glob("looks.py.*") if path.name != f"looks.py.{os.getpid()}"]
    assert workers
    assert [json.loads(path.read_text()) for path in workers] == [[[int(LAST)]] * 2] * len(workers)
    assert len(of(Time, contents)) == 1
    assert os.sched_getaffinity(0) == ALLOWED


@pytest.mark.skipif(len(ALLOWED) < 2, reason="there is one processor, from which no thread can stray")
def test_a_backend_whose_threads_may_run_elsewhere_fails_and_is_not_timed(tmp_path):
    strays = f"""
        def record(self, x, state=None):
            import os

            os.sched_setaffinity(0, {ALLOWED})
            return self.net.record(x, state)
    """
    name = backend_file(tmp_path / "strays.py", strays)
    contents = measured(planned_on(tmp_path, ["numpy_ref", name], LAST))
    (failure,) = of(Failure, contents)
    assert (failure.backend, failure.stage, failure.reason) == (name, "time", "error")
    assert f"the run asks for the processors {LAST}; threads of this process may run on " in failure.message
    assert {row.backend for row in of(Time, contents)} == {"numpy_ref"}


def test_a_resumed_run_has_the_processors_that_it_had_or_does_not_go_on(tmp_path, monkeypatch):
    plan = planned_on(tmp_path, ["numpy_ref"], LAST)
    with Writer(plan.path) as writer:
        writer.append(plan.run)
    assert resumed_plan(plan.path).settings.affinity == LAST
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {int(LAST) + 1})
    with pytest.raises(ArgumentError, match=f"affinity is '{LAST}'; expected processors of this process"):
        resumed_plan(plan.path)
