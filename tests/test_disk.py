"""Files that a user keeps are replaced whole: by each command, on a full disk, beside another writer, in a hostile folder."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import synthetic_results

import rnnbench
from rnnbench.results import disk
from rnnbench.results.reader import results_files

OLD = b"what was there, and is good"


def test_two_writers_of_one_file_leave_the_content_of_one_of_them(tmp_path):
    """The second one begins and ends while the first is half done."""
    path = tmp_path / "report.html"

    def slow() -> Iterator[bytes]:
        yield b"a" * 10**6
        disk.save(path, [b"b" * 10])
        yield b"a" * 10

    disk.save(path, slow())
    assert path.read_bytes() == b"a" * (10**6 + 10)
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_under_the_temporary_name_is_not_followed(tmp_path, monkeypatch):
    """Nobody can know that name; here it is known, and what the link points to stays as it is."""
    monkeypatch.setattr(disk.secrets, "token_hex", lambda _: "known")
    victim, path = tmp_path / "victim", tmp_path / "report.html"
    victim.write_bytes(OLD)
    (tmp_path / ".known.new").symlink_to(victim)
    with pytest.raises(rnnbench.StoreError, match="File exists"):
        disk.save(path, [b"new"])
    assert victim.read_bytes() == OLD
    assert not path.exists()


def test_each_write_has_a_temporary_name_of_its_own(tmp_path, monkeypatch):
    opened = []
    really = os.open
    monkeypatch.setattr(disk.os, "open", lambda path, *more: opened.append(Path(path)) or really(path, *more))
    for _ in range(3):
        disk.save(tmp_path / "report.html", [b"new"])
    names = {path.name for path in opened if path.suffix == ".new"}
    assert len(names) == 3
    assert all(re.fullmatch(r"\.[0-9a-f]{32}\.new", name) for name in names)


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("x" * 255)
    disk.save(path, [b"new"])
    assert path.read_bytes() == b"new"


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Two runs, with what ``rnnbench machine`` stores beside them."""
    folder = tmp_path_factory.mktemp("results")
    synthetic_results.write_roofs(folder)
    for name in ("a", "b"):
        synthetic_results.write(folder / f"{name}.jsonl")
    return folder


@pytest.fixture
def full(monkeypatch):
    """The disk is full: what is written is found not to fit when it is waited for."""

    def fsync(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(disk.os, "fsync", fsync)


@pytest.mark.parametrize(
    "arguments",
    [
        ["report", "{a}"],
        ["report", "{a}", "{b}"],
        ["report", "{a}", "--format", "md"],
        ["report", "{a}", "--format", "csv"],
        ["report", "{a}", "--format", "json"],
        ["export", "csv", "{a}"],
        ["export", "parquet", "{a}"],
        ["export", "pyperf", "{a}"],
        ["export", "bencher", "{a}"],
    ],
    ids=lambda words: " ".join(words),
)
def test_on_a_full_disk_a_good_file_stays_in_place(command, results, tmp_path, full, arguments):
    a, b = results_files(results)
    output = tmp_path / "output"
    output.write_bytes(OLD)
    code, out, err = command(*(word.format(a=a, b=b) for word in arguments), "-o", str(output))
    assert (code, out) == (4, "")
    assert err.splitlines()[-1] == f"rnnbench: cannot write {output}: {os.strerror(errno.ENOSPC)}"
    assert output.read_bytes() == OLD
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".new")] == []


def test_a_look_at_the_machine_that_cannot_be_written_whole_leaves_no_file(command, tmp_path, full):
    code, _, err = command("machine", "--no-roofs", "-o", str(tmp_path / "results"))
    assert code == 4
    assert "cannot write" in err
    assert [path for path in (tmp_path / "results").rglob("*") if path.is_file()] == []


WRITES = re.compile(r"""\.write_(?:text|bytes)\(|open\([^()]*["'][rwxb+]*[awx][b+]*["']|savez""")

PRIVATE = {
    "rnnbench/results/disk.py",  # the function itself
    "rnnbench/cli/terminal.py",  # /dev/null
    "rnnbench/check/expected_files.py",  # from here on files that one process writes for another, in a folder of their own
    "rnnbench/selftests/slowed_backend.py",
    "rnnbench/measure/commits.py",
    "rnnbench/measure/memory.py",  # a switch of the kernel's
    "rnnbench/cli/gpu.py",  # rows, appended as they come
    "rnnbench/training/checkpoint.py",  # into memory, which disk.save writes
    "rnnbench/processes/worker_process.py",  # from here on pipes
    "rnnbench/measure/worker.py",
    "impls/numba_cuda/offline.py",
    "tools/oldest/oldest.py",
    "tools/gpu_run/make_folder.py",  # a folder that is made anew
}


def test_nothing_else_in_the_tree_writes_files():
    """Who writes a file for a user by other means loses it on a full disk; who writes another kind says so above."""
    root = Path(__file__).parents[1]
    found = {
        str(path.relative_to(root))
        for folder in ("rnnbench", "impls", "reports", "suites", "tools")
        for path in (root / folder).rglob("*.py")
        if WRITES.search(path.read_text("utf-8"))
    }
    assert found - PRIVATE == set()
