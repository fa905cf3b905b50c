"""rnnbench show, and one line for whatever is wrong with a call of show, merge or export.  Takes 2 s."""

import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from helpers.exported_run import COMMIT, ROWS, RUN, B, assert_one_line, environment, store

from rnnbench.results.rows import SCHEMA


@pytest.fixture
def results(tmp_path):
    return store(tmp_path / "machine" / "run.jsonl")


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
        ("merge run.jsonl empty.jsonl", 2, "missing option '--output' / '-o'"),
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
        assert f"│ {verb} " in text
        assert command(verb, "--help")[0] == 0
