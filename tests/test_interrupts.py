"""Runs that are interrupted or killed, and that go on: real ones, of worker processes."""

import contextlib
import shlex
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import psutil
import pytest
from helpers.runs import (
    BAD,
    GOOD,
    LONG,
    PATIENCE,
    assert_complete,
    interrupt_at,
    measured,
    of,
    own_lines,
    planned,
    rnnbench_run,
)
from helpers.wrapped_reference import backend_file

from rnnbench.errors import StoreError
from rnnbench.measure.plan import resumed_plan
from rnnbench.results.reader import read
from rnnbench.results.rows import End, Time
from rnnbench.results.writer import Writer

pytestmark = pytest.mark.usefixtures("machine_at_rest", "no_process_left_behind")


def test_a_run_that_was_interrupted_goes_on_and_measures_what_was_left(tmp_path):
    names, cases = ["numpy_ref", backend_file(tmp_path / "second.py")], [GOOD, BAD]
    plan = planned(tmp_path, names, cases, rounds=2)
    with pytest.raises(KeyboardInterrupt):
        measured(plan, interrupt_at(3))
    before = read(plan.path)
    assert before.rows[-1] == of(End, before)[0]
    assert before.rows[-1].interrupted
    assert len(of(Time, before)) == 6
    contents = measured(resumed_plan(plan.path))
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, names, cases, rounds=2)


def test_going_on_with_a_run_that_was_complete_measures_nothing(tmp_path):
    contents = measured(planned(tmp_path, ["numpy_ref"], [GOOD]))
    again = measured(resumed_plan(contents.path))
    assert [type(row) for row in again.rows[len(contents.rows) :]] == [End]


@pytest.mark.parametrize(("field", "value"), [("cpu", "another"), ("versions", {"numpy": "1.0"}), ("commit", "0" * 40)])
def test_a_run_does_not_go_on_in_another_environment(tmp_path, field, value):
    plan = planned(tmp_path, ["numpy_ref"], [GOOD])
    now = plan.run.environment
    other = msgspec.structs.replace(plan.run, environment=now | {field: value})
    with Writer(plan.path) as writer:
        writer.append(other)
    with pytest.raises(StoreError) as caught:
        resumed_plan(plan.path)
    assert str(caught.value) == (
        f"cannot go on with {plan.path}: {field} was {value!r} and is {now[field]!r}; start a new run instead"
    )


SLOW = """
    def record(self, x, state=None):
        import time
        time.sleep(0.03)
        return self.net.record(x, state)
"""


@pytest.fixture
def started(tmp_path):
    """A run on the command line that has stored its first times and is in the midst of more; also its file and children."""
    suite = tmp_path / "tiny.toml"
    suite.write_text(
        'name = "tiny"\ndescription = "d"\nsource = "s"\n'
        '[[grid]]\ncell = "elman"\nphase = "step"\nT = 3\nB = 2\nI = 3\nH = [3, 4]\n'
    )
    name = backend_file(tmp_path / "slow.py", SLOW)
    folder = tmp_path / "a folder"
    process = rnnbench_run(str(suite), "--backends", name, "--rounds", "2", "--input", "noise", "-o", str(folder))
    with ended(process):
        path, children = None, []
        while not children:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
            path = next(folder.rglob("*.jsonl"), None)
            if path is not None and path.read_text().count('"kind":"time"') >= 2:
                children = children_of(process)  # not before: to look for them takes as long as a worker's answer
        yield process, name, path, children


@contextlib.contextmanager
def ended(process: subprocess.Popen):
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def children_of(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def is_worker(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):  # a run also asks git, which has gone at once
        return "rnnbench.measure.worker" in process.cmdline()
    return False


def assert_gone(children) -> None:
    _, alive = psutil.wait_procs(children, timeout=PATIENCE)
    assert alive == []


def assert_interrupted(process, stdout: str, stderr: str, path: Path) -> str:
    """Give the command that the one line names."""
    assert process.returncode == 130, stderr
    assert stdout == ""
    (line,) = own_lines(stderr)
    said, _, command = line.partition("Go on with: ")
    assert said == "rnnbench: interrupted; all that was measured is kept. "
    assert shlex.split(command) == ["rnnbench", "run", "--resume", str(path)]
    assert read(path).rows[-1].interrupted
    return command


def test_sigint_ends_with_one_line_that_says_how_to_go_on_and_so_it_does(started):
    process, name, path, children = started
    process.send_signal(signal.SIGINT)
    command = assert_interrupted(process, *process.communicate(timeout=PATIENCE), path)
    assert_gone(children)
    before = read(path)
    again = rnnbench_run(*shlex.split(command)[2:])
    stdout, stderr = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, stderr
    assert stdout.splitlines()[-1] == f"results: {path}"
    contents = read(path)
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, [name], contents.run.cases, rounds=2)


def test_sigterm_ends_as_sigint_does(started):
    process, _, path, children = started
    process.send_signal(signal.SIGTERM)
    assert_interrupted(process, *process.communicate(timeout=PATIENCE), path)
    assert_gone(children)


def test_an_interrupt_while_the_reference_computes_ends_as_any_other(tmp_path):
    (tmp_path / "long.toml").write_text(LONG)
    process = rnnbench_run(str(tmp_path / "long.toml"), "--backends", "numpy_ref", "-o", str(tmp_path))
    with ended(process):
        while not (any(is_worker(child) for child in children_of(process)) and any(tmp_path.rglob("*.jsonl"))):
            time.sleep(0.1)
        time.sleep(1)  # it has begun by then
        children = children_of(process)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE)
        (path,) = tmp_path.rglob("*.jsonl")
        assert_interrupted(process, stdout, stderr, path)
        assert_gone(children)


def test_a_run_that_was_killed_goes_on_without_a_row_twice_or_lost(started):
    process, name, path, children = started
    process.kill()
    process.communicate()
    assert_gone(children)
    with path.open("ab") as file:
        file.write(b'{"kind":"time","case":{"ce')  # and it may have died while writing
    before = read(path)
    assert of(End, before) == []
    contents = measured(resumed_plan(path))
    assert contents.rows[: len(before.rows)] == before.rows
    assert_complete(contents, [name], contents.run.cases, rounds=2)
