"""rnnbench export: what it writes is what other tools read, whatever names a run has.  Takes 5 s."""

import csv
import json
import math
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from helpers import synthetic_results
from helpers.exported_run import COMMIT, HOSTILE, ROWS, RUN, A, B, assert_one_line, environment, named, store, time

import rnnbench
from rnnbench.compare.intervals import median_interval
from rnnbench.exports import asv
from rnnbench.reports import read_asv, to_pandas
from rnnbench.results.reader import read
from rnnbench.results.rows import Failure
from rnnbench.suite.case import Case


@pytest.fixture
def results(tmp_path):
    return store(tmp_path / "machine" / "run.jsonl")


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
