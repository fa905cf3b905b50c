"""How a run measures: what is stored at once, when it stops, and on how many threads.

Takes 10 s, most of it for the few tests with real workers.
"""

import itertools
import sys
import time
from collections import Counter
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from helpers.runs import GOOD, NAMES, NARROW, PASSES, WIDE, interrupt_at, measured, of, planned, quiet
from helpers.wrapped_reference import backend_file

from rnnbench.check import Problem
from rnnbench.compare.inference import enough, may_stop_after
from rnnbench.measure import run as run_module
from rnnbench.measure import thread_use
from rnnbench.measure.plan import resumed_plan
from rnnbench.measure.worker import Worker
from rnnbench.processes.worker_process import WorkerFailure
from rnnbench.results.rows import End, Failure, Gate, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

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
    assert sum(calls[i : i + 5] == ["sample"] * 4 + ["stored"] for i in range(len(calls))) == 3
    assert calls.count("sample") == 3 * 4


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
    """Have each sample take ``seconds(backend, case, number of its round)``."""
    answers, prepared, count = workers.ask, {}, Counter()

    def ask(self, call, time_limit, **arguments):
        if call == "prepare":
            prepared[self.backend] = msgspec.convert(arguments["problem"]["case"], Case)
        if call == "sample":
            key = self.backend, prepared[self.backend]
            count[key] += 1
            return {"samples": [seconds(*key, -(-count[key] // PASSES))], "events": None}
        return answers(self, call, time_limit, **arguments)

    monkeypatch.setattr(workers, "ask", ask)


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
    assert may_stop_after(number)
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
    assert thread_use.cores_used(1, cpu=1.1, wall=1.0) is None
    assert thread_use.cores_used(1, cpu=1.9, wall=1.0) == "the case asks for 1 threads; 1.90 cores were busy"
    assert thread_use.cores_used(4, cpu=8.2, wall=2.0) is None
    assert thread_use.cores_used(4, cpu=8.3, wall=2.0) == "the case asks for 4 threads; 4.15 cores were busy"
    assert thread_use.cores_used(2, cpu=0.0075, wall=0.003) is None  # seen of two threads on two cores


def test_every_library_in_the_process_is_asked_for_its_threads(monkeypatch):
    pools = [{"internal_api": "openblas", "num_threads": 3}, {"internal_api": "openmp", "num_threads": 2}]
    monkeypatch.setattr(thread_use.threadpoolctl, "threadpool_info", lambda: pools)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(get_num_threads=lambda: 4))
    monkeypatch.setitem(sys.modules, "numba", SimpleNamespace(config=SimpleNamespace(NUMBA_NUM_THREADS=5)))
    said = "openblas is set to 3, torch is set to 4, numba is set to 5"
    assert thread_use.threads_set(2) == f"the case asks for 2 threads; {said}"


def test_a_worker_compares_the_time_of_its_processors_with_the_clock_over_all_samples_of_a_case(monkeypatch):
    """Of one sample, which may be short, the margin for ticks would hide a second core that is busy."""
    worker = Worker("numpy_ref")
    problem = Problem(msgspec.structs.replace(GOOD, threads=worker.info()["threads"]), source="noise")
    worker.prepare(problem)
    monkeypatch.setattr(thread_use, "_pool_sizes", lambda: iter(()))
    monkeypatch.setattr(thread_use, "TICK", 3600.0)
    busy = itertools.count(0.0, (problem.case.threads + 1) * 3600.0 * 0.7)
    monkeypatch.setattr(time, "process_time", lambda: next(busy))
    worker.sample(1)
    with pytest.raises(RuntimeError, match="cores were busy"):
        worker.sample(1)
    worker.prepare(problem)
    worker.sample(1)
