"""Passes between readings of a canary: what is made again, and what is not."""

import itertools

import pytest
from helpers.runs import GOOD, NAMES, measured, of, planned

from rnnbench.check import Problem
from rnnbench.measure import worker as worker_module
from rnnbench.measure.disturbances import combined, full_speed_canary
from rnnbench.measure.sampling import MAX_REPEAT_SECONDS, Passes, Sample, take_passes
from rnnbench.measure.worker import Worker
from rnnbench.results.rows import Time

QUIET, SLOW, LIMIT = 1.0, 1.6, 1.03


def passes(*readings: float | None, count: int, limit: float | None = LIMIT, seconds: float = 0.0) -> Passes:
    """Passes of two backends that each tell by their seconds which they are; b's canary reads these, the last for ever."""
    rest = itertools.chain(readings, itertools.repeat(readings[-1]))

    def make(number: int) -> dict[str, Sample]:
        reading = next(rest)
        events = None if reading is None else {"canary_s": reading}
        return {"a": Sample(seconds + number * 1e-6, {"canary_s": QUIET}), "b": Sample(seconds + number * 1e-6, events)}

    return take_passes(make, count, limit)


def places(some) -> list[int]:
    assert all(one["a"].seconds == one["b"].seconds for one in some)
    return [round(one["a"].seconds * 1e6) for one in some]


def test_without_a_limit_no_pass_is_made_again():
    kept, left_out = passes(QUIET, SLOW, QUIET, count=3, limit=None)
    assert (places(kept), left_out) == ([0, 1, 2], [])


def test_a_pass_in_which_one_backend_was_slowed_is_made_again_on_all_and_kept_apart():
    kept, left_out = passes(QUIET, SLOW, QUIET, 1.02, SLOW, QUIET, count=4)
    assert (places(kept), places(left_out)) == ([0, 2, 3, 5], [1, 4])


def test_where_all_are_slow_none_is_made_again():
    kept, left_out = passes(SLOW, count=5)
    assert (places(kept), left_out) == ([0, 1, 2, 3, 4], [])


def test_no_more_than_twice_as_many_are_made_and_the_quiet_ones_count():
    kept, left_out = passes(SLOW, SLOW, QUIET, SLOW, count=3)
    assert (places(kept), places(left_out)) == ([0, 1, 2], [3, 4, 5])
    kept, left_out = passes(QUIET, SLOW, SLOW, SLOW, QUIET, SLOW, count=3)
    assert (places(kept), places(left_out)) == ([0, 1, 4], [2, 3, 5])


def test_long_passes_are_not_made_again():
    """A pass is as long as its samples together."""
    for seconds, again in ((MAX_REPEAT_SECONDS / 2 - 1e-4, 3), (MAX_REPEAT_SECONDS / 2, 0)):
        kept, left_out = passes(QUIET, QUIET, SLOW, count=3, seconds=seconds)
        assert (len(kept), len(left_out)) == (3, again)


def test_where_one_backend_tells_no_reading_none_is_made_again():
    """As one that runs the code of an older commit: passes would be chosen by what slowed the other."""
    found = take_passes(lambda n: {"a": Sample(1e-3, {"canary_s": QUIET if n else SLOW}), "b": Sample(1e-3)}, 3, LIMIT)
    assert (len(found.kept), found.left_out) == (3, [])


def test_events_of_samples_are_those_of_one_as_long_as_all():
    told = [
        {"steal": 0.01, "run_delay": 0.1, "canary_s": 4.0},
        {"steal": 0.0, "run_delay": 0.2, "canary_s": 1.0},
        {"canary_s": 2.0},
    ]
    assert combined(told) == {"steal": 0.01, "run_delay": pytest.approx(0.15), "canary_s": 2.0}
    assert combined([None, None]) is None


def test_the_usual_reading_is_the_lower_quartile_of_enough():
    assert full_speed_canary([1.0, 1.0, 1.6, 1.6]) is None
    assert full_speed_canary([0.9, 1.0, 1.6, 1.6, 1.6, 1.6, 1.6]) == 1.0


def test_a_run_makes_passes_again_once_it_knows_the_usual_reading_and_stores_what_was_left_out(workers, tmp_path, monkeypatch):
    """In the fourth round numba_cpu is slowed in one pass; five readings are known then."""
    answers, sampled = workers.ask, []

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        if call == "sample":
            sampled.append(self.backend)
            slowed = self.backend == "numba_cpu" and sampled.count("numba_cpu") in (2, 7)
            return {"samples": [1e-3 * len(sampled)], "events": {"canary_s": 4e-3 if slowed else 2e-3}}
        return answer

    monkeypatch.setattr(workers, "ask", ask)
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=4)))
    assert [len(row.left_out) for row in rows] == [0] * 6 + [1, 1]
    assert all(len(row.samples) == 2 for row in rows)
    turns = [sorted(turn) for turn in zip(*(row.samples for row in rows[6:]), strict=True)]
    assert turns == [pytest.approx([15e-3, 16e-3]), pytest.approx([17e-3, 18e-3])]
    assert sorted(row.left_out[0] for row in rows[6:]) == pytest.approx([13e-3, 14e-3])
    assert rows[7].sampled_seconds == pytest.approx((sum(rows[7].samples) + rows[7].left_out[0]) * rows[7].loops)


def test_a_worker_tells_seconds_per_call_and_its_slowest_reading(monkeypatch):
    monkeypatch.setattr(worker_module, "threads_set", lambda _: None)  # of this process, which is not a run's
    readings = itertools.chain([1.0, 1.6], itertools.repeat(1.2))
    monkeypatch.setattr(worker_module, "canary", lambda: next(readings))
    worker = Worker("numpy_ref")
    worker.prepare(Problem(GOOD, source="noise"))
    answer = worker.sample(4)
    assert [0 < seconds < 1 for seconds in answer["samples"]] == [True]
    assert answer["events"] is None or answer["events"]["canary_s"] == 1.6


def test_a_worker_warms_up_before_its_first_sample_and_again_where_calls_are_short(monkeypatch):
    """Other backends ran meanwhile; a call that fills a sample of its own is long."""
    monkeypatch.setattr(worker_module, "threads_set", lambda _: None)
    worker, calls = Worker("numpy_ref"), []
    worker.prepare(Problem(GOOD, source="noise"))
    monkeypatch.setattr(worker, "_rotated_call", lambda: calls.append("call"))
    for loops, made_calls in ((1, 2 + 1), (1, 1), (4, 1 + 4)):
        calls.clear()
        worker.sample(loops)
        assert len(calls) == made_calls
