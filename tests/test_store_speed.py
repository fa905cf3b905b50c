"""``rnnbench self-test store`` on few rows: what it counts is right, whatever the machine's speed.  Takes 2 s."""

import itertools

import pytest

from rnnbench.cli.main import main
from rnnbench.results.frame import load_results
from rnnbench.results.reader import read
from rnnbench.results.rows import Time
from rnnbench.selftests import store_speed
from rnnbench.selftests.store_speed import StoreSpeed, measure


def test_as_many_rows_are_stored_and_loaded_as_asked_for(tmp_path):
    bars = measure(3001, tmp_path)
    path = tmp_path / "bars.jsonl"
    assert len({(row.case, row.backend, row.round) for row in read(path).rows if isinstance(row, Time)}) == 3001
    assert len(load_results(path)) == bars.rows == 3001
    assert bars.file_bytes == path.stat().st_size


def test_rates_count_the_rows_and_the_seconds_in_which_they_are_appended(tmp_path, monkeypatch):
    """By a clock that goes on by a second at each look: 400 rows in batches of 4, the others in batches of 500."""
    clock = itertools.count()
    monkeypatch.setattr(store_speed.time, "perf_counter", lambda: next(clock))
    bars = measure(1400, tmp_path)
    assert (bars.by_case, bars.appended) == (4.0, 500.0)
    assert bars.load == 1.0


@pytest.mark.parametrize(
    ("rows", "appended", "load", "met"),
    [
        (10**6, 2000.0, 10.0, True),
        (10**6, 1999.0, 10.0, False),
        (10**6, 2000.0, 10.1, False),
        (1000, 2000.0, 9.9, True),
        (2 * 10**6, 2000.0, 20.0, True),
    ],
)
def test_a_bar_that_is_missed_is_exit_code_1(capsys, monkeypatch, rows, appended, load, met):
    monkeypatch.setattr(store_speed, "measure", lambda rows, _: StoreSpeed(rows, appended, 1.0, load, 2**20, 2**20, None))
    assert main(["self-test", "store", "--rows", str(rows)]) == (0 if met else 1)
    assert capsys.readouterr().out.startswith(f"{rows:,} times, 1 MiB\n")
