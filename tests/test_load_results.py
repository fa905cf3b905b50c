"""load_results: a frame with a row for every round, and what is left out is told.  Takes 3 s."""

import subprocess
import sys

import pandas as pd
import pytest
from helpers import synthetic_results
from helpers.exported_run import COMMIT, RUN, A, B, environment, store, time

import rnnbench
from rnnbench.reports import to_pandas
from rnnbench.suite.case import Case


@pytest.fixture
def results(tmp_path):
    return store(tmp_path / "machine" / "run.jsonl")


def test_every_round_is_a_row_with_its_case_its_median_and_its_run(results):
    frame = rnnbench.load_results(results)
    rows = frame[["backend", "cell", "round", "seconds", "samples", "loops", "status"]].to_numpy().tolist()
    assert rows == [
        ["one", "lstm", 0, 0.25, 3, 8, "measured"],
        ["two", "lstm", 0, 0.5625, 2, 8, "measured"],
        ["one", "lstm", 1, 0.5, 1, 8, "measured"],
        ["two", "jordan", 0, 1.0, 3, 8, "crashed"],
    ]
    for name in Case.__struct_fields__:
        assert [None if pd.isna(value) else value for value in frame[name]] == [getattr(case, name) for case in (A, A, A, B)]
    assert list(frame["case"]) == [A.key()] * 3 + [B.key()]
    facts = {"run": RUN.run, "suite": "tiny", "machine": "some-cpu-2c", "commit": COMMIT, "version": "0.1.0", "dirty": False}
    for name, value in facts.items():
        assert set(frame[name]) == {value}
    assert "problems" not in frame.attrs


def test_it_has_the_times_of_to_pandas(tmp_path):
    path = synthetic_results.write(tmp_path / "grid.jsonl", hostile=False)
    ours = rnnbench.load_results(path).astype({"case": object, "backend": object})
    theirs = to_pandas(path)
    order = ["case", "backend", "round"]
    columns = [*order, "T", "window", "position", "loops", "samples", "seconds"]
    pd.testing.assert_frame_equal(
        ours.sort_values(order)[columns].reset_index(drop=True),
        theirs.times.sort_values(order)[columns].reset_index(drop=True),
        check_dtype=False,
    )
    status = theirs.summary.set_index(["case", "backend"])["status"]
    for (case, backend), group in ours.groupby(["case", "backend"]):
        assert set(group["status"]) == {status[(case, backend)]}


def test_a_folder_is_one_frame_that_tells_its_files_apart(tmp_path):
    store(tmp_path / "a" / "run.jsonl")
    store(tmp_path / "b" / "run.jsonl", environment(machine="other", commit=None, dirty=True))
    frame = rnnbench.load_results(tmp_path)
    assert frame.groupby("file", observed=True).size().to_dict() == {"a/run.jsonl": 4, "b/run.jsonl": 4}
    assert frame["commit"].isna().sum() == 4
    assert frame["dirty"].tolist() == [False] * 4 + [True] * 4
    assert set(frame["machine"]) == {"some-cpu-2c", "other"}


def test_a_file_without_times_is_a_frame_of_the_same_columns(tmp_path, results):
    empty, full = rnnbench.load_results(store(tmp_path / "empty.jsonl", rows=[])), rnnbench.load_results(results)
    assert len(empty) == 0
    assert list(empty.columns) == list(full.columns)
    assert empty.dtypes.astype(str).tolist() == full.dtypes.astype(str).tolist()


def test_what_is_left_out_is_told(tmp_path):
    rows = [time(A, "one", 0, 1.0), time(A, "one", 0, 2.0), time(A, "one", 1), time(A, "one", 2, -1.0), time(A, "one", 3, 3.0)]
    path = store(tmp_path / "run.jsonl", rows=rows)
    sizes = f'{{"kind":"time","case":{{"cell":"lstm","phase":"step","T":{2**64},"B":1,"I":1,"H":1}},'
    rest = '"backend":"one","round":0,"position":0,"loops":1,"samples":[1]}'
    with path.open("a") as file:
        file.write(f'nonsense\n{sizes}{rest}\n{{"kind":"time","case":{{"cell":1}},{rest}\n{{"kind":"ti')
    with pytest.warns(UserWarning, match=r"^run.jsonl:7: not a row: .*; 6 more in attrs\['problems'\]$"):
        frame = rnnbench.load_results(path)
    assert frame[["round", "seconds"]].to_numpy().tolist() == [[0, 2.0], [3, 3.0]]
    problems = frame.attrs["problems"]
    assert [problem.partition(": ")[0] for problem in problems] == [
        *(f"run.jsonl:{n}" for n in (7, 8, 9, 10)),
        *["run.jsonl"] * 3,
    ]
    assert problems[4:] == [
        "run.jsonl: one on lstm step T7 B3 I4 H5, round 1: a time of nan s was left out",
        "run.jsonl: one on lstm step T7 B3 I4 H5, round 2: a time of -1.0 s was left out",
        "run.jsonl: one on lstm step T7 B3 I4 H5, round 0: timed twice; the later one counts",
    ]


def test_without_pandas_it_says_what_to_install(results):
    code = f"""
import sys
sys.modules["pandas"] = None
import rnnbench
try:
    rnnbench.load_results({str(results)!r})
except rnnbench.MissingLibrary as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "load_results needs pandas: pip install -e '.[report]' in the checkout of rnnbench\n"
