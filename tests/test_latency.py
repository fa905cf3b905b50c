"""Single steps are timed one by one, in processes of their own; the table and the rows say the same.  Takes 8 s."""

import csv
import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from rnnbench.measure.latency import QUANTILES, Distribution, Row, distribution, summaries
from rnnbench.measure.latency_worker import LatencyWorker
from rnnbench.suite.case import Case

CASE = Case("lstm", "forward", T=1, B=1, I=3, H=3)

SUITE = """
name = "mine"
description = "Single steps."
source = "This test."

[[grid]]
cell = ["lstm", "gru"]
phase = "forward"
T = 1
B = 1
I = 3
H = 4
"""

TEMPLATE = Path(__file__).parents[1] / "rnnbench/data/template.py"


def test_quantiles_are_times_that_were_measured():
    times = np.arange(1000, 0, -1) * 1e-5
    found = distribution(times, 0.009505, 3)
    assert found.quantiles == pytest.approx(
        {"p50": 5e-3, "p90": 9e-3, "p99": 9.9e-3, "p99.9": 9.99e-3, "p99.99": 1e-2, "max": 1e-2}
    )
    assert (found.steps, found.late, found.preempted) == (1000, 50, 3)
    assert found.mean == pytest.approx(5.005e-3)


def test_rounds_are_summarised_by_medians_and_the_largest_time():
    def row(number: int, factor: float, backend: str = "a", case: Case = CASE) -> Row:
        quantiles = {name: factor * (place + 1) for place, name in enumerate(QUANTILES)}
        return Row(backend, case, number, Distribution(10, quantiles, 1.0, 1, 2))

    larger = msgspec.structs.replace(CASE, H=128)
    rows = [row(0, 1e-3), row(1, 9e-3), row(2, 2e-3), row(0, 1e-3, case=larger), row(0, 1e-4, "b")]
    faster, slower, last = summaries([*rows, Row("c", CASE, 0, failure="no")], frame=0.01)
    assert [one.backend for one in (faster, slower, last)] == ["b", "a", "a"]
    assert (slower.rounds, slower.late, slower.preempted) == (3, 3, 6)
    assert slower.quantiles["p50"] == 2e-3
    assert slower.quantiles["max"] == pytest.approx(6 * 9e-3)
    assert slower.factor == pytest.approx(0.2)
    assert last.case == larger


def test_a_worker_times_as_many_steps_as_it_is_asked_for():
    found = LatencyWorker("numpy_ref").steps(CASE, 20, 10.0, 0)
    assert (found.steps, found.late) == (20, 0)
    assert list(found.quantiles) == list(QUANTILES)
    assert 0 < found.quantiles["p50"] <= found.quantiles["p99"] <= found.quantiles["max"]


def test_steps_that_differ_from_forward_are_not_timed(planted):
    wrong = planted(
        """
        def stream(self, batch_size=1, state=None):
            stream = self.net.stream(batch_size, state)
            right = stream.step
            stream.step = lambda x_t: right(x_t) + 0.01
            return stream
        """
    )
    with pytest.raises(ValueError, match="steps differ from forward by"):
        LatencyWorker(wrong).steps(CASE, 20, 1.0, 0)


def test_a_backend_without_streams_is_refused():
    worker = LatencyWorker(str(TEMPLATE))
    assert worker.refusal(CASE) == "Its networks have no stream."
    both = msgspec.structs.replace(CASE, bidirectional=True)
    assert LatencyWorker("numpy_ref").refusal(both) == "A bidirectional network has no stream."
    assert LatencyWorker("numpy_ref").refusal(CASE) is None


def test_the_command_shows_and_stores_the_steps_of_every_round(command, no_process_left_behind):
    Path("mine.toml").write_text(SUITE)
    options = (
        "--backends",
        f"numpy_ref,{TEMPLATE}",
        "--steps",
        30,
        "--rounds",
        2,
        "--frame",
        1000,
        "--csv",
        "table.csv",
        "--chart",
        "steps.svg",
    )
    code, out, err = command("latency", "mine.toml", *options, "--filter", "lstm")
    assert code == 3  # the template has no streams
    assert f"rnnbench: {TEMPLATE}: lstm forward T1 B1 I3 H4: Its networks have no stream." in err
    head, line, *_ = out.splitlines()
    assert head.split() == ["backend", "p50", "p99", "p99.9", "max", "factor", "late", "preempted"]
    assert line.startswith("lstm forward T1 B1 I3 H4  numpy_ref")
    (file,) = Path("latency").iterdir()
    run, *rows = map(json.loads, file.read_text().splitlines())
    assert run["settings"] == {"steps": 30, "rounds": 2, "frame": 1.0, "seed": 0, "time_limit": 600.0}
    assert run["environment"]["versions"]["numpy"] == np.__version__
    assert [(row["backend"], row["round"]) for row in rows] == [
        ("numpy_ref", 0), (str(TEMPLATE), 0), (str(TEMPLATE), 1), ("numpy_ref", 1)
    ]  # fmt: skip
    times = [msgspec.convert(row, Row) for row in rows]
    assert [one.found.steps for one in times if one.found] == [30, 30]
    assert all(one.info for one in times)
    (summary,) = summaries(times, 1.0)
    (written,) = csv.DictReader(Path("table.csv").read_text().splitlines())
    assert float(written["p99_s"]) == summary.quantiles["p99"]
    assert f"{summary.quantiles['p50'] * 1e6:,.1f}" in line
    assert all(word in Path("steps.svg").read_text() for word in ("numpy_ref", "lstm", *QUANTILES))


def test_the_command_refuses_what_are_no_single_steps(command):
    code, _, err = command("latency", "quick")
    assert code == 2
    assert "expected the phase forward with T = 1, as in the suite latency" in err
    assert command("latency", "--filter", "H33")[0] == 2
    assert not Path("latency").exists()
