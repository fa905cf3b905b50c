"""Results are appended and on disk at once, by one writer at a time, and what is no results file is refused.

Takes 3 s.
"""

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pytest
from helpers.stored_rows import CASE, ROWS, RUN, message, write_rows

from rnnbench.errors import StoreError
from rnnbench.measure import plan
from rnnbench.results import writer as writer_module
from rnnbench.results.reader import read, results_files
from rnnbench.results.rows import SCHEMA, AnyRow, End, Gate
from rnnbench.results.writer import Writer
from rnnbench.suite.suite import Suite, SuiteSettings


@pytest.fixture
def written(tmp_path):
    return write_rows(tmp_path)


def test_every_kind_of_row_reads_back_as_it_was_written(written):
    contents = read(written)
    assert contents.run == RUN
    assert contents.rows == ROWS
    assert contents.problems == []
    assert contents.path == written
    assert {type(row) for row in [contents.run, *contents.rows]} == set(AnyRow.__args__)


def test_a_row_is_one_line_of_json_that_names_its_kind(written):
    lines = written.read_bytes().split(b"\n")
    assert lines.pop() == b""
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds == ["run", "gate", "gate", "startup", "time", "memory", "truncation", "failure", "failure", "end"]
    assert json.loads(lines[0])["schema"] == SCHEMA


def test_an_error_without_a_number_is_none(tmp_path):
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        writer.append(RUN)
        writer.append(Gate(CASE, "a", False, {"y": (None, 1e-7), "dx": (float("nan"), 1e-7), "dy": (float("inf"), 0.0)}, 0.1))
    (row,) = read(path).rows
    assert isinstance(row, Gate)
    assert row.errors == {"y": (None, 1e-7), "dx": (None, 1e-7), "dy": (None, 0.0)}


def test_a_row_is_on_disk_when_append_returns(tmp_path, monkeypatch):
    synced = []

    def fsync(descriptor):
        synced.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(writer_module.os, "fsync", fsync)
    path = tmp_path / "run.jsonl"
    writer = Writer(path)
    synced.clear()  # the folder, which names the new file
    for row in [RUN, *ROWS]:
        writer.append(row)
        assert synced.pop() == path.stat().st_size  # what the file holds was handed over before it was synced
        assert not synced
        assert read(path).rows[-1:] == ([row] if row is not RUN else [])
    writer.close()


def test_what_was_appended_outlives_a_process_that_is_killed(tmp_path):
    path = tmp_path / "run.jsonl"
    code = f"""
import os, signal
from pathlib import Path
from rnnbench.results.rows import End, Run
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case
writer = Writer(Path({str(path)!r}))
writer.append(Run("r", "s", "t", [], {{}}, {{}}, {{}}, []))
writer.append(End("f", 1.0, 0.0))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [type(row) for row in read(path).rows] == [End]


# several rows at once


def test_rows_appended_together_are_on_disk_after_one_wait(tmp_path, monkeypatch):
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        synced = []
        monkeypatch.setattr(writer_module.os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
        writer.append_all([RUN, *ROWS])
        assert synced == [path.stat().st_size]
        writer.append_all(row for row in ROWS[:2])
        writer.append_all([])
    assert read(path).rows == [*ROWS, *ROWS[:2]]


def test_what_an_append_that_failed_left_behind_is_taken_away_by_the_next(tmp_path, monkeypatch):
    """Else the next row, which is acknowledged, would stand on a torn line and be lost with it."""
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        writer.append(RUN)
        for failure in (OSError(5, "Input/output error"), KeyboardInterrupt()):

            def fsync(descriptor, failure=failure):
                os.truncate(path, path.stat().st_size - 20)  # as if the disk had taken a part alone
                raise failure

            with monkeypatch.context() as patched:
                patched.setattr(writer_module.os, "fsync", fsync)
                with pytest.raises((StoreError, KeyboardInterrupt)):
                    writer.append_all(ROWS[:3])
            assert len(read(path).problems) == 1
            writer.append(ROWS[-1])
    contents = read(path)
    assert (contents.rows, contents.problems) == ([ROWS[-1]] * 2, [])


# one writer at a time


def test_a_file_that_is_being_written_is_refused_until_its_writer_ends(tmp_path):
    path = tmp_path / "run.jsonl"
    with Writer(path) as writer:
        writer.append(RUN)
        assert message(Writer, path, resume=True) == f"cannot write {path}: another process is writing into it"
        writer.append(ROWS[0])
    with Writer(path, resume=True) as writer:
        assert message(Writer, path, resume=True) == f"cannot write {path}: another process is writing into it"
        writer.append(ROWS[1])
    assert read(path).rows == ROWS[:2]


def test_a_writer_that_was_killed_no_longer_holds_its_file(tmp_path):
    path = tmp_path / "run.jsonl"
    code = f"""
import sys, time
from pathlib import Path
from rnnbench.results.rows import Run
from rnnbench.results.writer import Writer
writer = Writer(Path({str(path)!r}))
writer.append(Run("r", "s", "t", [], {{}}, {{}}, {{}}, []))
print("ready", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        assert message(Writer, path, resume=True) == f"cannot write {path}: another process is writing into it"
        process.kill()
    with Writer(path, resume=True) as writer:
        writer.append(ROWS[0])
    assert read(path).rows == ROWS[:1]


def test_a_writer_that_opened_a_file_before_it_was_replaced_is_refused(written, monkeypatch):
    """It would write into the old file, which has no name any more."""
    import fcntl

    def flock(descriptor, operation):
        monkeypatch.undo()
        writer_module.replace(written, [written.read_bytes()])
        fcntl.flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    assert message(Writer, written, resume=True) == f"cannot write {written}: another process is writing into it"


def test_two_runs_that_start_in_one_second_have_two_files(tmp_path, monkeypatch):
    moments = iter([datetime(2026, 1, 1, microsecond=place, tzinfo=UTC) for place in (7, 8)])
    clock = SimpleNamespace(datetime=SimpleNamespace(now=lambda _: next(moments)), UTC=UTC)
    monkeypatch.setattr(plan, "datetime", clock)
    monkeypatch.setattr(plan, "environment", lambda *_: RUN.environment)
    suite = Suite("tiny", "d", "s", SuiteSettings(), [CASE])
    paths = [plan.new_plan(suite, plan.Settings(), ["numpy_ref"], tmp_path, []).path for _ in range(2)]
    with Writer(paths[0]), Writer(paths[1]):
        assert sorted(tmp_path.rglob("*.jsonl")) == paths


# files that are no results


@pytest.mark.parametrize("schema", [SCHEMA + 1, 0])
def test_another_schema_is_refused_with_both_numbers(tmp_path, schema):
    path = tmp_path / "new.jsonl"
    path.write_bytes(msgspec.json.encode(msgspec.structs.replace(RUN, schema=schema)) + b"\n")
    assert message(read, path) == f"{path} has schema {schema}; this version reads schema {SCHEMA}"


def test_another_schema_is_refused_also_where_its_run_does_not_read_and_when_a_run_goes_on(tmp_path):
    path = tmp_path / "new.jsonl"
    newer = msgspec.to_builtins(RUN) | {"kind": "run", "schema": SCHEMA + 1, "settings": "of another form"}
    path.write_bytes(msgspec.json.encode(newer) + b'\n{"kind":"new"}\n')
    before = path.read_bytes()
    said = f"{path} has schema {SCHEMA + 1}; this version reads schema {SCHEMA}"
    assert message(read, path) == said
    assert message(Writer, path, resume=True) == said
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    assert message(read, path) == f"{path} is no results file: its first line is no run"


def test_a_file_without_a_run_is_refused_even_if_it_holds_rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in [*ROWS, RUN]))
    assert message(read, path) == f"{path} is no results file: its first line is no run"


def test_a_file_whose_run_does_not_read_is_refused_and_says_why(tmp_path):
    path = tmp_path / "torn.jsonl"
    path.write_bytes(msgspec.json.encode(RUN)[:-20])
    said = message(read, path)
    assert said.startswith(f"{path} is no results file: its first line is no run (torn.jsonl:1: not a row: ")
    assert "torn" in said.partition(" (")[2]


def test_a_missing_file_or_a_folder_is_refused_with_the_reason(tmp_path):
    absent = tmp_path / "absent.jsonl"
    assert message(read, absent) == f"cannot read {absent}: No such file or directory"
    assert message(read, tmp_path) == f"cannot read {tmp_path}: Is a directory"
    assert message(Writer, absent, resume=True) == f"cannot write {absent}: No such file or directory"
    assert not absent.exists()


def test_a_file_in_the_place_of_the_results_folder_is_refused(tmp_path):
    (tmp_path / "results").write_text("I was here first")
    path = tmp_path / "results" / "machine" / "run.jsonl"
    assert message(Writer, path) == f"cannot write {path}: Not a directory"
    assert (tmp_path / "results").read_text() == "I was here first"


def test_an_existing_file_is_never_written_over(written):
    before = written.read_bytes()
    assert message(Writer, written) == f"cannot write {written}: File exists"
    assert written.read_bytes() == before


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_disk_that_is_full_is_reported_and_stays_the_error_while_the_file_is_closed(tmp_path):
    import resource

    path = tmp_path / "run.jsonl"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    room = len(msgspec.json.encode(RUN)) + 10
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(StoreError) as caught, Writer(path) as writer:  # noqa: PT012  # the error comes while closing, too
            writer.append(RUN)
            writer.append(ROWS[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert str(caught.value) == f"cannot write {path}: File too large"
    assert read(path).run == RUN


def test_results_files_are_listed_oldest_name_first_over_all_machines(tmp_path):
    for name in ("b/20260102.jsonl", "a/20260103.jsonl", "c/d/20260101.jsonl", "a/notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(msgspec.json.encode(RUN) + b"\n")
    assert [file.name for file in results_files(tmp_path)] == ["20260101.jsonl", "20260102.jsonl", "20260103.jsonl"]
    assert results_files(str(tmp_path / "a" / "notes.txt")) == [tmp_path / "a" / "notes.txt"]


@pytest.mark.parametrize("place", ["absent", "empty"])
def test_a_place_without_results_is_an_error(tmp_path, place):
    (tmp_path / "empty").mkdir()
    path = tmp_path / place
    assert message(results_files, path) == f"no results at {path}; expected a .jsonl file, or a folder that holds some"
