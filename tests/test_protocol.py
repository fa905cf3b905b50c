"""How a run measures: what is stored at once, when it stops, what it leaves out, and what disturbs it.

Takes 10 s, most of it for the few tests with real workers.
"""

from typing import ClassVar

import pytest
from test_measure import GOOD, NAMES, Scripted, planned, quiet

from rnnbench.measure import references
from rnnbench.measure import run as run_module
from rnnbench.process import WorkerFailure
from rnnbench.store import Case, Failure, Gate, Time, Truncation, Writer


@pytest.fixture
def workers(monkeypatch):
    """Workers that answer at once; gives their class."""

    class Here(Scripted):
        log: ClassVar[list] = []  # one per test

    monkeypatch.setattr(run_module, "WorkerProcess", Here)
    monkeypatch.setattr(references, "WorkerProcess", Here)
    return Here


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
    assert [[type(row) for row in batch] for batch in batches if isinstance(batch[0], Failure)] == [[Failure, Gate]]


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
