"""rnnbench merge: every row is kept once and as it was, and runs that cannot be one are refused.  Takes 1 s."""

import msgspec
import pytest
from helpers.exported_run import COMMIT, ROWS, RUN, A, B, assert_one_line, environment, named, store, time

from rnnbench.reports import to_pandas
from rnnbench.results.merging import merge_contents
from rnnbench.results.reader import read
from rnnbench.results.rows import End, Failure, Gate, Run, Time


@pytest.fixture
def results(tmp_path):
    return store(tmp_path / "machine" / "run.jsonl")


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
