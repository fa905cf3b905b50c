"""The order of things in a run, with workers workers that answer at once."""

import itertools

import msgspec
import pytest
from helpers.runs import (
    GOOD,
    MANY,
    NAMES,
    PASSES,
    Killed,
    assert_complete,
    interrupt_at,
    measured,
    of,
    planned,
)
from helpers.wrapped_reference import backend_file

from rnnbench.machine.facts import machine_name
from rnnbench.measure.plan import Settings, new_plan, resumed_plan, with_suite_settings
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.results.reader import read
from rnnbench.results.rows import End, Failure, Gate, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case
from rnnbench.suite.suite import load_suite

pytestmark = pytest.mark.usefixtures("machine_at_rest", "no_process_left_behind")


def test_in_every_round_each_backend_has_each_case_once(workers, tmp_path):
    contents = measured(planned(tmp_path, NAMES, MANY, rounds=4))
    assert_complete(contents, NAMES, MANY, rounds=4)
    positions = {(row.case, row.round): set() for row in of(Time, contents)}
    for row in of(Time, contents):
        positions[row.case, row.round].add(row.position)
    assert set(map(frozenset, positions.values())) == {frozenset({0, 1})}


@pytest.mark.parametrize("identity", ["a", "b", "c"])  # the shuffle of the cases follows the run's name
def test_within_a_case_the_order_of_backends_rotates_from_round_to_round(workers, tmp_path, identity):
    contents = measured(planned(tmp_path, NAMES, MANY, identity, rounds=4))
    for case in MANY:
        first = [row.backend for row in sorted(of(Time, contents, case=case, position=0), key=lambda row: row.round)]
        assert sorted(first) == sorted(NAMES * 2)
        assert first[0] != first[1] != first[2] != first[3]


def test_within_a_round_the_backends_take_turns_a_sample_each(workers, tmp_path):
    measured(planned(tmp_path, NAMES, [GOOD], samples=3))
    turns = [backend for backend, call, _ in workers.log if call == "sample"]
    assert [turns[::2], turns[1::2]] in ([[a, b, a], [b, a, b]] for a, b in (NAMES, NAMES[::-1]))


def test_cases_are_shuffled_anew_in_each_round_and_the_same_for_the_same_run(workers, tmp_path):
    orders = []
    for folder in ("one", "two"):
        rows = of(Time, measured(planned(tmp_path / folder, ["numpy_ref"], MANY, rounds=6)))
        orders.append([[row.case for row in rows if row.round == number] for number in range(6)])
    assert orders[0] == orders[1]
    assert len(set(map(tuple, orders[0]))) > 1


def test_all_backends_of_a_case_run_one_power_of_two_of_loops_set_by_the_fastest(workers, tmp_path):
    workers.seconds = {"numpy_ref": 3e-3, "numba_cpu": 1e-4}
    contents = measured(planned(tmp_path, NAMES, MANY, rounds=3, shortest_sample=5e-3))
    assert {row.loops for row in of(Time, contents)} == {64}  # the least power of two with 64 x 1e-4 >= 5e-3
    assert {arguments["loops"] for _, call, arguments in workers.log if call == "sample"} == {64}


def test_a_backend_that_says_it_is_fast_sets_no_sample_of_another_beyond_half_a_second(workers, tmp_path):
    workers.seconds = {"numpy_ref": 3e-3, "numba_cpu": 2e-7}
    loops = {(row.backend, row.loops) for row in of(Time, measured(planned(tmp_path, NAMES, [GOOD], shortest_sample=5e-3)))}
    assert loops == {("numpy_ref", 128), ("numba_cpu", 32768)}  # 128 x 3e-3 <= 0.5, and 32768 x 2e-7 >= 5e-3


@pytest.mark.parametrize("seconds", [0.0, -1.0, 1e-9])
def test_a_call_that_took_no_time_is_that_backend_s_failure_and_sets_no_loops(workers, tmp_path, seconds):
    workers.seconds = {"numpy_ref": 3e-3, "numba_cpu": seconds}
    contents = measured(planned(tmp_path, NAMES, [GOOD], shortest_sample=5e-3))
    (failure,) = of(Failure, contents)
    assert (failure.backend, failure.stage, failure.reason) == ("numba_cpu", "time", "error")
    assert failure.message.startswith(f"a call took {seconds:g} s by its own clock")
    assert {(row.backend, row.loops) for row in of(Time, contents)} == {("numpy_ref", 2)}


def test_a_call_that_is_longer_than_a_sample_runs_once(workers, tmp_path):
    workers.seconds = dict.fromkeys(NAMES, 2.0)
    assert {row.loops for row in of(Time, measured(planned(tmp_path, NAMES, MANY[:1])))} == {1}


def test_settings_reach_the_workers_and_the_stored_run(workers, tmp_path):
    suite_file = tmp_path / "asks.toml"
    suite_file.write_text(
        'name = "asks"\ndescription = "d"\nsource = "s"\n'
        '[settings]\nrounds = 3\ninput = "noise"\nseed = 5\ntime_limit = 7.5\n'
        '[[grid]]\ncell = "elman"\nphase = "step"\nT = 3\nB = 2\nI = 3\nH = 4\n'
    )
    suite = load_suite(suite_file)
    settings = with_suite_settings(Settings(samples=4), suite)
    assert settings == Settings(rounds=3, samples=4, input="noise", seed=5, time_limit=7.5)
    plan = new_plan(suite, settings, ["numpy_ref"], tmp_path, ["rnnbench", "run", "asks.toml"])
    contents = measured(plan)
    assert contents.run.settings == msgspec.to_builtins(settings)
    assert contents.run.command == ["rnnbench", "run", "asks.toml"]
    assert plan.path.parent == tmp_path / machine_name()
    assert {row.round for row in of(Time, contents)} == {0, 1, 2}
    assert {len(row.samples) for row in of(Time, contents)} == {4}
    asked = [arguments for _, call, arguments in workers.log if call == "prepare"]
    assert {arguments["time_limit"] for arguments in asked} == {7.5}
    assert {(a["problem"]["seed"], a["problem"]["source"]) for a in asked} == {(5, "noise")}


def test_what_a_window_costs_is_computed_once_per_windowed_case(workers, tmp_path):
    windowed = Case("elman", "tbptt", 8, 2, 3, 4, window=4)
    contents = measured(planned(tmp_path, NAMES, [GOOD, windowed], rounds=2))
    assert of(Truncation, contents) == [Truncation(windowed, 0.5, {})]


def test_a_run_goes_on_rightly_from_wherever_it_ended(workers, tmp_path):
    """Ended at each request in turn, by an interrupt and by a kill, and resumed: complete, and no fact twice."""
    cases = [GOOD, Case("elman", "tbptt", 8, 2, 3, 4, window=4)]
    measured(planned(tmp_path, NAMES, cases, "whole", rounds=2))
    requests = workers.requests
    assert requests > 20
    for ending, number in itertools.product((KeyboardInterrupt, Killed), range(1, requests + 1)):
        workers.requests, workers.end_after, workers.ending = 0, number, ending
        plan = planned(tmp_path, NAMES, cases, f"{ending.__name__}-{number}", rounds=2)
        with pytest.raises(ending):
            measured(plan)
        before = read(plan.path)
        assert [row.interrupted for row in of(End, before)] == ([True] if ending is KeyboardInterrupt else [])
        workers.end_after = None
        resumed = resumed_plan(plan.path)
        assert resumed.resumes
        contents = measured(resumed)
        assert contents.rows[: len(before.rows)] == before.rows
        assert_complete(contents, NAMES, cases, rounds=2)


def test_start_up_is_told_by_the_first_case_of_a_cell_in_a_process_also_in_one_that_replaced_another(
    workers, tmp_path, monkeypatch
):
    """The second case of a cell finds its code in memory, and says nothing about what a start costs."""
    answers, firsts = workers.ask, []

    def ask(self, call, time_limit, **arguments):
        if call == "prepare":
            case = msgspec.convert(arguments["problem"]["case"], Case)
            self.cells = getattr(self, "cells", set())
            first, place = case.cell not in self.cells, (self.backend, case)
            self.cells.add(case.cell)
            if case == crashing:
                self.alive = False
                raise WorkerFailure("crashed", "gone")
            if first:
                firsts.append(place)
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)
    cases = [Case("lstm", "step", T, 2, 3, 4) for T in range(2, 8)]
    for crashing in cases:  # the shuffle puts it now first, now last
        firsts.clear()
        contents = measured(planned(tmp_path, NAMES, cases, f"crash-{crashing.T}"))
        assert [(row.backend, row.case) for row in of(Startup, contents)] == firsts


def test_what_a_gate_refused_is_gated_again_after_a_kill_between_its_two_rows(workers, tmp_path, monkeypatch):
    """Its failure is told then, in its own words, and its gate not twice."""
    answers = workers.ask

    def ask(self, call, time_limit, **arguments):
        refused = (self.backend, call) == ("numba_cpu", "gate")
        return [["y", 1.0, 1e-7, None]] if refused else answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)
    plan = planned(tmp_path, NAMES, [GOOD])
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        writer.append(Gate(GOOD, "numba_cpu", False, {"y": (1.0, 1e-7)}, 0.1))
    contents = measured(resumed_plan(plan.path))
    assert [gate.passed for gate in of(Gate, contents, backend="numba_cpu")] == [False]
    (failure,) = of(Failure, contents)
    assert (failure.stage, failure.reason, failure.message[:9]) == ("gate", "wrong", "y: error ")
    assert of(Time, contents, backend="numba_cpu") == []


def test_a_resumed_run_makes_as_many_loops_as_before(workers, tmp_path):
    """Samples of one case are means over one number of calls, however fast the machine seems the second time."""
    workers.seconds = dict.fromkeys(NAMES, 1e-4)
    plan = planned(tmp_path, NAMES, [GOOD], rounds=2, shortest_sample=5e-3)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    workers.seconds = dict.fromkeys(NAMES, 1e-3)
    rows = of(Time, measured(resumed_plan(plan.path)))
    assert {(row.round, row.loops) for row in rows} == {(0, 64), (1, 64)}


def test_what_is_not_supported_is_told_once_however_often_a_run_is_resumed(workers, tmp_path, monkeypatch):
    answers, name = workers.ask, backend_file(tmp_path / "none.py")

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        return [["unsupported", "not ready"]] if (self.backend, call) == (name, "supports") else answer

    monkeypatch.setattr(workers, "ask", ask)
    plan = planned(tmp_path, ["numpy_ref", name], [GOOD], rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(1))
    assert of(Failure, measured(resumed_plan(plan.path))) == [Failure(GOOD, name, "load", "unsupported", "not ready")]


def test_a_failure_holds_for_the_rest_of_the_run_and_after_it_is_resumed(workers, tmp_path):
    plan = planned(tmp_path, NAMES, MANY, rounds=2)
    with Writer(plan.path) as writer:
        writer.append(plan.run)
        writer.append(Failure(MANY[0], "numba_cpu", "time", "crashed", "gone", 0))
    contents = measured(resumed_plan(plan.path))
    assert of(Time, contents, backend="numba_cpu", case=MANY[0]) == []
    assert len(of(Time, contents, backend="numba_cpu")) == 2 * (len(MANY) - 1)
    assert len(of(Failure, contents)) == 1


def test_a_backend_that_fails_in_one_round_keeps_the_times_that_it_has(workers, tmp_path, monkeypatch):
    plan = planned(tmp_path, NAMES, [GOOD], rounds=3)
    answers, samples = workers.ask, []

    def ask(self, call, time_limit, **arguments):
        if (self.backend, call) == ("numba_cpu", "sample"):
            samples.append(call)
            if len(samples) == PASSES + 1:
                raise WorkerFailure("crashed", "the worker was killed by SIGKILL")
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)
    contents = measured(plan)
    assert [row.round for row in of(Time, contents, backend="numba_cpu")] == [0]
    assert [row.round for row in of(Time, contents, backend="numpy_ref")] == [0, 1, 2]
    assert of(Failure, contents) == [Failure(GOOD, "numba_cpu", "time", "crashed", "the worker was killed by SIGKILL", 1)]
