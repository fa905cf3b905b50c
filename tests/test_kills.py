"""A run is killed at 200 random points of its life (``--kill-points 1000`` for more) and loses nothing that it acknowledged.

Takes 12 s for 200 points.  ``helpers/killed_runs.py`` kills; these tests look at what that left.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from helpers import killed_runs
from helpers.runs import assert_each_once

from rnnbench.processes.scratch import PREFIX
from rnnbench.results.reader import Contents, read
from rnnbench.results.rows import AnyRow, End, Failure, Gate, Memory, Startup, Time, Truncation

SEED = 20261121


class Killed(NamedTuple):
    """What a life that was killed left in the file, and how much of that it had acknowledged."""

    left: bytes
    acknowledged: int


class Chain(NamedTuple):
    """The lives of one run, those that were killed first, and what it came to."""

    killed: list[Killed]
    path: Path
    contents: Contents


@pytest.fixture(scope="module")
def points(request) -> int:
    return request.config.getoption("--kill-points")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, points) -> Path:
    """Where runs were killed that often."""
    folder = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", killed_runs.__name__, str(folder), str(points), str(SEED)]
    subprocess.run(command, cwd=Path(__file__).parent, check=True)
    return folder


@pytest.fixture(scope="module")
def whole(folder) -> Contents:
    """The run that nothing ended."""
    (path,) = (folder / "whole").glob("*.jsonl")
    return read(path)


@pytest.fixture(scope="module")
def chains(folder) -> list[Chain]:
    found = []
    for path in folder.glob("[0-9]*/run.jsonl"):
        killed = [Killed(file.read_bytes(), int(file.name.split("-")[2])) for file in path.parent.glob("killed-*")]
        found.append(Chain(killed, path, read(path)))
    return found


def cases(contents: Contents) -> dict[tuple, AnyRow]:
    """Each fact by what it is about, without what a clock says and whose turn it was; of a repeat the later one."""
    found: dict[tuple, AnyRow] = {}
    for row in contents.rows:
        match row:
            case Time():
                row = msgspec.structs.replace(row, position=0, events=None)
            case Gate():
                row = msgspec.structs.replace(row, seconds=0.0)
            case Startup() | End():  # of a process
                continue
        found[type(row), row.case, getattr(row, "backend", None), getattr(row, "round", None)] = row
    return found


def test_runs_were_killed_as_often_as_asked_for_and_all_over_their_life(chains, points, whole):
    """In every fifth of the life, and while a row was being written."""
    left = [killed.left for chain in chains for killed in chain.killed]
    assert len(left) >= points
    assert {5 * content.count(b"\n") // (len(whole.rows) + 2) for content in left} >= {0, 1, 2, 3, 4}
    assert any(not content.endswith(b"\n") for content in left if b"\n" in content)


def test_no_acknowledged_row_is_lost(chains):
    for chain in chains:
        content = chain.path.read_bytes()
        for killed in chain.killed:
            assert len(killed.left) >= killed.acknowledged
            assert content.startswith(killed.left[: killed.acknowledged])


def test_every_line_is_a_row_and_no_row_is_there_twice(chains):
    for chain in chains:
        assert chain.contents.problems == []
        assert_each_once(chain.contents)


def test_no_start_up_is_told_twice(chains):
    """One for each cell of a backend and number of threads, in each round."""
    for chain in chains:
        rows = [row for row in chain.contents.rows if isinstance(row, Startup)]
        told = [(row.backend, row.case.cell, row.case.threads, row.round) for row in rows]
        assert len(set(told)) == len(told)
        assert told


def test_no_folder_is_left_but_that_of_the_process_that_killed(folder):
    """Each life that was killed left one; the next one began by removing it, and the last one of all ended."""
    assert len(list(folder.glob(f"{PREFIX}*"))) <= 1


def test_a_resumed_run_has_the_cases_of_one_that_nothing_ended(chains, whole):
    expected = cases(whole)
    assert {kind for kind, *_ in expected} >= {Time, Gate, Truncation, Failure, Memory}
    assert [chain.path for chain in chains if cases(chain.contents) != expected] == []
    assert {chain.contents.rows[-1].interrupted for chain in chains} == {False}
