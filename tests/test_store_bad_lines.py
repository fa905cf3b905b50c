"""What a crash leaves behind is survived: lines that do not read are told, and put aside when a run goes on.  Takes 1 s."""

import signal
import subprocess
import sys

import pytest
from helpers.stored_rows import ROWS, message, write_rows

from rnnbench.results import writer as writer_module
from rnnbench.results.reader import quarantine_file, read, results_files
from rnnbench.results.rows import End
from rnnbench.results.writer import Writer


@pytest.fixture
def written(tmp_path):
    return write_rows(tmp_path)


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
