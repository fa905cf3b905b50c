"""How a run measures: what is stored at once, when it stops, what it leaves out, and what disturbs it.

Takes 20 s, most of it for the few tests with real workers.
"""

import itertools
import sys
import time
from collections import Counter
from types import SimpleNamespace
from typing import ClassVar

import msgspec
import numpy as np
import pytest
from stored_results import write
from test_measure import GOOD, NAMES, Scripted, interrupt_at, measured, of, planned, quiet
from wrapped_reference import backend_file

from rnnbench.check import Problem
from rnnbench.choice import Measurements, stored
from rnnbench.cli import _parser, main
from rnnbench.commands.merge import merge_contents
from rnnbench.commands.plan import plan_of, seconds
from rnnbench.intervals import FEWEST, MOST
from rnnbench.measure import events, references, verified
from rnnbench.measure import run as run_module
from rnnbench.measure.budget import budget, fitting
from rnnbench.measure.plan import Settings, quicker, resumed_plan, rigorous, until_narrow
from rnnbench.measure.statistics import enough, worth_a_look
from rnnbench.measure.worker import Worker
from rnnbench.process import WorkerFailure
from rnnbench.reports import summary_text, to_pandas
from rnnbench.results import load_results
from rnnbench.store import Case, End, Failure, Gate, Time, Truncation, Writer


@pytest.fixture
def workers(monkeypatch):
    """Workers that answer at once; gives their class."""

    class Here(Scripted):
        log: ClassVar[list] = []  # one per test

    monkeypatch.setattr(run_module, "WorkerProcess", Here)
    monkeypatch.setattr(references, "WorkerProcess", Here)
    return Here


SUITE = """
name = "small"
description = "d"
source = "s"
{settings}
[[grid]]
cell = ["elman", "lstm"]
phase = "step"
T = [3, 30]
B = 2
I = 3
H = [4, 40]
threads = [1, 2]
"""


@pytest.fixture
def suite(tmp_path):
    """Writes a suite of 16 cases and gives its path."""

    def write(settings: str = "") -> str:
        path = tmp_path / "small.toml"
        path.write_text(SUITE.format(settings=settings))
        return str(path)

    return write


def planned_by(*given: str):
    options = _parser().parse_args(["run", "--backends", "numpy_ref", *given])
    options.given = given
    return plan_of(options)


# what is stored at once


class Recorded(Writer):
    """A writer that keeps what was stored at once, and how many requests had been made before."""

    def __init__(self, path, workers) -> None:
        super().__init__(path)
        self.batches = []
        self._workers = workers

    def append_all(self, rows) -> None:
        rows = list(rows)
        self.batches.append(rows)
        self._workers.log.append((None, "stored", {"rows": rows}))
        super().append_all(rows)


def recorded(plan, workers) -> Recorded:
    writer = Recorded(plan.path, workers)
    with writer:
        writer.append(plan.run)
        run_module.run(plan, writer, quiet)
    return writer


WINDOWED = [Case("elman", "tbptt", 8, 2, 3, 4, window=window) for window in (2, 4)]


def test_rows_that_are_known_together_are_stored_at_once(workers, tmp_path):
    many = [GOOD, *WINDOWED, Case("elman", "step", 3, 2, 3, 4, threads=4096), Case("gru", "step", 3, 2, 3, 4, threads=4096)]
    batches = recorded(planned(tmp_path, NAMES, many, rounds=2), workers).batches
    refused = [batch for batch in batches if isinstance(batch[0], Failure)]
    assert [len(batch) for batch in refused] == [4]
    assert [len(batch) for batch in batches if isinstance(batch[0], Truncation)] == [2]
    times = [batch for batch in batches if isinstance(batch[0], Time)]
    assert len(times) == 2 * 3
    for batch in times:
        assert {row.backend for row in batch} == set(NAMES)
        assert len({(row.case, row.round) for row in batch}) == 1


def test_nothing_is_stored_between_the_samples_of_two_backends(workers, tmp_path):
    recorded(planned(tmp_path, NAMES, [GOOD], rounds=3), workers)
    calls = [call for _, call, _ in workers.log]
    assert sum(calls[i : i + 3] == ["sample", "sample", "stored"] for i in range(len(calls))) == 3
    assert calls.count("sample") == 6


def test_a_gate_that_refuses_is_stored_with_its_failure_at_once(workers, tmp_path, monkeypatch):
    answers = workers.ask

    def ask(self, call, time_limit, **arguments):
        if (self.backend, call) == ("numba_cpu", "gate"):
            return [["y", 1.0, 1e-7, None]]
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)
    batches = recorded(planned(tmp_path, NAMES, [GOOD]), workers).batches
    assert [[type(row) for row in batch] for batch in batches if isinstance(batch[-1], Failure)] == [[Gate, Failure]]


def test_what_was_sampled_before_another_backend_failed_is_kept(workers, tmp_path, monkeypatch):
    answers, order = workers.ask, []

    def ask(self, call, time_limit, **arguments):
        if call == "sample":
            order.append(self.backend)
            if len(order) == 2:
                raise WorkerFailure("crashed", "gone")
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)
    batches = recorded(planned(tmp_path, NAMES, [GOOD]), workers).batches
    assert [row.backend for batch in batches for row in batch if isinstance(row, Time)] == order[:1]
    assert pytest.approx([1e-3, 1e-3]) == next(row.samples for batch in batches for row in batch if isinstance(row, Time))


# when it stops


def answering(workers, monkeypatch, seconds) -> None:
    """Have each sample take ``seconds(backend, case, number of its request)``."""
    answers, prepared, count = workers.ask, {}, Counter()

    def ask(self, call, time_limit, **arguments):
        if call == "prepare":
            prepared[self.backend] = msgspec.convert(arguments["problem"]["case"], Case)
        if call == "sample":
            key = self.backend, prepared[self.backend]
            count[key] += 1
            return {"samples": [seconds(*key, count[key])] * arguments["count"], "events": None}
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)


NARROW, WIDE = GOOD, Case("lstm", "step", 3, 2, 3, 3)


def one_case_is_wide(backend, case, number):
    """Of the wide case every other ratio is 2; significance there is beyond doubt from the first rounds on."""
    return 1e-3 if backend == "numpy_ref" else (4e-3 if case == WIDE and number % 2 else 2e-3)


def rounds_of(contents, case, backend) -> list[int]:
    return [row.round for row in of(Time, contents, case=case, backend=backend)]


def test_a_case_whose_ratio_is_known_stops_at_the_fewest_rounds_and_another_goes_on_to_the_most(workers, tmp_path, monkeypatch):
    answering(workers, monkeypatch, one_case_is_wide)
    contents = measured(planned(tmp_path, NAMES, [NARROW, WIDE], rounds=12, most_rounds=17))
    for name in NAMES:
        assert rounds_of(contents, NARROW, name) == list(range(12))
        assert rounds_of(contents, WIDE, name) == list(range(17))


def test_a_case_stops_when_its_ratio_becomes_known_and_not_when_it_is_significant(workers, tmp_path, monkeypatch):
    """The first eight ratios are 2 and 4 by turns, all others 2: five values lie above, and 17 rounds leave out four."""

    def settles(backend, case, number):
        return 1e-3 if backend == "numpy_ref" else (4e-3 if number in (2, 4, 6, 8) else 2e-3)

    answering(workers, monkeypatch, settles)
    contents = measured(planned(tmp_path, NAMES, [GOOD], rounds=12, most_rounds=40))
    number = len(rounds_of(contents, GOOD, "numba_cpu"))
    assert 12 < number < 40
    assert worth_a_look(number)
    ratios = np.log([4 if place in (1, 3, 5, 7) else 2 for place in range(number)])
    assert enough(ratios)
    assert not any(enough(ratios[:fewer]) for fewer in range(12, number))


@pytest.mark.parametrize("rounds", [5, 14])
def test_a_number_of_rounds_that_is_fixed_stays_so(workers, tmp_path, monkeypatch, rounds):
    answering(workers, monkeypatch, one_case_is_wide)
    contents = measured(planned(tmp_path, NAMES, [NARROW, WIDE], rounds=rounds))
    assert {len(rounds_of(contents, case, name)) for case in (NARROW, WIDE) for name in NAMES} == {rounds}


def test_a_backend_alone_has_no_ratio_to_wait_for(workers, tmp_path):
    contents = measured(planned(tmp_path, ["numpy_ref"], [GOOD], rounds=2, most_rounds=40))
    assert rounds_of(contents, GOOD, "numpy_ref") == [0, 1]


def test_a_run_that_goes_on_measures_the_further_rounds_that_were_left(workers, tmp_path, monkeypatch):
    """Also where it ended within them, and then nothing when it is complete."""
    for ended in (3, 26, 28):
        answering(workers, monkeypatch, one_case_is_wide)
        plan = planned(tmp_path, NAMES, [NARROW, WIDE], f"ended-{ended}", rounds=12, most_rounds=17)
        with pytest.raises(KeyboardInterrupt):
            measured(plan, interrupt_at(ended))
        contents = measured(resumed_plan(plan.path))
        assert rounds_of(contents, NARROW, "numba_cpu") == list(range(12))
        assert rounds_of(contents, WIDE, "numba_cpu") == list(range(17))
        again = measured(resumed_plan(plan.path))
        assert [type(row) for row in again.rows[len(contents.rows) :]] == [End]


def test_the_rounds_of_a_run_are_those_of_the_stopping_rule():
    known = until_narrow(Settings())
    assert (known.rounds, known.most) == (FEWEST, MOST)
    assert (rigorous(known).rounds, rigorous(known).most) == (20, MOST)
    assert quicker(known).rounds == quicker(known).most == 5


def test_the_rounds_that_a_suite_or_the_command_line_asks_for_are_fixed(suite):
    asked = {(): (12, 40), ("--rigorous",): (20, 40), ("--quick",): (5, None), ("--rounds", "7"): (7, None)}
    for given, rounds in asked.items():
        settings = planned_by(suite(), *given).settings
        assert (settings.rounds, settings.most_rounds) == rounds
    assert planned_by(suite("[settings]\nrounds = 3"), "--rigorous").settings.rounds == 20
    settings = planned_by(suite("[settings]\nrounds = 3")).settings
    assert (settings.rounds, settings.most) == (3, 3)


@pytest.mark.parametrize("other", ["--quick", "--rounds 3"])
def test_rigorous_beside_another_number_of_rounds_is_refused(capsys, suite, other):
    assert main(["run", suite(), "--rigorous", *other.split()]) == 2
    assert capsys.readouterr().err == f"rnnbench: {other.split()[0]} with --rigorous; expected one of both\n"


# which cases, and what they take


def test_filter_keeps_the_cases_whose_label_has_the_text(suite):
    plan = planned_by(suite(), "--filter", "lstm step T3 ")
    assert {(case.cell, case.T) for case in plan.run.cases} == {("lstm", 3)}
    assert len(plan.run.cases) == 4
    assert plan.run.settings["filter"] == "lstm step T3 "


def test_a_filter_that_no_case_has_is_refused_with_some_labels(capsys, suite):
    assert main(["run", suite(), "--filter", "gru"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("rnnbench: no case has 'gru' in its label; labels are 'elman step T3 B2 I3 H4', ")


def test_threads_replaces_the_threads_of_every_case_and_leaves_no_case_twice(suite):
    whole = planned_by(suite()).run.cases
    plan = planned_by(suite(), "--threads", "1")
    assert len(whole) == 16
    assert plan.run.cases == [case for case in whole if case.threads == 1]
    assert plan.run.settings["threads"] == 1


def test_more_threads_than_cores_are_refused(capsys, suite):
    assert main(["run", suite(), "--threads", "4096"]) == 2
    assert "--threads is 4096; expected at most " in capsys.readouterr().err


@pytest.mark.parametrize(("given", "expected"), [("90s", 90), ("10m", 600), ("1.5h", 5400)])
def test_a_time_to_fit_has_a_unit(given, expected):
    assert seconds(given) == expected


@pytest.mark.parametrize("given", ["10", "m", "-1m", "0s", "1d", "1m30s", ""])
def test_a_time_without_a_unit_is_refused(capsys, given):
    with pytest.raises(SystemExit) as caught:
        main(["run", f"--fit={given}"])
    assert caught.value.code == 2
    assert "is no time; expected a number and s, m or h, as in 10m" in capsys.readouterr().err


NOTHING_STORED = Measurements([])


def test_fit_leaves_out_the_most_expensive_cases_and_no_more_than_it_must(suite):
    whole = budget(planned_by(suite()), NOTHING_STORED)
    limit = whole.seconds(12) * 0.9
    cases, dropped = fitting(whole, limit, 12)
    left = whole._replace(costs=[cost for cost in whole.costs if cost.case in cases])
    assert left.seconds(12) <= limit < whole._replace(costs=[*left.costs, dropped[-1]]).seconds(12)
    assert len(left.costs) + len(dropped) == len(whole.costs)
    assert min(cost.round for cost in dropped) >= max(cost.round for cost in left.costs)
    assert [cost.case for cost in left.costs] == cases  # in the suite's order


def test_fit_says_what_it_left_out_and_stores_the_cases_that_are_left(capsys, suite):
    whole = budget(planned_by(suite(), "--rounds", "3"), NOTHING_STORED)
    plan = planned_by(suite(), "--rounds", "3", "--fit", f"{whole.seconds(3) * 0.95}s")
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert len(plan.run.cases) + len(lines) == 16
    for case in whole.costs:
        named = any(line.startswith(f"rnnbench: left out to fit: {case.case.label()}, about ") for line in lines)
        assert named is (case.case not in plan.run.cases)


def test_a_time_that_no_case_fits_is_refused(capsys, suite):
    assert main(["run", suite(), "--backends", "numpy_ref", "--fit", "1s"]) == 2
    assert "--fit is 1 s; the cheapest case alone needs about " in capsys.readouterr().err


def test_the_estimate_takes_stored_results_where_they_serve_and_a_rate_elsewhere(suite, tmp_path):
    plan = planned_by(suite(), "--filter", "H40")
    case = plan.run.cases[0]
    path = write(tmp_path / "before.jsonl", {("numpy_ref", case): [2.0] * 3})
    found = budget(plan, stored([path], plan.run.environment["machine"]))
    served = [cost for cost in found.costs if (cost.case.cell, cost.case.threads) == (case.cell, case.threads)]
    assert (found.known, found.calls) == (len(served), len(plan.run.cases)) == (2, 8)
    assert served[0].round == pytest.approx(2.0 * (2 + 2 + plan.settings.samples), rel=0.01)
    assert max(cost.round for cost in found.costs if cost not in served) < 1


def test_a_dry_run_prints_cases_backends_rounds_time_and_memory_and_runs_nothing(capsys, suite, tmp_path, workers):
    folder = tmp_path / "none"
    assert main(["run", suite(), "--backends", "numpy_ref", "--threads", "1", "--dry-run", "-o", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "suite small: 8 cases, 12 to 40 rounds, 5 samples a round"
    assert lines[1] == "  numpy_ref"
    assert [line.split("  ")[1] for line in lines[2:10]] == [
        case.label() for case in planned_by(suite(), "--threads", "1").run.cases
    ]
    assert lines[10].startswith("time: about ")
    assert lines[11].startswith("memory: at least ")
    assert not folder.exists()
    assert workers.log == []


def test_runs_of_other_cases_of_one_suite_can_be_merged(workers, tmp_path):
    """Which cases were chosen is no part of how they were measured."""
    both = [
        measured(planned(tmp_path, NAMES, [case], name, filter=name, rounds=1)) for name, case in {"a": GOOD, "b": WIDE}.items()
    ]
    assert merge_contents(both).run.cases == [GOOD, WIDE]


# what disturbs it


def disturbed_in(workers, monkeypatch, *, backend, requests, events) -> None:
    """Have ``events`` happen to a backend in its samples of those numbers; nothing happens in the others."""
    answers, count = workers.ask, Counter()

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        if call == "sample":
            count[self.backend] += 1
            hit = self.backend == backend and count[backend] in requests
            answer["events"] = {"steal": 0.0, "run_delay": 0.0, "canary_s": 1e-3} | (events if hit else {})
            answer["samples"] = [9e-3 if hit else 1e-3] * arguments["count"]
        return answer

    monkeypatch.setattr(workers, "ask", ask)


# of the two samples of 9 ms, 2% and a slice of 4 ms are 24.2%
BEYOND = [{"steal": 0.011}, {"run_delay": 0.243}, {"canary_s": 1.031e-3}, {"canary_s": 0.969e-3}]


@pytest.mark.parametrize("events", BEYOND, ids=str)
def test_a_round_that_the_machine_disturbed_is_measured_once_more_on_all_backends(workers, tmp_path, monkeypatch, events):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[5], events=events)
    contents = measured(planned(tmp_path, NAMES, [GOOD], rounds=6))
    once = [(n, False) for n in range(6)]
    for name in NAMES:
        rows = of(Time, contents, backend=name)
        assert [(row.round, row.disturbed) for row in rows] == [*once[:4], (4, True), *once[4:]]
    raw, *_ = of(Time, contents, backend="numba_cpu", disturbed=True)
    assert raw.samples == [9e-3] * 2
    assert {name: raw.events[name] for name in events} == events


WITHIN = [{"steal": 0.009}, {"run_delay": 0.241}, {"canary_s": 1.029e-3}, {"canary_s": 0.971e-3}]


@pytest.mark.parametrize("events", WITHIN, ids=str)
def test_events_within_their_limits_are_stored_and_disturb_nothing(workers, tmp_path, monkeypatch, events):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[5], events=events)
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=6)), backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(n, False) for n in range(6)]
    assert {name: rows[4].events[name] for name in events} == events


def test_a_round_that_is_disturbed_again_is_not_measured_a_third_time(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[1, 2], events={"steal": 1.0})
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=2)), backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(0, True), (0, True), (1, False)]


@pytest.mark.parametrize(("seconds", "limit"), [(0.003, 0.02 + 4 / 3), (0.025, 0.18), (2.0, 0.022), (1000.0, 0.020004)])
def test_waiting_counts_beyond_one_slice_of_the_processor(seconds, limit):
    """Of short samples that is most of their time, of long ones the limit itself."""
    assert not events.disturbing({"run_delay": limit * 0.9999}, seconds)
    assert events.disturbing({"run_delay": limit * 1.0001}, seconds)


def test_repeats_end_for_a_round_after_three_in_vain_on_end(workers, tmp_path, monkeypatch):
    """The samples are of a case each: seven in a round, all disturbed, then the repeats; the third of these is not."""
    cases = [Case("elman", "step", T, 2, 3, 3) for T in range(2, 9)]
    disturbed = [*range(1, 10), *range(11, 20)]
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=disturbed, events={"steal": 1.0})
    contents = measured(planned(tmp_path, ["numba_cpu"], cases))
    rows = of(Time, contents)
    assert [row.disturbed for row in rows] == [True] * 9 + [False] + [True] * 3
    assert [row.case for row in rows[7:]] == [row.case for row in rows[:6]]
    frames = to_pandas(contents.path)
    assert (len(frames.times), frames.problems) == (7, [])
    assert "until 3 repeats on end were disturbed too" in summary_text(contents.path)


def test_a_quick_run_repeats_nothing(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[1], events={"steal": 1.0})
    settings = quicker(Settings())
    contents = measured(planned(tmp_path, NAMES, [GOOD], rounds=2, vain_repeats=settings.vain_repeats))
    rows = of(Time, contents, backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(0, True), (1, False)]
    assert len(to_pandas(contents.path).times) == 2 * len(NAMES)
    assert "No round was measured again." in summary_text(contents.path)


def test_a_run_that_goes_on_repeats_what_was_given_up(workers, tmp_path, monkeypatch):
    """The machine may be at rest by then."""
    cases = [Case("elman", "step", T, 2, 3, 3) for T in range(2, 6)]
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=range(1, 8), events={"steal": 1.0})
    plan = planned(tmp_path, ["numba_cpu"], cases)
    assert len(of(Time, measured(plan))) == 4 + 3
    rows = of(Time, measured(resumed_plan(plan.path)))
    assert [row.disturbed for row in rows[7:]] == [False]
    assert [type(row) for row in measured(resumed_plan(plan.path)).rows[-2:]] == [End, End]


def test_what_was_disturbed_is_measured_again_at_the_end_of_the_round(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[1], events={"steal": 1.0})
    cases = [GOOD, WIDE, Case("gru", "step", 3, 2, 3, 3)]
    rows = of(Time, measured(planned(tmp_path, NAMES, cases, rounds=2)), backend="numba_cpu")
    assert [row.round for row in rows] == [0] * 4 + [1] * 3
    assert rows[3].case == rows[0].case


def test_a_run_that_ended_before_a_repeat_makes_it_when_it_goes_on(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[1], events={"steal": 1.0})
    plan = planned(tmp_path, NAMES, [GOOD], rounds=2)

    def interrupted(done, total, what):
        if "again" in what:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupted)
    for _ in range(2):
        rows = of(Time, measured(resumed_plan(plan.path)), backend="numba_cpu")
        assert [(row.round, row.disturbed) for row in rows] == [(0, True), (0, False), (1, False)]


def test_where_the_machine_tells_nothing_nothing_is_stored_nor_disturbed(workers, tmp_path):
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=8)))
    assert {row.events for row in rows} == {None}
    assert len(rows) == 16


def test_a_worker_of_an_older_commit_answers_with_its_samples_alone(workers, tmp_path, monkeypatch):
    answers = workers.ask

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        return answer["samples"] if call == "sample" else answer

    monkeypatch.setattr(workers, "ask", ask)
    (row,) = of(Time, measured(planned(tmp_path, NAMES[:1], [GOOD])))
    assert (row.samples, row.events) == ([1e-3, 1e-3], None)


def test_the_frames_take_the_repeat_and_complain_of_nothing(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", requests=[1, 3], events={"steal": 1.0})
    contents = measured(planned(tmp_path, NAMES, [GOOD], rounds=6))
    frames = to_pandas(contents.path)
    assert (frames.times["seconds"] == 1e-3).all()
    assert len(frames.times) == 12
    assert frames.problems == []
    loaded = load_results(contents.path)
    assert (loaded["seconds"] == 1e-3).all()
    assert len(loaded) == 12
    assert "problems" not in loaded.attrs


def test_a_case_that_was_disturbed_in_more_than_a_fifth_of_its_rounds_is_named(workers, tmp_path, monkeypatch):
    for requests, named in (([1], False), ([1, 3], True)):
        with monkeypatch.context() as patched:
            disturbed_in(workers, patched, backend="numba_cpu", requests=requests, events={"steal": 1.0})
            contents = measured(planned(tmp_path, NAMES, [GOOD], f"{len(requests)}", rounds=6))
        claim = "the machine disturbed more than 20% of the rounds of every case"
        assert (claim in summary_text(contents.path)) is named


def test_a_results_file_from_before_events_were_stored_reads_as_it_did():
    before = ["kind", "case", "backend", "round", "position", "loops", "samples"]
    written = msgspec.to_builtins(Time(GOOD, "a", 0, 0, 1, [1.0], {"steal": 1.0}, True))
    row = msgspec.convert({name: written[name] for name in before}, Time)
    assert (row.events, row.disturbed) == (None, False)


def proc(folder, ticks: int, stolen: int, delays: dict[int, int] | None = None):
    """A /proc that has counted so many ticks of 10 ms, some of them stolen, and threads that waited so many nanoseconds."""
    for number, delay in (delays or {}).items():
        thread = folder / "self" / "task" / f"{number}"
        thread.mkdir(parents=True, exist_ok=True)
        (thread / "schedstat").write_text(f"5000 {delay} 7\n")
    (folder / "stat").write_text(f"cpu  {ticks - stolen} 0 0 0 0 0 0 {stolen} 0 0\n")
    return folder


def test_a_watch_tells_what_was_stolen_and_waited_for_since(tmp_path, monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(events, "canary", lambda: 5e-4)
    watched = proc(tmp_path, 0, 0, {1: 1_000_000_000, 2: 0})
    with monkeypatch.context() as patched:
        patched.setattr(events.time, "perf_counter", lambda: next(clock))
        watch = events.Watch(watched)
        proc(tmp_path, 1000, 30, {1: 1_050_000_000, 2: 10_000_000})
        found = watch.events()
    assert found == {"steal": pytest.approx(0.03), "run_delay": pytest.approx(0.03), "canary_s": 5e-4}


@pytest.mark.parametrize(
    ("looks", "now", "steal"),
    [
        ([(0, 0)], (100, 1), 0.01),  # one tick in as little as can be judged: not beyond the limit
        ([(7, 5)], (107, 7), 0.02),
        ([(0, 0)], (99, 50), None),  # too little to judge a tick
        ([(0, 0), (100, 9), (200, 9)], (300, 10), 0.01),  # what was stolen before is over
        ([(0, 0), (100, 9), (200, 9)], (299, 10), pytest.approx(1 / 199, abs=1e-6)),  # the samples were short: from before
        ([(0, 0), (300, 0)], (301, 1), pytest.approx(1 / 301, abs=1e-6)),  # a tick alone would be all of it
    ],
)
def test_stolen_time_is_judged_over_at_least_so_long_that_one_tick_is_within_the_limit(tmp_path, looks, now, steal):
    (first, *more) = looks
    watch = events.Watch(proc(tmp_path, *first, {1: 0}))
    for one in more:
        proc(tmp_path, *one)
        watch.begin()
    proc(tmp_path, *now)
    found = watch.events()
    assert found.get("steal") == steal
    assert events.disturbing({"steal": found.get("steal", 0.0)}, 1e-3) is (steal == 0.02)


def test_a_worker_looks_at_what_was_stolen_before_each_case_too(monkeypatch):
    """Judged from the last case's samples on, a quiet case would share in what was stolen since."""
    worker, looks = Worker("numpy_ref"), []
    monkeypatch.setattr(events.Watch, "look", lambda _: looks.append("look"))
    worker.prepare(Problem(GOOD, source="noise"))
    assert looks == ["look"]


def test_a_watch_on_a_system_without_proc_tells_nothing(tmp_path):
    assert events.Watch(tmp_path / "none").events() is None


def test_real_workers_store_events_where_the_system_tells_them(tmp_path):
    (row, *_) = of(Time, measured(planned(tmp_path, ["numpy_ref"], [GOOD])))
    assert (row.events is None) is (events.Watch().events() is None)
    if row.events is not None:
        assert row.events["canary_s"] > 0


# threads


SETS = """
    def record(self, x, state=None):
        import threadpoolctl

        threadpoolctl.threadpool_limits(2)
        return self.net.record(x, state)
"""


def test_a_backend_that_is_set_to_more_threads_than_its_case_asks_for_fails_and_is_not_timed(tmp_path):
    name = backend_file(tmp_path / "sets.py", SETS)
    contents = measured(planned(tmp_path, ["numpy_ref", name], [GOOD]))
    (failure,) = of(Failure, contents)
    assert (failure.backend, failure.stage, failure.reason) == (name, "time", "error")
    assert "the case asks for 1 threads; openblas is set to 2" in failure.message
    assert {row.backend for row in of(Time, contents)} == {"numpy_ref"}


def test_busy_cores_are_compared_with_the_threads_of_the_case():
    """The margin is a tenth of a core, however many threads there are, and a tick of the kernel's for each."""
    none = {"threads": 1, "wall": 1.0}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(verified, "_numbers", lambda: iter(()))
        assert verified.threads_used(**none, cpu=1.1) is None
        assert verified.threads_used(**none, cpu=1.9) == "the case asks for 1 threads; 1.90 cores were busy"
        assert verified.threads_used(4, cpu=8.2, wall=2.0) is None
        assert verified.threads_used(4, cpu=8.3, wall=2.0) == "the case asks for 4 threads; 4.15 cores were busy"
        assert verified.threads_used(2, cpu=0.0075, wall=0.003) is None  # seen of two threads on two cores


def test_every_library_in_the_process_is_asked_for_its_threads(monkeypatch):
    pools = [{"internal_api": "openblas", "num_threads": 3}, {"internal_api": "openmp", "num_threads": 2}]
    monkeypatch.setattr(verified.threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 4))
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(config=SimpleNamespace(NUMBA_NUM_THREADS=5)))
    said = "openblas is set to 3, torch is set to 4, numba is set to 5"
    assert verified.threads_used(2, cpu=1.0, wall=1.0) == f"the case asks for 2 threads; {said}"


def test_a_worker_compares_the_time_of_its_processors_with_the_clock(monkeypatch):
    """Its processors seem to have been busy for an hour while it took its samples."""
    worker = Worker("numpy_ref")
    worker.prepare(Problem(msgspec.structs.replace(GOOD, threads=worker.info()["threads"]), source="noise"))
    monkeypatch.setattr(verified, "_numbers", lambda: iter(()))
    assert len(worker.sample(1, 2)["samples"]) == 2
    hours = itertools.count(0.0, 3600.0)
    monkeypatch.setattr(time, "process_time", lambda: next(hours))
    with pytest.raises(RuntimeError, match="cores were busy"):
        worker.sample(1, 2)
