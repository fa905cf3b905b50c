"""What a full disk, a folder that cannot be written, a second run or a hostile name does to the commands that store.

Each fault is a real one, in a process of its own.  Takes 20 s.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from helpers.wrapped_reference import backend_file

from rnnbench.cli.main import main
from rnnbench.results.reader import quarantine_file, read, results_files
from rnnbench.results.rows import SCHEMA, End, Time
from rnnbench.results.writer import Writer

TINY = """
name = "tiny"
description = "one small network"
source = "this test"
settings = { rounds = 1, input = "noise" }
[[grid]]
cell = "elman"
phase = "step"
T = 3
B = 2
I = 3
H = 3
"""

FOLDER = "\"</script>'\u2028\U0001f9e8 " + "x" * 200
"""Two folders, as there is a slash in it."""


def rnnbench(*arguments, limit: int | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess:
    """Run a command in a process whose files can have ``limit`` bytes."""
    code = "import sys; from rnnbench.cli.main import main; sys.exit(main(sys.argv[1:]))"
    if limit is not None:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); {code}"
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd)


def complaint(done: subprocess.CompletedProcess, code: int = 4) -> str:
    """The one line that is all that a command said."""
    assert (done.returncode, done.stdout) == (code, ""), done
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("running ")]
    return line


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("suites") / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def measured(tiny, tmp_path_factory) -> Path:
    """The results of a run on a backend whose file lies in a hostile folder."""
    folder = tmp_path_factory.mktemp("hostile") / FOLDER
    folder.mkdir(parents=True)
    backend = backend_file(folder / "-rf.py")
    output = tmp_path_factory.mktemp("results")
    done = rnnbench("run", tiny, "--backends", backend, "-o", output)
    assert done.returncode == 0, done.stderr
    (path,) = results_files(output)
    assert {row.backend for row in read(path).rows if isinstance(row, Time)} == {backend}
    return path


@pytest.fixture
def results(measured, tmp_path) -> Path:
    return Path(shutil.copy(measured, tmp_path / "run.jsonl"))


# a disk that is full


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_a_run_whose_disk_is_full_ends_with_one_line_and_can_go_on(results):
    """The file is made large, so that the limit of its size does not hinder what else a run writes."""
    rows = [row for row in read(results).rows if not isinstance(row, End)]
    results.write_bytes(results.read_bytes().splitlines(keepends=True)[0])
    with Writer(results, resume=True) as writer:
        writer.append_all(rows[:1] * 2000 + rows)
    before = results.read_bytes()
    said = complaint(rnnbench("run", "--resume", results, limit=len(before) + 50))
    assert said == f"rnnbench: cannot write {results}: File too large"
    assert results.read_bytes().startswith(before)
    assert read(results).rows == rows[:1] * 2000 + rows
    done = rnnbench("run", "--resume", results)
    assert done.returncode == 0, done.stderr
    assert read(results).problems == []
    assert [type(row) for row in read(results).rows[2000 + len(rows) :]] == [End]


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
def test_what_cannot_be_written_whole_is_not_there(results, tmp_path):
    other = tmp_path / "other.jsonl"
    run = msgspec.structs.replace(read(results).run, run="another")
    with Writer(other) as writer:
        writer.append_all([run, *read(results).rows])
    before = sorted(tmp_path.iterdir())
    for arguments in (["merge", results, other], ["export", "csv", results], ["export", "pyperf", results]):
        output = tmp_path / "output"
        said = complaint(rnnbench(*arguments, "-o", output, limit=100))
        assert said == f"rnnbench: cannot write {output}: File too large"
        assert sorted(tmp_path.iterdir()) == before
    old = tmp_path / "old.csv"
    old.write_text("what was there")
    complaint(rnnbench("export", "csv", results, "-o", old, limit=100))
    assert old.read_text() == "what was there"


# a folder that cannot be written


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder here that root cannot write into")
@pytest.mark.parametrize("command", ["run", "merge", "csv", "asv"])
def test_a_folder_that_cannot_be_written_is_one_line(tiny, results, tmp_path, command):
    """Root may write into any folder that has a mode: one of the kernel's refuses all."""
    output = Path("/proc/self/results")
    if command == "run":
        done = rnnbench("run", tiny, "--backends", "numpy_ref", "-o", output)
    elif command == "merge":
        other = tmp_path / "other.jsonl"
        with Writer(other) as writer:
            writer.append(msgspec.structs.replace(read(results).run, run="another"))
        done = rnnbench("merge", results, other, "-o", output)
    else:
        done = rnnbench("export", command, results, "-o", output)
    assert complaint(done).startswith(f"rnnbench: cannot write {output}")


# files that are not as they should be


def test_a_corrupt_line_is_told_and_put_aside_when_a_run_goes_on(results):
    lines = results.read_bytes().splitlines(keepends=True)
    results.write_bytes(b"".join([*lines[:2], b"\x1b[2Jnonsense\n", *lines[2:], b'{"kind":"ti']))
    done = rnnbench("run", "--resume", results)
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if not line.startswith("running ")]
    assert told[0].startswith("rnnbench: run.jsonl:3: not a row: ")
    assert told[1].startswith(f"rnnbench: run.jsonl:{len(lines) + 2}: not a row: torn")
    assert told[2:] == [f"rnnbench: run.jsonl:3: moved to {quarantine_file(results)}"]
    assert quarantine_file(results).read_bytes() == b"3\t\x1b[2Jnonsense\n"
    assert read(results).problems == []
    assert results.read_bytes().startswith(b"".join(lines))


def test_a_newer_schema_is_one_line(results):
    run, rest = results.read_bytes().split(b"\n", 1)
    newer = msgspec.json.decode(run) | {"schema": SCHEMA + 1, "cases": "of another form"}
    results.write_bytes(msgspec.json.encode(newer) + b"\n" + rest)
    before = results.read_bytes()
    said = f"rnnbench: {results} has schema {SCHEMA + 1}; this version reads schema {SCHEMA}"
    assert complaint(rnnbench("run", "--resume", results)) == said
    assert results.read_bytes() == before


# two at once; test_store.py has those that start at once in one folder


def test_a_run_that_goes_on_in_a_file_that_another_writes_is_refused(results):
    with Writer(results, resume=True):
        said = complaint(rnnbench("run", "--resume", results))
    assert said == f"rnnbench: cannot write {results}: another process is writing into it"


# names


@pytest.mark.parametrize(
    "name", ["../up", "x" * 300, "</script>", "two\\nlines", "\U0001f9e8", "", "a/b", ".hidden", "-rf", "=1+1", "nul\\u0000"]
)
def test_a_suite_whose_name_is_no_name_for_a_file_is_refused_before_anything_is_written(capsys, monkeypatch, tmp_path, name):
    path = tmp_path / "hostile.toml"
    path.write_text(TINY.replace('name = "tiny"', f'name = "{name}"'), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(path), "--backends", "numpy_ref"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    (said,) = printed.err.splitlines()
    assert "name is '" in said
    assert len(said) < 300
    assert list(tmp_path.iterdir()) == [path]


def test_a_backend_in_a_hostile_folder_is_measured_and_shown_on_one_line(measured, tmp_path):
    """``measured`` ran it; its name is the path of its file."""
    assert [path.name for path in measured.parent.iterdir()] == [f"{read(measured).run.run}.jsonl"]
    done = rnnbench("show", measured, cwd=tmp_path)
    assert done.returncode == 0
    assert "\\u2028" in done.stdout
    assert all(line.isprintable() for line in done.stdout.split("\n"))
    assert rnnbench("report", measured, "-o", "page.html", cwd=tmp_path).returncode == 0
    assert os.listdir(tmp_path) == ["page.html"]  # noqa: PTH208  # names alone
