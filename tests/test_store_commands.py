"""load_results, show, merge and export: what they read is what was stored, what is left out is told, and what they write is
what other tools read.  Takes 10 s."""

import csv
import json
import math
import os
import re
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

import msgspec
import pandas as pd
import pytest
from helpers import synthetic_results

import rnnbench
from rnnbench.cli.merge import merge_contents
from rnnbench.compare.intervals import median_interval
from rnnbench.exports import asv
from rnnbench.reports import read_asv, to_pandas
from rnnbench.results.reader import read
from rnnbench.results.rows import SCHEMA, End, Failure, Gate, Memory, Run, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

A = Case("lstm", "step", 7, 3, 4, 5)
B = Case("jordan", "tbptt", 7, 3, 4, 5, output_size=6, window=4, stride=2, dtype="float64", threads=2)
COMMIT = "0123456789abcdef" * 2 + "01234567"
RUN = Run(
    run="20260101T000000-tiny",
    started="2026-01-01T00:00:00+00:00",
    suite="tiny",
    command=["rnnbench", "run", "tiny", "--quick"],
    settings={"rounds": 2, "samples": 3, "text_file": None},
    environment={
        "machine": "some-cpu-2c",
        "cpu": "Some CPU",
        "cores": 2,
        "os": "Linux 6.1",
        "python": "3.11.7",
        "versions": {"rnnbench": "0.1.0", "numpy": "2.0"},
        "commit": COMMIT,
        "dirty": False,
    },
    backends={"one": {"device": "cpu"}, "two": {"device": "cpu"}, "three": {"unavailable": "needs a GPU"}},
    cases=[A, B],
)
HOSTILE = ["../../etc/up", "x" * 300, "</script>", "two\nlines\x1b[31m", "\U0001f9e8", '=cmd|"/c calc"!A1', "@SUM(1)", "-1+1"]


def time(case: Case, backend: str, number: int, *samples: float) -> Time:
    return Time(case, backend, number, 0, 8, list(samples))


ROWS = [
    Gate(A, "one", True, {"y": (1e-7, 3e-7)}, 0.25),
    Startup(A, "one", 0, True, 0.5, 0.25, 0.125),
    time(A, "one", 0, 0.375, 0.125, 0.25),
    time(A, "two", 0, 0.625, 0.5),
    time(A, "one", 1, 0.5),
    Memory(A, "one", 2**20),
    Truncation(B, 0.25, {"weight_hh_l0": 0.5}),
    Failure(B, "one", "load", "unsupported", "no jordan"),
    time(B, "two", 0, 1.0, 1.0, 1.0),
    Failure(B, "two", "time", "crashed", "killed by SIGSEGV\nat last", 1),
    End("2026-01-01T00:01:00+00:00", 60.0, 2.5, timing_seconds=30.0, sampled_seconds=27.5),
]


def store(path: Path, run: Run = RUN, rows: list | None = None) -> Path:
    with Writer(path) as writer:
        writer.append_all([run, *(ROWS if rows is None else rows)])
    return path


def environment(**changes) -> Run:
    return msgspec.structs.replace(RUN, environment=RUN.environment | changes)


def named(run: str, run_row: Run = RUN, **changes) -> Run:
    return msgspec.structs.replace(run_row, run=run, **changes)


@pytest.fixture
def results(tmp_path):
    return store(tmp_path / "machine" / "run.jsonl")


def assert_one_line(result: tuple[int, str, str], code: int, *said: str) -> None:
    assert result[:2] == (code, ""), result
    (line,) = result[2].splitlines()
    assert line.startswith("rnnbench: ")
    for part in said:
        assert part in line


# load_results


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
        assert [None if value is pd.NA else value for value in frame[name]] == [getattr(case, name) for case in (A, A, A, B)]
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


# show


def test_show_tells_the_run_its_rows_its_failures_and_medians(command, results):
    code, text, stderr = command("show", results)
    assert (code, stderr) == (0, "")
    lines = [line.strip() for line in text.splitlines()]
    assert lines[0] == str(results)
    for line in [
        "run        20260101T000000-tiny, started 2026-01-01T00:00:00+00:00, completed 2026-01-01T00:01:00+00:00, "
        "50% of 60 s for neither samples nor checks",
        "machine    some-cpu-2c: Some CPU, Linux 6.1",
        f"commit     {COMMIT}",
        "rows       1 gate, 1 startup, 4 time, 1 memory, 1 truncation, 2 failure, 1 end",
        "bad lines  none",
        "failures   3",
        "three: unavailable: needs a GPU",
        rf"two on {B.label()}: time: crashed: killed by SIGSEGV\nat last",
    ]:
        assert line in lines, line
    assert lines[-3].split() == ["one", "two"]
    assert lines[-2].split()[-4:] == ["375", "ms", "562", "ms"]
    assert lines[-1].split()[-2:] == ["unsupported", "crashed"]


def test_show_narrows_to_a_case_and_a_backend(command, results):
    text = command("show", results, "--case", "lstm step", "--backend", "one")[1]
    assert "jordan" not in text
    assert "two" not in text.split("time of a call", 1)[1]
    assert text.splitlines()[-1].split() == ["lstm", "step", "T7", "B3", "I4", "H5", "375", "ms"]
    assert_one_line(command("show", results, "--case", "gru"), 2, "--case is 'gru'; none of 2 cases has that in its name")
    assert_one_line(command("show", results, "--backend", "four"), 2, "--backend is 'four'; these results have one, two, three")


def test_show_names_bad_lines_and_a_run_without_an_end(command, tmp_path):
    path = store(tmp_path / "run.jsonl", environment(dirty=True), ROWS[:-1])
    with path.open("a") as file:
        file.write('\x1b[2Jnonsense\n{"kind":"ti')
    text = command("show", path)[1]
    assert "has no last row: cut off, or still running" in text
    assert f"{COMMIT}, with uncommitted changes" in text
    assert "bad lines  2\n    run.jsonl:12: not a row: JSON is malformed" in text
    assert "run.jsonl:13: not a row: torn" in text


def test_show_needs_no_pandas(results):
    code = "import sys; sys.modules['pandas'] = None; from rnnbench.cli.main import main; sys.exit(main(sys.argv[1:]))"
    for arguments in (["show"], ["export", "pyperf"], ["export", "bencher"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, str(results)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout


# merge


def merged(tmp_path, *runs: tuple[Run, list]) -> tuple[list, object]:
    contents = [read(store(tmp_path / f"{place}.jsonl", run, rows)) for place, (run, rows) in enumerate(runs)]
    result = merge_contents(contents)
    return result.rows, result


def test_runs_of_other_cases_become_one_with_every_row_as_it_was(command, tmp_path):
    first = store(tmp_path / "a.jsonl", named("r1", cases=[A]), [ROWS[0], ROWS[2], ROWS[-1]])
    end = End("2026-01-02T00:00:00+00:00", 5.0, 0.5, timing_seconds=1.0, sampled_seconds=0.5)
    second = store(tmp_path / "b.jsonl", named("r2", suite="more", cases=[B]), [ROWS[6], ROWS[8], end])
    output = tmp_path / "deep" / "merged.jsonl"
    assert command("merge", first, second, "-o", output) == (0, f"{output}\n", "")
    contents = read(output)
    assert contents.rows == [ROWS[0], ROWS[2], ROWS[6], ROWS[8], End("2026-01-02T00:00:00+00:00", 65.0, 3.0, False, 31.0, 28.0)]
    assert (contents.run.run, contents.run.suite, contents.run.cases) == ("r1+r2", "tiny+more", [A, B])
    assert "--quick" in contents.run.command
    assert [row.case.key() for row in contents.rows if isinstance(row, Time)] == [A.key(), B.key()]


def test_a_measurement_that_is_in_two_files_is_kept_once(command, tmp_path):
    """A copy, a copy that went on, and a merge of the same again."""
    more = [time(A, "two", 1, 7e-3), End("2026-01-01T00:02:00+00:00", 10.0, 0.0, timing_seconds=1.0)]
    first, second = store(tmp_path / "a.jsonl"), store(tmp_path / "b.jsonl", rows=[*ROWS, *more])
    code, _, stderr = command("merge", first, second, "-o", tmp_path / "once.jsonl")
    assert (code, stderr) == (0, "rnnbench: 10 rows of more than one file kept once\n")
    once = read(tmp_path / "once.jsonl")
    assert once.rows[:-1] == [*ROWS[:-1], more[0]]
    assert once.rows[-1] == End("2026-01-01T00:02:00+00:00", 70.0, 2.5, False, 31.0)
    assert command("merge", first, tmp_path / "once.jsonl", "-o", tmp_path / "twice.jsonl")[0] == 0
    assert read(tmp_path / "twice.jsonl").rows[:-1] == once.rows[:-1]
    assert_one_line(
        command("merge", first, first, "-o", tmp_path / "c.jsonl"), 2, "given is 1 results file; expected two or more"
    )


def test_rounds_of_two_runs_are_never_taken_for_one_round(tmp_path):
    """What is compared within a round was measured seconds apart; two runs were not."""
    rows, result = merged(
        tmp_path,
        (named("r1"), [time(A, "one", 0, 1.0), time(A, "one", 1, 1.1), time(B, "one", 0, 5.0)]),
        (named("r2"), [time(A, "two", 0, 2.0), time(A, "one", 0, 2.1), Failure(A, "one", "time", "timeout", "m", 1)]),
        (named("r3"), [time(A, "one", 0, 3.0), time(B, "two", 4, 3.1)]),
    )
    assert [(row.case, row.backend, row.round) for row in rows] == [
        (A, "one", 0),
        (A, "one", 1),
        (B, "one", 0),
        (A, "two", 2),
        (A, "one", 2),
        (A, "one", 3),
        (A, "one", 4),
        (B, "two", 5),
    ]
    assert (result.duplicates, result.conflicts) == (0, 0)


def test_of_what_a_run_has_once_the_first_counts_and_it_is_told(command, tmp_path):
    gate, memory = ROWS[0], ROWS[5]
    wrong = Gate(A, "one", False, {"y": (1.0, 3e-7)}, 0.25)
    other = [msgspec.structs.replace(gate, seconds=9.0), wrong, msgspec.structs.replace(memory, peak_bytes=7)]
    first, second = store(tmp_path / "a.jsonl", named("r1"), [gate, memory]), store(tmp_path / "b.jsonl", named("r2"), other)
    output = tmp_path / "m.jsonl"
    assert "2 rows left out: a file before has another measurement" in command("merge", first, second, "-o", output)[2]
    assert read(output).rows == [gate, memory, wrong]  # a check that failed is never lost


def test_a_merge_is_interrupted_where_one_of_its_runs_was_not_completed(tmp_path):
    stopped = End("2026-01-01T00:01:00+00:00", 1.0, 0.0, interrupted=True)
    went_on = End("2026-01-01T00:02:00+00:00", 1.0, 0.0)
    one = (named("r1"), [stopped, went_on])
    assert merged(tmp_path / "x", one, (named("r2"), [went_on]))[0][-1].interrupted is False
    assert merged(tmp_path / "y", one, (named("r2"), [stopped]))[0][-1].interrupted is True
    assert merged(tmp_path / "z", one, (named("r2"), []))[0][-1].interrupted is True


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (environment(cpu="Other CPU"), "cpu is 'Other CPU' and was 'Some CPU'"),
        (environment(versions={"rnnbench": "0.1.0", "numpy": "2.1"}), "versions numpy is '2.1' and was '2.0'"),
        (environment(commit="f" * 40), f"commit is '{'f' * 40}' and was '{COMMIT}'"),
        (environment(new=1), "new is 1 and was None"),
        (named("r", settings=RUN.settings | {"rounds": 12}), "setting rounds is 12 and was 2"),
        (named("r", backends={"two": {"device": "gpu"}}), "backend two device is 'gpu' and was 'cpu'"),
    ],
    ids=["cpu", "version", "commit", "fact", "setting", "backend"],
)
def test_runs_of_another_machine_code_or_settings_are_refused_with_the_difference(command, tmp_path, results, other, said):
    output = tmp_path / "m.jsonl"
    result = command("merge", results, store(tmp_path / "other.jsonl", other), "-o", output)
    assert_one_line(result, 4, "cannot merge ", said, "expected the same code, machine and settings")
    assert not output.exists()


def test_a_merge_tells_bad_lines_and_never_writes_over_a_file(command, tmp_path, results):
    with results.open("a") as file:
        file.write("nonsense\n")
    other = store(tmp_path / "other.jsonl", named("r2", environment(dirty=False), cases=[B]), [])
    before = other.read_bytes()
    assert_one_line(command("merge", results, other, "-o", other), 4, "cannot write ", "File exists")
    assert other.read_bytes() == before
    assert "run.jsonl:13: not a row" in command("merge", results, other, "-o", tmp_path / "m.jsonl")[2]


def test_a_merged_file_is_one_that_reports_and_a_resumed_run_understand(tmp_path, command):
    """Its rounds go on, so a resumed run has the settings that it needs, and the frames have a row for each."""
    store(tmp_path / "a.jsonl", named("r1"), [time(A, "one", n, 1.0 + n / 100) for n in range(6)])
    store(tmp_path / "b.jsonl", named("r2"), [time(A, "two", n, 2.0 + n / 100) for n in range(6)])
    output = tmp_path / "m" / "m.jsonl"
    command("merge", tmp_path / "a.jsonl", tmp_path / "b.jsonl", "-o", output)
    frames = to_pandas(output)
    assert frames.problems == []
    assert len(frames.times) == 12
    assert frames.pairs.empty  # of no round are there two times


# export


def exported(command, kind: str, results: Path, *arguments) -> str:
    code, text, _ = command("export", kind, results, *arguments)
    assert code == 0
    return text


def test_csv_has_the_frame_and_no_formula(command, tmp_path):
    backends = {
        name: {}
        for name in [*HOSTILE, "'=quoted", "\t=tab", "\uff1dwide", " =blank", "\u3000\xa0+1", "\u200b@x", "\x00-1", "|cmd"]
    }
    rows = [time(A, name, 0, 1.0 + n) for n, name in enumerate(backends)]
    path = store(tmp_path / "run.jsonl", named("=1+1", backends=backends), rows)
    output = tmp_path / "out" / "times.csv"
    assert exported(command, "csv", path, "-o", output) == f"{output}\n"
    with output.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert [float(line["seconds"]) for line in lines] == [1.0 + n for n in range(len(backends))]
    assert {line["run"] for line in lines} == {"'=1+1"}
    for line, name in zip(lines, backends, strict=True):
        assert not re.match("[\\s\x00\u200b]*[=+\\-@|\uff1d]|[\t\r\n]", line["backend"])
        assert line["backend"] == name or line["backend"] == f"'{name}"
    assert len({line["backend"] for line in lines}) == len(backends)
    assert output.read_text(encoding="utf-8") == exported(command, "csv", path)


def test_a_pipe_is_written_into_and_not_replaced(command, tmp_path, results):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        exported(command, "csv", results, "-o", pipe)
        assert reader.communicate(timeout=1800)[0] == exported(command, "csv", results)
    assert pipe.is_fifo()


def test_csv_of_a_folder_tells_what_it_left_out(command, tmp_path, results):
    with results.open("a") as file:
        file.write("nonsense\nmore\n")
    code, text, stderr = command("export", "csv", results.parent)
    assert (code, len(text.splitlines())) == (0, 5)
    assert [line.split(": ")[1] for line in stderr.splitlines()] == ["run.jsonl:13", "run.jsonl:14"]


def test_parquet_reads_back_as_the_frame(command, tmp_path, results):
    pytest.importorskip("pyarrow", reason="Parquet is written by pyarrow")
    output = tmp_path / "times.parquet"
    assert exported(command, "parquet", results, "-o", output) == f"{output}\n"
    pd.testing.assert_frame_equal(pd.read_parquet(output), rnnbench.load_results(results), check_categorical=False)


def test_parquet_without_pyarrow_says_what_to_install(command, tmp_path, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    output = tmp_path / "times.parquet"
    result = command("export", "parquet", results, "-o", output)
    assert_one_line(result, 4, "export parquet needs pyarrow: pip install pyarrow")
    assert not output.exists()


def test_pyperf_reads_its_file_with_a_run_per_round(command, results):
    pyperf = pytest.importorskip("pyperf", reason="pyperf is not installed")
    suite = pyperf.BenchmarkSuite.loads(exported(command, "pyperf", results))
    assert suite.get_benchmark_names() == ["lstm step T7 B3 I4 H5 one", "lstm step T7 B3 I4 H5 two"]
    one = suite.get_benchmark("lstm step T7 B3 I4 H5 one")
    assert [run.values for run in one.get_runs()] == [(0.375, 0.125, 0.25), (0.5,)]
    assert (one.get_unit(), one.get_loops()) == ("second", 8)
    assert one.get_metadata()["rnnbench_commit"] == COMMIT


def test_bencher_has_nanoseconds_and_the_interval_of_the_report(command, tmp_path):
    path = synthetic_results.write(tmp_path / "grid.jsonl", hostile=False)
    document = json.loads(exported(command, "bencher", path))
    summary = to_pandas(path).summary
    summary = summary[summary["status"] == "measured"]
    assert len(document) == len(summary)
    labels = {case.key(): case.label() for case in read(path).run.cases}
    for row in summary.itertuples():
        (measure,) = document[f"{labels[row.case]} {row.backend}"].items()
        assert measure[0] == "latency"
        # the product with 1e9 is rounded once more
        expected = {"value": row.seconds * 1e9, "lower_value": row.seconds_low * 1e9, "upper_value": row.seconds_high * 1e9}
        assert measure[1] == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("kind", ["pyperf", "bencher"])
def test_what_is_not_exported_is_told(command, results, kind):
    code, text, stderr = command("export", kind, results)
    assert code == 0
    assert "jordan" not in text
    assert stderr.splitlines() == [f"rnnbench: not exported: {B.label()} {why}" for why in ("one: unsupported", "two: crashed")]


def test_asv_s_folder_is_read_by_the_report_and_by_asv(command, tmp_path):
    path = store(tmp_path / "run.jsonl", rows=[*ROWS[:-1], *(time(A, "two", n, n / 8) for n in range(1, 12)), ROWS[-1]])
    folder = tmp_path / "results"
    text = exported(command, "asv", path, "-o", folder)
    (written,) = map(Path, text.splitlines())
    assert written == folder / "some-cpu-2c" / f"{COMMIT[:8]}-rnnbench-py3.11.7-numpy2.0.json"
    frame = read_asv(folder).set_index(["benchmark", "params"])
    step, window = "lstm.step.T7_B3_I4_H5", "jordan.tbptt.T7_B3_I4_H5_output_size6_window4_stride2_dtypefloat64_threads2"
    assert frame.loc[(step, "'one'"), ["value", "low", "high"]].tolist() == [0.375, 0.25, 0.5]
    seconds = [0.5625, *(n / 8 for n in range(1, 12))]
    assert frame.loc[(step, "'two'"), ["value", "low", "high"]].tolist() == list(median_interval(seconds, 0.99)[:3])
    assert frame.loc[window, "value"].isna().all()
    assert set(frame["machine"]) == {"some-cpu-2c"}
    assert frame["date"].iloc[0] == pd.Timestamp(RUN.started)
    stored = dict(zip(asv.ASV_COLUMNS, json.loads(written.read_text())["results"][window], strict=True))
    assert math.isnan(stored["result"][0])  # what is not supported did not run
    assert stored["result"][1] is None  # what crashed failed

    asv_results = pytest.importorskip("asv.results", reason="asv is not installed")
    loaded = asv_results.Results.load(str(written), machine_name="some-cpu-2c")
    assert loaded.get_result_value(step, [["'one'", "'two'"]]) == [0.375, statistics.median(seconds)]
    assert loaded.commit_hash == COMMIT


def test_asv_shows_what_was_exported(command, tmp_path):
    """asv itself, in a repository that has the commit."""
    pytest.importorskip("asv", reason="asv is not installed")

    def git(*arguments: str) -> str:
        given = ["git", "-c", "user.name=n", "-c", "user.email=e@x", *arguments]
        return subprocess.run(given, cwd=project, capture_output=True, text=True, check=True).stdout.strip()

    project = tmp_path / "project"
    (project / "suites").mkdir(parents=True)
    (project / "suites" / "__init__.py").touch()
    (project / "asv.conf.json").write_text((Path(__file__).parents[1] / "asv.conf.json").read_text())
    git("init", "-q", "-b", "main", ".")
    git("add", "-A")
    git("commit", "-q", "-m", "x")
    path = store(tmp_path / "here.jsonl", environment(commit=git("rev-parse", "HEAD")))
    exported(command, "asv", path, "-o", project / ".asv" / "results")
    asv = [sys.executable, "-m", "asv", "show", "--details", git("rev-parse", "HEAD")]
    home = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(asv, cwd=project, capture_output=True, text=True, check=False, env=home, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lstm.step.T7_B3_I4_H5 [some-cpu-2c/" in done.stdout
    assert "ci_99: (250ms, 500ms), (562ms, 562ms)" in done.stdout


def test_an_export_to_asv_adds_to_what_a_folder_holds(command, tmp_path, results):
    folder = tmp_path / "results"
    exported(command, "asv", results, "-o", folder)
    other = Case("gru", "forward", 1, 1, 1, 1)
    later = named("r2", started="2026-01-02T00:00:00+00:00", cases=[A, other])
    path = store(tmp_path / "later.jsonl", later, [time(A, "one", 0, 9.0), time(other, "one", 0, 8.0)])
    (folder / "benchmarks.json").write_text(json.dumps({"theirs": {"name": "theirs"}, "version": 2}))
    exported(command, "asv", path, "-o", folder)
    frame = read_asv(folder).set_index(["benchmark", "params"])["value"]
    assert frame["lstm.step.T7_B3_I4_H5", "'one'"] == 9.0
    assert frame["gru.forward.T1_B1_I1_H1", "'one'"] == 8.0
    assert frame.index.get_level_values(0).nunique() == 3
    assert set(json.loads((folder / "benchmarks.json").read_text())) == {
        "theirs",
        "version",
        "lstm.step.T7_B3_I4_H5",
        "gru.forward.T1_B1_I1_H1",
    }


@pytest.mark.parametrize(
    ("content", "said"), [('{"version": 1}', "has asv format 1; this version writes format 2"), ("[", "cannot read")]
)
def test_a_folder_of_another_asv_is_left_alone(command, tmp_path, results, content, said):
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "benchmarks.json").write_text(content)
    assert_one_line(command("export", "asv", results, "-o", folder), 4, said)
    assert [path.name for path in folder.rglob("*")] == ["benchmarks.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ("export xml run.jsonl", 2, "invalid choice: 'xml'"),
        ("export parquet run.jsonl", 2, "-o is missing for parquet; expected a file to write"),
        ("export asv run.jsonl", 2, "-o is missing for asv; expected a folder to write"),
        ("export csv run.jsonl -o ./run.jsonl", 2, "-o is './run.jsonl', which holds the results; expected another file"),
        ("export csv nope", 4, "no results at nope"),
        ("export bencher empty.jsonl", 4, "empty.jsonl has no time that counts; expected some to export"),
        ("export pyperf empty.jsonl", 4, "empty.jsonl has no time that counts; expected some to export"),
        ("export asv empty.jsonl -o out", 4, "empty.jsonl has no time that counts; expected some to export"),
        ("export asv installed.jsonl -o out", 4, "has commit None; asv needs one: a run from a git checkout"),
        ("export csv run.jsonl -o run.jsonl/x.csv", 4, "cannot write run.jsonl/x.csv: Not a directory"),
        ("show nope", 4, "no results at nope"),
        ("show new.jsonl", 4, f"new.jsonl has schema {SCHEMA + 1}; this version reads schema {SCHEMA}"),
        ("merge run.jsonl new.jsonl -o m.jsonl", 4, f"new.jsonl has schema {SCHEMA + 1}; this version reads"),
        ("export csv new.jsonl", 4, f"new.jsonl has schema {SCHEMA + 1}; this version reads schema {SCHEMA}"),
        ("merge run.jsonl empty.jsonl", 2, "required: -o/--output"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.startswith(("export", "show", "merge")) else "",
)
def test_a_slip_is_one_line(command, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    store(Path("run.jsonl"))
    store(Path("empty.jsonl"), rows=[])
    store(Path("installed.jsonl"), environment(commit=None))
    newer = msgspec.to_builtins(RUN) | {"kind": "run", "schema": SCHEMA + 1, "settings": "of another form"}
    Path("new.jsonl").write_bytes(msgspec.json.encode(newer) + b"\n")
    before = sorted(tmp_path.rglob("*"))
    assert_one_line(command(*shlex.split(arguments)), code, said)
    assert sorted(tmp_path.rglob("*")) == before


def test_help_names_the_commands(command):
    text = command("--help")[1]
    for verb in ("show", "merge", "export"):
        assert f"  {verb} " in text
        assert command(verb, "--help")[0] == 0


# names that try to break out


@pytest.fixture(params=HOSTILE, ids=lambda name: ascii(name[:12]))
def hostile(request, tmp_path):
    """A results file in which every text is hostile."""
    name = request.param
    case = Case(name, "step", 1, 1, 1, 1)
    facts = environment(machine=name, cpu=name, python=name, os=name, versions={"rnnbench": name, name: name})
    run = named(name, facts, suite=name, command=[name], backends={name: {"device": name}}, cases=[case])
    rows = [time(case, name, 0, 1.0), Failure(A, name, "time", "error", name)]
    return store(tmp_path / "results" / "run.jsonl", run, rows)


def test_hostile_names_are_kept_whole_and_reach_no_terminal_and_no_other_folder(command, tmp_path, hostile):
    name = read(hostile).run.run
    assert set(rnnbench.load_results(hostile)["backend"]) == {name}
    outputs = [command("show", hostile)[1], *(exported(command, kind, hostile) for kind in ("csv", "pyperf", "bencher"))]
    assert "\x1b" not in outputs[0] + outputs[2] + outputs[3]
    assert all(line.isprintable() for line in outputs[0].split("\n"))
    before = set(tmp_path.rglob("*"))
    exported(command, "asv", hostile, "-o", tmp_path / "a" / "b" / "c")
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "a") for path in new)
    (written,) = [path for path in new if path.name.startswith(COMMIT[:8])]
    assert written.parent.parent == tmp_path / "a" / "b" / "c"
    assert read_asv(tmp_path / "a" / "b" / "c")["value"].tolist()[0] == 1.0


def test_pyperf_reads_hostile_names(command, hostile):
    pyperf = pytest.importorskip("pyperf", reason="pyperf is not installed")
    assert len(pyperf.BenchmarkSuite.loads(exported(command, "pyperf", hostile))) == 1
