"""Results files that a full disk, an editor or an enemy left: told, put aside, and never more than a line or a file lost.

What a file says is held to the limits of suites where it is read, so that nothing later on is too large or of another type.
"""

import resource
import signal
import warnings
from pathlib import Path

import msgspec
import pytest
from helpers.stored_results import write

import rnnbench
from rnnbench.errors import LeftOut, StoreError
from rnnbench.machine.facts import machine_name
from rnnbench.results.reader import quarantine_file, read, results_files
from rnnbench.results.rows import Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case
from rnnbench.suite.suite import load_suite

CASE = Case("lstm", "step", 16, 4, 8, 8)
OTHER = Case("lstm", "step", 32, 4, 8, 8)
TIMES: dict[tuple[str, Case], float | list[float]] = {
    (backend, case): [0.2 + 0.001 * number for number in range(12)]
    for backend in ("numpy_ref", "numba_cpu")
    for case in (CASE, OTHER)
}


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two runs of this machine, of two commits, and beside them what is no run."""
    folder = tmp_path / "results"
    folder.mkdir()
    for name in ("a", "b"):
        write(folder / f"{name}.jsonl", TIMES, machine=machine_name(), commit=name * 40)
    (folder / "y-torn.jsonl").write_bytes((folder / "a.jsonl").read_bytes()[:100])
    (folder / "z-empty.jsonl").touch()
    (folder / "zz-folder.jsonl").mkdir()
    return folder


TOLD = ("y-torn.jsonl", "z-empty.jsonl", "zz-folder.jsonl")


@pytest.mark.parametrize(
    "arguments",
    [
        "show {0}",
        "export csv {0}",
        "export pyperf {0}",
        "export asv {0} -o {0}/asv",
        "report {0} -o {0}/report.html",
        "report --history {0} -o {0}/history.html",
        "report {0} --format csv",
        "compare {0} {0}/a.jsonl",
        "merge {0} {0}/a.jsonl -o {0}/merged",
        "bars {0}",
        "best --cell lstm -T 16 -B 4 -I 8 -H 8 --results {0}",
        "best --regret {0}",
    ],
)
def test_a_folder_is_read_without_what_is_no_run_which_is_told_once(command, folder, arguments):
    code, _, err = command(*arguments.format(folder).split())
    assert (code == 0) != arguments.startswith("merge"), err  # runs of two commits
    told = [line for line in err.splitlines() if "left out" in line]
    assert [name for name in TOLD for line in told if f"/{name} " in line] == list(TOLD)
    assert all(line.startswith("rnnbench: left out: ") for line in told)


def test_in_python_a_file_that_is_left_out_is_a_warning(folder):
    with pytest.warns(LeftOut) as told:
        assert [file.name for file in results_files(folder)] == ["a.jsonl", "b.jsonl"]
    assert len(told) == len(TOLD)
    with pytest.warns(UserWarning, match="y-torn"):
        frame = rnnbench.load_results(folder)
    assert len(frame.attrs["problems"]) == len(TOLD)


def test_where_nothing_is_left_the_reason_is_told(tmp_path):
    (tmp_path / "run.jsonl").touch()
    with pytest.raises(StoreError, match=r"no results at .*: .*run\.jsonl is no results file: its first line is no run"):
        results_files(tmp_path)


def test_a_file_that_is_named_is_refused(command, folder):
    code, out, err = command("show", str(folder / "z-empty.jsonl"))
    assert (code, out) == (4, "")
    assert err.endswith("z-empty.jsonl is no results file: its first line is no run\n")


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="this system does not limit the size of files")
@pytest.mark.parametrize("room", [0, 10])
def test_a_first_row_that_cannot_be_written_leaves_no_file(tmp_path, folder, room):
    path, run = tmp_path / "run.jsonl", read(folder / "a.jsonl").run
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        with pytest.raises(StoreError, match="File too large"), Writer(path) as writer:
            writer.append(run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not path.exists()


def row(**changed) -> bytes:
    """A time as it stands in files, with other values; those of ``case`` in its case."""
    fields = msgspec.to_builtins(Time(CASE, "numpy_ref", 99, 0, 1, [0.2])) | {"kind": "time"}
    case = changed.pop("case", {})
    return msgspec.json.encode(fields | changed | {"case": fields["case"] | case}) + b"\n"


BAD = {
    "layers": row(case={"layers": 2147483648}),
    "layers of a suite": row(case={"layers": 2**20}),
    "T": row(case={"T": 2**40}),
    "no T": row(case={"T": 0}),
    "H": row(case={"H": -1}),
    "threads": row(case={"threads": 10**30}),
    "window": row(case={"window": 0}),
    "round": row(round=10**18),
    "negative round": row(round=-1),
    "loops": row(loops=0),
    "nested": b"[" * 100_000 + b"\n",
    "nested in a row": row()[:-2] + b',"more":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}\n",
    "bytes": row().replace(b"numpy_ref", b"numpy\x80ref"),
    "half a surrogate": row().replace(b"numpy_ref", b"numpy\\ud800ref"),
    "digits": row().replace(b":99", b":" + b"9" * 5000),
    "NaN": row().replace(b"[0.2]", b"[NaN]"),
    "infinite": row().replace(b"[0.2]", b"[1e999]"),
    "a second run with wrong settings": b"",  # made from the file
}


@pytest.mark.parametrize("name", BAD)
def test_a_line_beyond_what_a_row_may_be_is_told_and_put_aside(command, folder, name):
    path = folder / "a.jsonl"
    before = path.read_bytes()
    first, rest = before.split(b"\n", 1)
    bad = BAD[name] or first.replace(b'"settings":{}', b'"settings":{"rounds":"many"}') + b"\n"
    path.write_bytes(first + b"\n" + bad + rest)
    contents = read(path)
    (problem,) = contents.problems
    assert problem.startswith("a.jsonl:2: not a row: ")
    assert contents.rows == read(folder / "b.jsonl").rows
    for arguments in (f"bars {path}", f"report {path} --format csv", f"show {path}", f"export csv {path}"):
        code, out, err = command(*arguments.split())
        assert code == 0
        assert "a.jsonl:2: not a row: " in out + err or not arguments.startswith(("show", "export"))
    with Writer(path, resume=True) as writer:
        assert writer.moved == [2]
    assert path.read_bytes() == before
    assert quarantine_file(path).read_bytes() == b"2\t" + bad


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"settings":{}', b'"settings":{"rounds":"many"}'),
        (b'"settings":{}', b'"settings":{"vain_repeats":-1}'),
        (b'"cores":2', b'"cores":"two"'),
        (b'"cores":2', b'"cores":2,"versions":[1]'),
        (b'"commit":"aaaa', b'"commit":7,"was":"aaaa'),
        (b'"cores":2', b'"cores":2,"more":' + b"[" * 100 + b"]" * 100),
        (b'"cores":2', b'"cores":2,"more":' + b"[" * 100_000 + b"]" * 100_000),
        (b'"numpy_ref":{}', b'"numpy_ref":{"unavailable":[]}'),
        (b'"numpy_ref":{}', b'"numpy_ref":{"runs":1}'),
        (b'"T":16', b'"T":1e9'),
        (b'"T":16', b'"T":16777217'),
        (b'"H":8', b'"H":8,"layers":2147483648'),
        (b'"made-up"', b'"made\x80up"'),
    ],
    ids=str,
)
def test_a_header_with_facts_of_another_type_or_size_is_no_run(command, folder, old, new):
    path = folder / "a.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    assert old in first
    path.write_bytes(first.replace(old, new, 1) + b"\n" + rest)
    for arguments in (["show", path], ["run", "--resume", path], ["report", path, "--format", "md"], ["compare", path, path]):
        code, out, err = command(*map(str, arguments))
        assert (code, out) == (4, "")
        assert f"{path} is no results file: its first line is no run (a.jsonl:1: not a row: " in err


def test_all_that_a_suite_may_ask_for_is_a_row_that_reads(tmp_path):
    """The limits are the same."""
    (tmp_path / "large.toml").write_text(
        'name = "large"\ndescription = "d"\nsource = "s"\n[[grid]]\ncell = "jordan"\nphase = "tbptt"\n'
        "T = 16777216\nB = 16777216\nI = 16777216\nH = 16777216\nlayers = 1024\noutput_size = 16777216\nwindow = 16777216\n"
        "threads = 16777216\n"
    )
    (case,) = load_suite(tmp_path / "large.toml").cases
    write(tmp_path / "run.jsonl", {("numpy_ref", case): 1.0})
    contents = read(tmp_path / "run.jsonl")
    assert contents.problems == []
    assert contents.run.cases == [case]


@pytest.mark.parametrize("content", [b"{", b"\x80", b"[" * 100_000, b'{"schema":1,"environment":{}}', b'{"schema":"1"}', b""])
def test_a_broken_look_at_the_machine_is_one_line(command, folder, content):
    (folder / "machine-20260101T000000.json").write_bytes(content)
    for arguments in (["bars", folder / "b.jsonl"], ["report", folder / "b.jsonl", "--format", "csv"]):
        code, out, err = command(*map(str, arguments))
        assert (code, out) == (4, "")
        assert "machine-20260101T000000.json" in err
        assert err.count("\n") == 1


def test_a_byte_order_mark_is_no_part_of_a_suite_or_a_text(tmp_path):
    suite = load_suite("quick")
    text = (Path(rnnbench.__file__).parent.parent / "suites" / "quick.toml").read_bytes()
    (tmp_path / "quick.toml").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_suite(tmp_path / "quick.toml") == suite
    (tmp_path / "corpus.txt").write_bytes(b"\xef\xbb\xbfabc")
    from rnnbench.suite.inputs import read_text

    assert read_text(tmp_path / "corpus.txt") == "abc"


def test_reading_a_sound_folder_warns_of_nothing(folder):
    for name in ("y-torn.jsonl", "z-empty.jsonl"):
        (folder / name).unlink()
    (folder / "zz-folder.jsonl").rmdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(results_files(folder)) == 2
