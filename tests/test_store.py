"""Results are appended and on disk at once, survive what a crash leaves behind, and are never dropped silently.

Takes 4 s.
"""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace

import msgspec
import pytest

from rnnbench.errors import StoreError
from rnnbench.measure import plan
from rnnbench.results import writer as writer_module
from rnnbench.results.reader import quarantine_file, read, results_files
from rnnbench.results.rows import SCHEMA, AnyRow, End, Failure, Gate, Memory, Run, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case
from rnnbench.suite.suite import Suite, SuiteSettings

CASE = Case("lstm", "step", 7, 3, 4, 5)
WINDOWED = Case("jordan", "tbptt", 7, 3, 4, 5, output_size=6, window=4, stride=2, dtype="float64", threads=2)

RUN = Run(
    run="20260101T000000-tiny",
    started="2026-01-01T00:00:00+00:00",
    suite="tiny",
    command=["rnnbench", "run", "tiny"],
    settings={"rounds": 2, "time_limit": 1.5, "text_file": None},
    environment={"machine": "some-cpu-2c", "versions": {"numpy": "2.0"}, "dirty": False},
    backends={"numpy_ref": {"device": "cpu"}, "torch_nn": {"unavailable": "needs PyTorch"}},
    cases=[CASE, WINDOWED],
)

ROWS = [
    Gate(CASE, "numpy_ref", True, {"y": (1e-7, 3e-7), "dx": (0.0, 2.5e-7)}, 0.25),
    Gate(CASE, "numba_cpu", False, {"y": (None, 3e-7)}, 0.25),
    Startup(CASE, "numpy_ref", 0, True, 0.5, 0.25, 0.125),
    Time(CASE, "numpy_ref", 1, 2, 64, [1e-3, 1.1e-3, 0.1 + 0.2]),
    Memory(CASE, "numpy_ref", 2**40 + 1),
    Truncation(WINDOWED, 0.25, {"weight_hh_l0": 0.5}),
    Failure(CASE, "torch_nn", "time", "crashed", 'killed by "SIGSEGV"\nat \u2028 \U0001f9e8 \x00', 1),
    Failure(WINDOWED, "torch_nn", "load", "unsupported", "no jordan"),
    End("2026-01-01T00:01:00+00:00", 60.0, 2.5, interrupted=True),
]


@pytest.fixture
def written(tmp_path):
    """A results file with every kind of row."""
    path = tmp_path / "machine" / "run.jsonl"
    with Writer(path) as writer:
        for row in [RUN, *ROWS]:
            writer.append(row)
    return path


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


# lines that do not read


@pytest.mark.parametrize("lost", [1, 2, 40])
def test_a_torn_last_line_is_passed_over_and_reported(written, lost):
    """Also where all but its line feed was written: what a later resume cuts off must not count as read before it."""
    content = written.read_bytes()
    written.write_bytes(content[:-lost])
    contents = read(written)
    assert contents.rows == ROWS[:-1]
    (problem,) = contents.problems
    assert problem.startswith("run.jsonl:10: not a row")
    assert "torn" in problem


@pytest.mark.parametrize("lost", [1, 2, 40])
def test_a_torn_last_line_is_cut_off_when_the_run_goes_on(written, lost):
    written.write_bytes(written.read_bytes()[:-lost])
    with Writer(written, resume=True) as writer:
        writer.append(ROWS[0])
    contents = read(written)
    assert contents.problems == []
    assert contents.rows == [*ROWS[:-1], ROWS[0]]


def test_going_on_with_a_whole_file_changes_none_of_its_bytes(written):
    before = written.read_bytes()
    with Writer(written, resume=True) as writer:
        assert written.read_bytes() == before
        writer.append(ROWS[3])
    after = written.read_bytes()
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 1


@pytest.mark.parametrize(
    "wrong",
    [
        b"not json at all",
        b"[1, 2]",
        b'{"kind": "tmie"}',
        b'{"kind": "time", "backend": "numpy_ref"}',
        b"\xff\xfe\x00",
        b'{"kind": "end", "finished": 3, "seconds": "x", "gate_seconds": 0}',
    ],
)
def test_a_corrupt_line_is_reported_with_its_place_and_the_rows_around_it_are_kept(written, wrong):
    lines = written.read_bytes().splitlines(keepends=True)
    lines[4] = wrong + b"\n"
    written.write_bytes(b"".join(lines))
    contents = read(written)
    assert contents.rows == [*ROWS[:3], *ROWS[4:]]
    (problem,) = contents.problems
    assert problem.startswith("run.jsonl:5: not a row: ")
    assert "torn" not in problem
    assert "\n" not in problem


def test_blank_lines_are_no_rows_and_line_numbers_count_them(written):
    first, rest = written.read_bytes().split(b"\n", 1)
    written.write_bytes(first + b"\n\n  \nwrong\n" + rest)
    contents = read(written)
    assert contents.rows == ROWS
    assert [problem.partition(": ")[0] for problem in contents.problems] == ["run.jsonl:4"]


def test_rows_with_unknown_fields_of_a_newer_writer_are_read(written):
    with written.open("ab") as file:
        file.write(b'{"kind": "end", "finished": "f", "seconds": 1, "gate_seconds": 0, "mood": "good"}\n')
    assert read(written).rows[-1] == End("f", 1.0, 0.0)


# bad lines, put aside


BAD = [b"not json at all\n", b'\xff\xfe\x00\r\x0c{"kind":\n', b'{"kind":"tmie"}\n']


@pytest.fixture
def corrupt(written):
    """The results file with bad lines 3, 5 and 14, a blank one before the first, and a torn end."""
    lines = written.read_bytes().splitlines(keepends=True)
    lines[1:1] = [b"\n", BAD[0], lines[1], BAD[1]]
    del lines[5]
    written.write_bytes(b"".join([*lines, BAD[2], b'{"kind":"end","fin']))
    return written


def without_bad(content: bytes) -> bytes:
    """All else as it was, to the byte."""
    return b"".join(line + b"\n" for line in content.split(b"\n")[:-1] if line + b"\n" not in BAD)


def test_bad_lines_are_put_aside_with_their_numbers_when_the_run_goes_on(corrupt):
    before = corrupt.read_bytes()
    with Writer(corrupt, resume=True) as writer:
        assert writer.moved == [3, 5, 14]
        assert corrupt.read_bytes() == without_bad(before)
        writer.append(ROWS[0])
    assert read(corrupt).rows == [*ROWS, ROWS[0]]
    assert read(corrupt).problems == []
    assert quarantine_file(corrupt).name == "run.jsonl.bad"
    assert quarantine_file(corrupt).read_bytes() == b"3\t" + BAD[0] + b"5\t" + BAD[1] + b"14\t" + BAD[2]
    assert results_files(corrupt.parent) == [corrupt]
    assert {path.name for path in corrupt.parent.iterdir()} == {"run.jsonl", "run.jsonl.bad"}


def test_lines_that_are_put_aside_later_join_those_before(corrupt):
    Writer(corrupt, resume=True).close()
    with corrupt.open("ab") as file:
        file.write(b"more\n")
    with quarantine_file(corrupt).open("ab") as file:
        file.write(b"12\tmo")  # a kill while it was written
    with Writer(corrupt, resume=True) as writer:
        assert writer.moved == [12]
    assert quarantine_file(corrupt).read_bytes().endswith(b"14\t" + BAD[2] + b"12\tmore\n")


def test_a_file_keeps_its_mode_and_its_link_when_bad_lines_are_put_aside(corrupt):
    corrupt.chmod(0o640)
    link = corrupt.with_name("link.jsonl")
    link.symlink_to(corrupt.name)
    Writer(link, resume=True).close()
    assert link.is_symlink()
    assert corrupt.stat().st_mode & 0o777 == 0o640
    assert read(corrupt).problems == []


KILLED = """
import os, signal, sys
from pathlib import Path
from rnnbench.results.writer import Writer

calls = 0

def killing(call):
    def counted(*arguments, **options):
        global calls
        calls += 1
        if calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return counted

os.fsync, Path.replace = killing(os.fsync), killing(Path.replace)
Writer(Path(sys.argv[1]), resume=True)
assert calls == int(sys.argv[2]) - 1
"""


def test_a_kill_while_bad_lines_are_put_aside_leaves_the_old_file_or_the_new(corrupt, tmp_path):
    """Before each wait for the disk, and before the new file takes its name."""
    before = corrupt.read_bytes()
    last = 4  # the quarantine, the new file, its name, the folder
    found = set()
    for number in range(1, last + 2):
        path = tmp_path / f"{number}" / "run.jsonl"
        path.parent.mkdir()
        path.write_bytes(before)
        done = subprocess.run([sys.executable, "-c", KILLED, path, f"{number}"], capture_output=True, text=True, check=False)
        assert done.returncode == (-signal.SIGKILL if number <= last else 0), done.stderr
        after = path.read_bytes()
        found.add(after)
        Writer(path, resume=True).close()
        assert read(path).rows == ROWS
        assert read(path).problems == []
        assert quarantine_file(path).read_bytes().count(b"\n") == len(BAD)  # each once, though one resume was killed
        assert sorted(file.name for file in path.parent.glob("*.jsonl*")) == ["run.jsonl", "run.jsonl.bad"]
    assert found == {before, without_bad(before)}


def test_a_new_file_that_cannot_be_written_leaves_the_old_one(corrupt, monkeypatch):
    before = corrupt.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer_module.os, "fsync", full)
    assert message(Writer, corrupt, resume=True) == f"cannot write {corrupt}: No space left on device"
    assert corrupt.read_bytes() == before
    assert not list(corrupt.parent.glob(".*"))


# files that are no results


def message(call, *arguments, **options) -> str:
    with pytest.raises(StoreError) as caught:
        call(*arguments, **options)
    return str(caught.value)


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


# names


def test_equal_cases_have_one_key_and_every_field_changes_it():
    changes = {
        "cell": "gru",
        "phase": "forward",
        "T": 8,
        "B": 4,
        "I": 5,
        "H": 6,
        "layers": 2,
        "bidirectional": True,
        "nonlinearity": "relu",
        "bias": False,
        "output_size": 6,
        "window": 3,
        "stride": 3,
        "dtype": "float64",
        "threads": 2,
    }
    assert list(changes) == list(Case.__struct_fields__)
    others = [msgspec.structs.replace(CASE, **{name: value}) for name, value in changes.items()]
    keys = [case.key() for case in [CASE, *others]]
    assert len(set(keys)) == len(keys)
    labels = [case.label() for case in [CASE, *others]]
    assert len(set(labels)) == len(labels)
    assert Case("lstm", "step", 7, 3, 4, 5).key() == CASE.key()


def test_a_key_is_the_same_in_every_process():
    code = f"from rnnbench.suite.case import Case; print({WINDOWED!r}.key())"
    for hash_seed in ("1", "2"):
        environment = os.environ | {"PYTHONHASHSEED": hash_seed}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == WINDOWED.key()
    assert msgspec.json.decode(msgspec.json.encode(WINDOWED), type=Case).key() == WINDOWED.key()


def test_a_label_leaves_out_what_has_its_usual_value():
    assert CASE.label() == "lstm step T7 B3 I4 H5"
    assert WINDOWED.label() == "jordan tbptt T7 B3 I4 H5 output_size6 window4 stride2 dtypefloat64 threads2"
    assert Case("gru", "forward", 1, 1, 1, 1, bidirectional=True).label() == "gru forward T1 B1 I1 H1 bidirectional"


def test_a_case_gives_its_network():
    spec = WINDOWED.spec()
    assert (spec.cell, spec.input_size, spec.hidden_size, spec.output_size, spec.dtype) == ("jordan", 4, 5, 6, "float64")
    whole = Case("elman", "step", 7, 3, 4, 5, 2, True, "relu", False).spec()
    assert (whole.num_layers, whole.bidirectional, whole.nonlinearity, whole.bias) == (2, True, "relu", False)
    assert replace(whole, num_layers=1) != whole


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
