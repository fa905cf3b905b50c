"""Which times count is one rule: what a broken clock gave counts in no table, comparison, choice, export or page."""

import warnings

import pytest

import rnnbench
from rnnbench.choose.choose import Measurements
from rnnbench.compare import comparison
from rnnbench.exports import bencher, pyperf
from rnnbench.reports import to_pandas
from rnnbench.results import valid
from rnnbench.results.reader import read
from rnnbench.results.rows import Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

CASE = Case("lstm", "step", 7, 3, 4, 5)
RUN = Run("r", "2026-01-01T00:00:00+00:00", "s", ["rnnbench"], {}, {"machine": "m"}, {"one": {}}, [CASE])

INVALID = ([0.0, 1.0, 2.0], [1.0, -2.0, 3.0], [])


def _in_best(contents):
    return [value for row in Measurements([contents]).rows() for value in row.rounds]


def _in_load_results(contents):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return rnnbench.load_results(contents.path)["seconds"].tolist()


def _in_bencher(contents):
    return [metrics["latency"]["value"] / 1e9 for metrics in bencher(contents).values()]


READERS = {
    "tables": lambda contents: [value for rounds in valid.times(contents).values() for value in valid.medians(rounds)],
    "best": _in_best,
    "compare": lambda contents: [
        value for key in comparison.times(contents).samples for value in comparison.times(contents).seconds(*key).values()
    ],
    "load_results": _in_load_results,
    "reports": lambda contents: to_pandas(contents.path).times["seconds"].tolist(),
    "pyperf": lambda contents: [run["values"][0] for of in pyperf(contents)["benchmarks"] for run in of["runs"]],
    "bencher": _in_bencher,
}


@pytest.mark.parametrize("samples", INVALID, ids=str)
@pytest.mark.parametrize("reader", READERS)
def test_a_round_with_a_sample_that_is_no_time_counts_nowhere(tmp_path, reader, samples):
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        writer.append_all([RUN, Time(CASE, "one", 0, 0, 1, [4.0]), Time(CASE, "one", 1, 0, 1, samples)])
    assert READERS[reader](read(path)) == [4.0]


def test_every_reader_says_alike_what_it_left_out(tmp_path):
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        writer.append_all([RUN, Time(CASE, "one", 0, 0, 1, [4.0]), Time(CASE, "one", 1, 0, 1, [1.0, 0.0, 2.0])])
    said = "one on lstm step T7 B3 I4 H5, round 1: a time of 0.0 s was left out"
    contents = read(path)
    assert valid.invalid_times(contents) == comparison.times(contents).problems == to_pandas(path).problems == [said]
    with pytest.warns(UserWarning, match=f"run.jsonl: {said}"):
        rnnbench.load_results(path)
