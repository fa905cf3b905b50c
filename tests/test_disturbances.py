"""What the machine does to a measurement: when that is told, and when a round is measured once more."""

from collections import Counter

import msgspec
import pytest
from helpers.runs import GOOD, NAMES, PASSES, WIDE, measured, of, planned

from rnnbench.check import Problem
from rnnbench.measure import disturbances
from rnnbench.measure.plan import Settings, quicker, resumed_plan
from rnnbench.measure.worker import Worker
from rnnbench.reports import summary_text, to_pandas
from rnnbench.results.frame import load_results
from rnnbench.results.rows import End, Time
from rnnbench.suite.case import Case

# what disturbs it


def disturbed_in(workers, monkeypatch, *, backend, turns, events) -> None:
    """Have ``events`` happen to a backend in the measurements of those numbers; nothing happens in the others."""
    answers, count = workers.ask, Counter()

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        if call == "sample":
            count[self.backend] += 1
            hit = self.backend == backend and -(-count[backend] // PASSES) in turns
            answer["events"] = {"steal": 0.0, "run_delay": 0.0, "canary_s": 1e-3} | (events if hit else {})
            answer["samples"] = [9e-3 if hit else 1e-3] * arguments["count"]
        return answer

    monkeypatch.setattr(workers, "ask", ask)


# of the two samples of 9 ms, 2% and a slice of 4 ms are 24.2%
BEYOND = [{"steal": 0.011}, {"run_delay": 0.243}, {"canary_s": 1.031e-3}, {"canary_s": 0.969e-3}]


@pytest.mark.parametrize("events", BEYOND, ids=str)
def test_a_round_that_the_machine_disturbed_is_measured_once_more_on_all_backends(workers, tmp_path, monkeypatch, events):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[5], events=events)
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
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[5], events=events)
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=6)), backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(n, False) for n in range(6)]
    assert {name: rows[4].events[name] for name in events} == events


def test_a_round_that_is_disturbed_again_is_not_measured_a_third_time(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[1, 2], events={"steal": 1.0})
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=2)), backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(0, True), (0, True), (1, False)]


@pytest.mark.parametrize(("seconds", "limit"), [(0.003, 0.02 + 4 / 3), (0.025, 0.18), (2.0, 0.022), (1000.0, 0.020004)])
def test_waiting_counts_beyond_one_slice_of_the_processor(seconds, limit):
    """Of short samples that is most of their time, of long ones the limit itself."""
    assert not disturbances.is_disturbed({"run_delay": limit * 0.9999}, seconds)
    assert disturbances.is_disturbed({"run_delay": limit * 1.0001}, seconds)


def test_repeats_end_for_a_round_after_three_in_vain_on_end(workers, tmp_path, monkeypatch):
    """The samples are of a case each: seven in a round, all disturbed, then the repeats; the third of these is not."""
    cases = [Case("elman", "step", T, 2, 3, 3) for T in range(2, 9)]
    disturbed = [*range(1, 10), *range(11, 20)]
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=disturbed, events={"steal": 1.0})
    contents = measured(planned(tmp_path, ["numba_cpu"], cases))
    rows = of(Time, contents)
    assert [row.disturbed for row in rows] == [True] * 9 + [False] + [True] * 3
    assert [row.case for row in rows[7:]] == [row.case for row in rows[:6]]
    frames = to_pandas(contents.path)
    assert (len(frames.times), frames.problems) == (7, [])
    assert "until 3 repeats in a row were disturbed too" in summary_text(contents.path)


def test_a_quick_run_repeats_nothing(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[1], events={"steal": 1.0})
    settings = quicker(Settings())
    contents = measured(planned(tmp_path, NAMES, [GOOD], rounds=2, vain_repeats=settings.vain_repeats))
    rows = of(Time, contents, backend="numba_cpu")
    assert [(row.round, row.disturbed) for row in rows] == [(0, True), (1, False)]
    assert len(to_pandas(contents.path).times) == 2 * len(NAMES)
    assert "No round was measured again." in summary_text(contents.path)


def test_a_run_that_goes_on_repeats_what_was_given_up(workers, tmp_path, monkeypatch):
    """The machine may be at rest by then."""
    cases = [Case("elman", "step", T, 2, 3, 3) for T in range(2, 6)]
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=range(1, 8), events={"steal": 1.0})
    plan = planned(tmp_path, ["numba_cpu"], cases)
    assert len(of(Time, measured(plan))) == 4 + 3
    rows = of(Time, measured(resumed_plan(plan.path)))
    assert [row.disturbed for row in rows[7:]] == [False]
    assert [type(row) for row in measured(resumed_plan(plan.path)).rows[-2:]] == [End, End]


def test_what_was_disturbed_is_measured_again_at_the_end_of_the_round(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[1], events={"steal": 1.0})
    cases = [GOOD, WIDE, Case("gru", "step", 3, 2, 3, 3)]
    rows = of(Time, measured(planned(tmp_path, NAMES, cases, rounds=2)), backend="numba_cpu")
    assert [row.round for row in rows] == [0] * 4 + [1] * 3
    assert rows[3].case == rows[0].case


def test_a_run_that_ended_before_a_repeat_makes_it_when_it_goes_on(workers, tmp_path, monkeypatch):
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[1], events={"steal": 1.0})
    plan = planned(tmp_path, NAMES, [GOOD], rounds=2)

    def interrupted(done, total, what, left):
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
    disturbed_in(workers, monkeypatch, backend="numba_cpu", turns=[1, 3], events={"steal": 1.0})
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
    for turns, named in (([1], False), ([1, 3], True)):
        with monkeypatch.context() as patched:
            disturbed_in(workers, patched, backend="numba_cpu", turns=turns, events={"steal": 1.0})
            contents = measured(planned(tmp_path, NAMES, [GOOD], f"{len(turns)}", rounds=6))
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
    watched = proc(tmp_path, 0, 0, {1: 1_000_000_000, 2: 0})
    with monkeypatch.context() as patched:
        patched.setattr(disturbances.time, "perf_counter", lambda: next(clock))
        watch = disturbances.Watch(watched)
        proc(tmp_path, 1000, 30, {1: 1_050_000_000, 2: 10_000_000})
        found = watch.events()
    assert found == {"steal": pytest.approx(0.03), "run_delay": pytest.approx(0.03)}


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
    watch = disturbances.Watch(proc(tmp_path, *first, {1: 0}))
    for one in more:
        proc(tmp_path, *one)
        watch.begin()
    proc(tmp_path, *now)
    found = watch.events()
    assert found.get("steal") == steal
    assert disturbances.is_disturbed({"steal": found.get("steal", 0.0)}, 1e-3) is (steal == 0.02)


def test_a_worker_looks_at_what_was_stolen_before_each_case_too(monkeypatch):
    """Judged from the last case's samples on, a quiet case would share in what was stolen since."""
    worker, looks = Worker("numpy_ref"), []
    monkeypatch.setattr(disturbances.Watch, "look", lambda _: looks.append("look"))
    worker.prepare(Problem(GOOD, source="noise"))
    assert looks == ["look"]


def test_a_watch_on_a_system_without_proc_tells_nothing(tmp_path):
    assert disturbances.Watch(tmp_path / "none").events() is None


def test_real_workers_store_events_where_the_system_tells_them(tmp_path):
    (row, *_) = of(Time, measured(planned(tmp_path, ["numpy_ref"], [GOOD])))
    assert (row.events is None) is (disturbances.Watch().events() is None)
    if row.events is not None:
        assert row.events["canary_s"] > 0
