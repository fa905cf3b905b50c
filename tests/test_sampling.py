"""Samples between readings of a canary: what is taken again, and what is not."""

import itertools
from dataclasses import replace

import pytest
from runs import GOOD, NAMES, measured, of, planned

from rnnbench.check import Problem
from rnnbench.measure import sampling
from rnnbench.measure import worker as worker_module
from rnnbench.measure.events import usual
from rnnbench.measure.plan import Entry
from rnnbench.measure.sampling import taken
from rnnbench.measure.worker import Worker
from rnnbench.store import Time


@pytest.fixture
def readings(monkeypatch):
    """Have the canary read these, one after the other, and the last one for ever."""

    def read(*seconds: float) -> None:
        rest = itertools.chain(seconds, itertools.repeat(seconds[-1]))
        monkeypatch.setattr(sampling, "canary", lambda: next(rest))

    return read


def numbered(seconds: float = 0.0):
    """Samples that last so long and tell which they are."""
    return itertools.count(seconds + 1e-6, 1e-6).__next__


def places(samples: list[float]) -> list[int]:
    return [round(seconds * 1e6) for seconds in samples]


def test_without_a_limit_none_is_taken_again(readings):
    readings(1.0, 9.0, 2.0)
    kept, left_out, canary = taken(numbered(), 3, None)
    assert (places(kept), left_out, canary) == ([1, 2, 3], [], 9.0)


def test_samples_next_to_a_slow_reading_are_taken_again_and_kept_apart(readings):
    """The second reading was slow: it lies beside the first sample and the second."""
    readings(1.0, 1.6, 1.0, 1.02, 1.0)
    kept, left_out, canary = taken(numbered(), 4, 1.03)
    assert (places(kept), places(left_out), canary) == ([3, 4, 5, 6], [1, 2], 1.01)


def test_where_all_are_slow_none_is_taken_again(readings):
    readings(1.6)
    kept, left_out, canary = taken(numbered(), 5, 1.03)
    assert (places(kept), left_out, canary) == ([1, 2, 3, 4, 5], [], 1.6)


def test_no_more_than_three_times_as_many_are_taken_and_the_quiet_ones_come_first(readings):
    readings(1.6, 1.0, 1.0, 1.6)
    kept, left_out, canary = taken(numbered(), 3, 1.03)
    assert (places(kept), places(left_out), canary) == ([2, 1, 3], [4, 5, 6, 7, 8, 9], 1.6)


def test_long_samples_are_not_taken_again(readings):
    readings(1.0, 1.0, 1.6)
    kept, left_out, _ = taken(numbered(sampling.LONGEST_AGAIN), 3, 1.03)
    assert (len(kept), left_out) == (3, [])


def test_the_usual_reading_is_the_lower_quartile_of_enough():
    assert usual([1.0, 1.0, 1.6, 1.6]) is None
    assert usual([0.9, 1.0, 1.6, 1.6, 1.6, 1.6, 1.6]) == 1.0


def limits_asked(workers) -> list[float | None]:
    return [arguments.get("limit") for _, call, arguments in workers.log if call == "sample"]


def read_of(workers, monkeypatch, **answered) -> None:
    answers = workers.ask

    def ask(self, call, time_limit, **arguments):
        answer = answers(self, call, time_limit, **arguments)
        return answer | answered if call == "sample" else answer

    monkeypatch.setattr(workers, "ask", ask)


def test_a_run_asks_for_the_limit_once_it_knows_the_usual_reading_and_stores_what_was_left_out(workers, tmp_path, monkeypatch):
    read_of(workers, monkeypatch, events={"canary_s": 2e-3}, left_out=[7e-3])
    rows = of(Time, measured(planned(tmp_path, NAMES, [GOOD], rounds=4)))
    assert limits_asked(workers) == [None] * 6 + [pytest.approx(2.06e-3)] * 2
    assert all(row.left_out == [7e-3] for row in rows)
    assert rows[0].sampled_seconds == pytest.approx((2 * 1e-3 + 7e-3) * rows[0].loops)


def test_no_worker_is_asked_to_where_one_runs_the_code_of_a_commit_that_cannot(workers, tmp_path, monkeypatch):
    """Else samples would be taken again on one side of a comparison alone."""
    for name, count in (("old", 0), ("new", 2)):
        with monkeypatch.context() as patched:
            read_of(workers, patched, events={"canary_s": 2e-3}, left_out=[])
            file = tmp_path / "new" / "rnnbench" / "measure" / "sampling.py"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            plan = planned(tmp_path, NAMES, [GOOD], name, rounds=4)
            entries = {"numpy_ref": Entry("numpy_ref", code=tmp_path / name), "numba_cpu": Entry("numba_cpu")}
            workers.log.clear()
            measured(replace(plan, entries=entries))
            assert sum(limit is not None for limit in limits_asked(workers)) == count


def test_a_worker_tells_samples_per_call_and_the_median_of_its_readings(readings, monkeypatch):
    monkeypatch.setattr(worker_module, "threads_used", lambda *_: None)  # of this process, which is not a run's
    readings(1.0, 1.0, 1.6, 1.0)
    worker = Worker("numpy_ref")
    worker.prepare(Problem(GOOD, source="noise"))
    answer = worker.sample(4, 3, limit=1.03)
    assert (len(answer["samples"]), len(answer["left_out"])) == (3, 2)
    assert all(0 < seconds < 1 for seconds in answer["samples"] + answer["left_out"])
    assert answer["events"] is None or answer["events"]["canary_s"] == 1.0
