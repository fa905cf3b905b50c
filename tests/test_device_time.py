"""Device time, from a backend with a timer through a run, its file, tables and exports: a clock of the CPU stands in."""

import csv as csv_module
import io
import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from helpers.runs import GOOD, QUICKLY, assert_complete, measured, of, planned
from helpers.wrapped_reference import backend_file

import rnnbench
from rnnbench.check import Problem
from rnnbench.measure import worker as worker_module
from rnnbench.measure.worker import Worker
from rnnbench.results.rows import Failure, Row, Time
from rnnbench.suite.case import Case

TIMER = """
import time

class Timer:
    waits = 0

    def start(self):
        self.begun, self.waits = time.perf_counter(), 0

    def stop(self):
        self.ended = time.perf_counter()

    def seconds(self):
        assert self.waits == 1, "waited for once, behind the last call"
        return self.ended - self.begun

timer = Timer()

def device_timer():
    return timer

def synchronize():
    timer.waits += 1

def info():
    return {"device": "a device of its own"}
"""
ANSWERS = "\nclass Said(Timer):\n    def seconds(self):\n        return %s\ntimer = Said()\n"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of a backend with a timer and of one without."""
    folder = tmp_path_factory.mktemp("timed")
    timed = backend_file(folder / "timed.py", module=TIMER)
    return measured(planned(folder, ["numpy_ref", timed], [GOOD], rounds=2)), timed


def test_each_sample_has_a_device_time_beside_it_where_the_backend_offers_a_timer(run):
    contents, timed = run
    assert_complete(contents, ["numpy_ref", timed], [GOOD], 2)
    for row in of(Time, contents, backend=timed):
        assert len(row.device_samples) == len(row.samples) == QUICKLY.samples
        assert min(row.device_samples) > 0
    assert all(row.device_samples == [] for row in of(Time, contents, backend="numpy_ref"))


def test_the_calls_under_a_device_timer_are_as_many_as_of_a_sample_and_waited_for_once(tmp_path, monkeypatch):
    for rule in ("threads_set", "cores_used"):  # about a process of a worker's own, which this is not
        monkeypatch.setattr(worker_module, rule, lambda *_: None)
    worker = Worker(backend_file(tmp_path / "timed.py", module=TIMER))
    worker.prepare(Problem(GOOD, source="noise"))
    calls, timer, prepared = [], worker._backend.timer, worker._ready()
    call = prepared.call

    def counted():
        calls.append(call())
        return calls[-1]

    prepared.call = counted
    marks = {}
    start, stop = timer.start, timer.stop
    timer.start = lambda: (marks.update(start=len(calls)), start())
    timer.stop = lambda: (marks.update(stop=len(calls)), stop())
    answer = worker.sample(4, 1)
    assert marks["stop"] - marks["start"] == 4
    assert answer["device_samples"] == [pytest.approx((timer.ended - timer.begun) / 4)]


@pytest.mark.parametrize("said", ["-1e-3", "float('nan')", "float('inf')"])
def test_a_device_time_that_is_none_is_a_failure_in_words(tmp_path, said):
    timed = backend_file(tmp_path / "timed.py", module=TIMER + ANSWERS % said)
    contents = measured(planned(tmp_path, [timed], [GOOD]))
    (failure,) = of(Failure, contents, stage="time")
    assert failure.reason == "error"
    assert "the device timer gave " in failure.message
    assert "expected 0 or more" in failure.message


def test_a_module_may_say_that_it_has_no_device_to_time(tmp_path):
    untimed = backend_file(tmp_path / "untimed.py", module="def device_timer():\n    return None")
    (row,) = of(Time, measured(planned(tmp_path, [untimed], [GOOD])))
    assert row.device_samples == []


def test_numba_cuda_offers_no_timer_in_the_simulator(simulated_gpu):
    from rnnbench.impls import numba_cuda

    assert numba_cuda.device_timer() is None


def test_device_samples_count_as_sampling(run):
    contents, timed = run
    row = of(Time, contents, backend=timed)[0]
    assert row.sampled_seconds == pytest.approx(sum(row.samples + row.left_out + row.device_samples) * row.loops)


def test_what_waits_for_another_device_may_keep_a_core_of_its_own_busy(tmp_path, monkeypatch):
    monkeypatch.setattr(worker_module, "threads_set", lambda *_: None)
    monkeypatch.setattr(worker_module, "cores_used", lambda *_: "two cores were busy")
    elsewhere = Worker(backend_file(tmp_path / "elsewhere.py", module=TIMER))
    here = Worker(backend_file(tmp_path / "here.py"))
    for worker in (elsewhere, here):
        worker.prepare(Problem(GOOD, source="noise"))
    assert elsewhere.sample(1)["samples"]
    with pytest.raises(RuntimeError, match="two cores were busy"):
        here.sample(1)


# older and newer files


def test_rows_without_device_samples_read_and_rows_with_them_read_without_the_field(run, tmp_path):
    class Older(Row, frozen=True, tag="time"):
        case: Case
        backend: str
        round: int
        position: int
        loops: int
        samples: list[float]
        events: dict[str, float] | None = None
        disturbed: bool = False
        left_out: list[float] = msgspec.field(default_factory=list)

    contents, timed = run
    row = of(Time, contents, backend=timed)[0]
    older = msgspec.json.decode(msgspec.json.encode(row), type=Older)
    assert older.samples == row.samples
    newer = msgspec.json.decode(msgspec.json.encode(older), type=Time)
    assert newer == msgspec.structs.replace(row, device_samples=[])


# tables


def test_load_results_has_device_seconds_and_nan_where_there_are_none(run):
    contents, _ = run
    frame = rnnbench.load_results(contents.path)
    for _, of_frame in frame.iterrows():
        (row,) = of(Time, contents, backend=of_frame["backend"], round=of_frame["round"])
        wanted = np.median(row.device_samples) if row.device_samples else np.nan
        np.testing.assert_equal(of_frame["device_seconds"], wanted)
        assert of_frame["seconds"] == np.median(row.samples)


def test_exports_of_all_times_have_the_column(run, command):
    contents, timed = run
    code, out, _ = command("export", "csv", str(contents.path))
    assert code == 0
    rows = list(csv_module.DictReader(io.StringIO(out)))
    assert {row["backend"]: bool(row["device_seconds"]) for row in rows} == {"numpy_ref": False, timed: True}
    pandas, _ = pytest.importorskip("pandas"), pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    assert command("export", "parquet", str(contents.path), "-o", "all.parquet")[0] == 0
    assert pandas.read_parquet("all.parquet")["device_seconds"].notna().sum() == 2


def test_show_has_a_table_of_device_times_where_there_are_any(run, command):
    contents, _ = run
    code, out, _ = command("show", str(contents.path))
    assert code == 0
    _, table = out.split("  device time of a call, ")
    assert "timed.py" in table.splitlines()[1]
    assert "numpy_ref" not in table
    assert GOOD.label() in table
    assert "device time" not in command("show", str(contents.path), "--backend", "numpy_ref")[1]


def test_the_frames_and_documents_of_a_run_have_device_times(run):
    from rnnbench import reports

    contents, timed = run
    data = reports.to_pandas(contents.path)
    rounds = [np.median(row.device_samples) for row in of(Time, contents, backend=timed)]
    by_backend = data.summary.set_index("backend")["device_seconds"]
    assert by_backend[timed] == pytest.approx(np.median(rounds))
    assert np.isnan(by_backend["numpy_ref"])
    assert "device_seconds" in reports.to_csv(data).splitlines()[0].split(",")
    assert {row["backend"]: row["device_seconds"] is not None for row in json.loads(reports.to_json(data))["summary"]} == {
        "numpy_ref": False,
        timed: True,
    }


# events, by stand-ins: there is no GPU here


class Event:
    """Remembers the stream that it was recorded on; 3 ms lie between two of them."""

    def __init__(self, **options):
        self.options, self.stream, self.waited = options, None, False

    def record(self, stream):
        self.stream = stream

    def synchronize(self):
        self.waited = True

    def elapsed_time(self, end):
        assert end.waited, "read before the device has passed it"
        return 3.0


def test_torch_cudas_timer_gives_seconds_between_two_events_on_the_current_stream(monkeypatch):
    torch = pytest.importorskip("torch", reason="torch_cuda needs torch")
    from rnnbench.impls import torch_cuda

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"current on {device}")
    timer = torch_cuda.device_timer()
    timer.start()
    timer.stop()
    assert timer.seconds() == pytest.approx(3e-3)
    for event in (timer._begin, timer._end):
        assert (event.options, event.stream) == ({"enable_timing": True}, "current on cuda:0")


def test_numba_cudas_timer_gives_seconds_between_two_events_on_the_stream_of_the_kernels(monkeypatch):
    timing = pytest.importorskip("rnnbench.impls.numba_cuda.event_timer", reason="numba_cuda's events need numba-cuda")
    cuda = SimpleNamespace(event=Event, event_elapsed_time=lambda begin, end: begin.elapsed_time(end))
    monkeypatch.setattr(timing, "require", lambda: cuda)
    monkeypatch.setattr(timing, "numba_stream", lambda: "the stream of the kernels")
    timer = timing.EventTimer()
    timer.start()
    timer.stop()
    assert timer.seconds() == pytest.approx(3e-3)
    assert {timer._begin.stream, timer._end.stream} == {"the stream of the kernels"}
