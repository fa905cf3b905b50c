"""Runs that compare: two commits, and a backend with itself; real processes, and a slowdown that cannot be missed.

Takes 25 s.  A slowed backend takes ten times as long, so that no noise of the machine hides it.
"""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

import rnnbench
from rnnbench.compare.intervals import MAX_ROUNDS, MIN_ROUNDS
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.measure.commits import unpack
from rnnbench.measure.plan import resumed_plan
from rnnbench.results.reader import read
from rnnbench.results.rows import Failure, Time
from rnnbench.selftests import aa, interval_coverage, slowed_backend
from rnnbench.selftests.slowed_backend import slowed
from rnnbench.suite.case import Case

REPOSITORY = Path(__file__).resolve().parents[1]
ROUNDS = "6"
"""The fewest whose interval holds 95%."""

BEFORE_THE_MOVE = "1f7f254"
"""A commit whose modules lie in one folder."""

SUITE = """
name = "one"
description = "one small network"
source = "this test"
[[grid]]
cell = "elman"
phase = "step"
T = 8
B = 2
I = 3
H = 4
"""

SLOWER = """

import sys
from rnnbench.selftests.slowed_backend import SlowedNetwork
_plain = load


def load(spec, params, *, threads=None):
    return SlowedNetwork(sys.modules[__name__], _plain(spec, params, threads=threads), 9.0)
"""


# two commits


def git(*arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *identity, *arguments], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git checkout of this code, tagged ``old``, and with a reference that takes ten times as long, tagged ``new``."""
    folder = tmp_path / "checkout"
    passed_over = shutil.ignore_patterns("__pycache__")
    for name in ("rnnbench", "impls", "suites", "reports"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=passed_over)
    shutil.copy(REPOSITORY / "pyproject.toml", folder)
    (folder / "one.toml").write_text(SUITE)
    monkeypatch.chdir(folder)
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "old")
    git("tag", "old")
    with (folder / "impls" / "numpy_ref.py").open("a") as file:
        file.write(SLOWER)
    git("commit", "--quiet", "-a", "-m", "new")
    git("tag", "new")
    return folder


def test_a_commit_from_before_the_modules_moved_is_measured_beside_this_one(command, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    there = subprocess.run(["git", "cat-file", "-e", f"{BEFORE_THE_MOVE}^{{commit}}"], capture_output=True, check=False)
    if there.returncode:
        pytest.skip("this checkout lacks the history of the commit")
    (tmp_path / "one.toml").write_text(SUITE)
    given = ("compare", "--commits", BEFORE_THE_MOVE, "HEAD", tmp_path / "one.toml", "--backend", "numpy_ref", "--quick")
    code, out, err = command(*given, "--rounds", 2, "-o", tmp_path / "results")
    assert code == 0, out + err
    (path,) = (tmp_path / "results").rglob("*.jsonl")
    contents = read(path)
    assert [row for row in contents.rows if isinstance(row, Failure)] == []
    timed = {row.backend for row in contents.rows if isinstance(row, Time)}
    assert timed == {f"numpy_ref@{git('rev-parse', name)[:10]}" for name in (BEFORE_THE_MOVE, "HEAD")}


def test_each_commit_is_measured_with_its_own_code_in_one_run(command, checkout: Path, tmp_path: Path) -> None:
    given = ("compare", "--commits", "old", "new", "one.toml", "--backend", "numpy_ref", "--quick", "--rounds", ROUNDS)
    code, out, err = command(*given, "-o", tmp_path / "results", "--fail-if", "regression")
    assert code == 1, out + err
    old, new = (f"numpy_ref@{git('rev-parse', tag)[:10]}" for tag in ("old", "new"))
    lines = out.splitlines()
    assert lines[:2] == [f"A: {old}", f"B: {new}"]
    assert lines[3].split()[-1] == "regression"
    (path,) = (tmp_path / "results").rglob("*.jsonl")
    contents = read(path)
    assert contents.run.backends[new]["runs"] == "numpy_ref"
    assert contents.run.backends[new]["commit"] == git("rev-parse", "new")
    places = {(row.backend, row.round): row.position for row in contents.rows if isinstance(row, Time)}
    assert len(places) == 2 * int(ROUNDS)
    assert [places[old, number] for number in range(6)] in ([0, 1] * 3, [1, 0] * 3)  # alternately, not one after the other
    assert [row for row in contents.rows if isinstance(row, Failure)] == []
    assert git("status", "--porcelain") == ""
    assert len(git("worktree", "list").splitlines()) == 1
    with pytest.raises(StoreError, match="was a name for that run alone; start a new run instead"):
        resumed_plan(path)


def test_a_commit_that_does_not_answer_is_told_with_its_own_words(command, checkout: Path, tmp_path: Path) -> None:
    worker = checkout / "rnnbench" / "measure" / "worker.py"
    worker.write_text("raise SystemExit('another protocol')\n")
    git("commit", "--quiet", "-a", "-m", "other")
    code, out, err = command("compare", "--commits", "old", "HEAD", "one.toml", "--backend", "numpy_ref", "--quick")
    assert (code, out) == (2, "")
    assert "were never timed in one round of one case" in err
    assert "another protocol" in err


def test_a_commit_is_laid_out_as_it_would_be_installed(checkout: Path, tmp_path: Path) -> None:
    site = unpack(git("rev-parse", "new"), tmp_path / "unpacked")
    assert (site / "rnnbench" / "impls" / "numpy_ref.py").read_text() == (checkout / "impls" / "numpy_ref.py").read_text()
    assert "numba_cpu = rnnbench.impls.numba_cpu" in (site / "rnnbench-0.dist-info" / "entry_points.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("old", "absent"), "'absent' is no commit here; expected a revision of the git checkout in this folder"),
        (("old", "old~0"), "old and old~0 are both commit "),
        (("old", "new", "--backends", "a", "b"), "--backends with --commits; expected one of both"),
        (("old", "new", "quick", "quick"), "2 suites given with --commits; expected one or none"),
        (("old", "new", "--backend", "absent"), "unknown backend 'absent'"),
    ],
)
def test_commits_that_cannot_be_compared_are_refused(command, checkout: Path, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = command("compare", "--commits", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.splitlines()) == 1
    assert not Path("results").exists()


def test_a_checkout_of_something_else_is_refused(command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "'HEAD' is no commit here" in command("compare", "--commits", "HEAD", "HEAD~1")[2]
    git("init", "--quiet")
    for number in (1, 2):
        (tmp_path / "file").write_text(str(number))
        git("add", ".")
        git("commit", "--quiet", "-m", "something else")
    code, _, err = command("compare", "--commits", "HEAD~1", "HEAD")
    assert code == 2
    assert "is not of rnnbench; expected the current folder to be a checkout of it" in err


# a backend and itself


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aa, "BACKENDS", ("numpy_ref",))
    monkeypatch.setattr(aa, "CASES", [Case("elman", phase, 8, 2, 3, 4) for phase in ("forward", "step")])


@pytest.mark.usefixtures("small")
def test_a_backend_is_measured_under_two_names_and_nothing_is_lost(command, tmp_path: Path) -> None:
    code, out, _ = command("self-test", "aa", "--comparisons", 2, "--rounds", 2, "-o", tmp_path)
    lines = out.splitlines()
    assert code == (1 if "MISSED" in out else 0)  # of two rounds both ratios lie on one side of 1 half of the time
    assert re.fullmatch(r"numpy_ref: 2 comparisons of 2 rounds, intervals of \d+\.\d% to each side", lines[0])
    assert "called a regression" in out
    assert "intervals that miss the ratio 1" in out
    assert "of 2 " in lines[1]
    (path,) = tmp_path.rglob("*.jsonl")
    assert lines[-1] == f"results: {path}"
    times = [row for row in read(path).rows if isinstance(row, Time)]
    assert len({(row.case, row.backend, row.round) for row in times}) == 2 * 2 * 2
    assert {row.backend for row in times} == {"numpy_ref", "numpy_ref again"}


def test_backends_are_compared_with_themselves_in_as_many_rounds_as_with_each_other(
    command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def measure(suite, planted, settings, *_):
        asked.append((settings.rounds, settings.most))
        raise ArgumentError("that is enough")

    monkeypatch.setattr(aa, "measure", measure)
    command("self-test", "aa")
    command("self-test", "aa", "--rounds", 7)
    assert asked == [(MIN_ROUNDS, MAX_ROUNDS), (7, 7)]


@pytest.mark.usefixtures("small")
def test_a_planted_slowdown_is_found(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aa, "FOUND", {900.0: 0.95})
    code, out, _ = command("self-test", "aa", "--comparisons", 2, "--rounds", ROUNDS, "--planted", 900)
    assert code == 0
    assert "a slowdown of 900% called a regression      2 of 2    100.00%" in out


@pytest.mark.usefixtures("small")
def test_more_comparisons_than_there_are_cases_are_refused(command) -> None:
    assert "--comparisons is 3; expected at most 2" in command("self-test", "aa", "--comparisons", 3)[2]


def test_a_slowed_backend_gives_the_same_numbers() -> None:
    spec = rnnbench.Spec("lstm", 3, 4)
    params = rnnbench.init_params(spec, seed=0)
    x = np.random.default_rng(0).standard_normal((5, 2, 3), dtype=np.float32)
    plain, slow = rnnbench.load_backend("numpy_ref"), slowed("numpy_ref", 0.5)
    results = []
    for load in (plain.load, slow["load"]):
        net = load(spec, params, threads=1)
        y, state, tape = net.record(x)
        grads = net.backward(tape, y)
        net.update({name: 2 * value for name, value in net.params().items()})
        results.append([y, *state, grads.x, *grads.params.values(), net.forward(x, state)[0]])
    for one, other in zip(*results, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_slowdown_is_a_share_of_what_calls_take_and_holds_its_own_cost(monkeypatch) -> None:
    """The clock takes a unit for each reading.  On a slow core calls and spins are longer; a core that was taken is not."""
    now = 0

    def reading() -> int:
        nonlocal now
        now += 1
        return now

    def call(lasts: int) -> None:
        nonlocal now
        now += lasts

    monkeypatch.setattr(slowed_backend.time, "perf_counter", reading)
    slow = slowed_backend.slowed_call(call, lambda: None, 0.05)
    took = []
    for lasts in [1000] * 10 + [1600, 100_000]:
        before = now
        slow(lasts)
        took.append(now - before)
    assert took[:11] == pytest.approx([1050] * 10 + [1680], abs=1)
    assert took[11] == pytest.approx(100_000 + 2 * 50, abs=5)


@pytest.mark.parametrize(
    ("number", "total", "bar", "at_most", "word", "missed"),
    [
        (0, 200, 0.005, True, "ok", False),
        (2, 200, 0.005, True, "missed, within chance: more comparisons tell", False),
        (20, 200, 0.005, True, "MISSED", True),
        (190, 200, 0.95, False, "ok", False),
        (188, 200, 0.95, False, "missed, within chance: more comparisons tell", False),
        (100, 200, 0.95, False, "MISSED", True),
        (100, 200, None, False, "", False),
    ],
)
def test_a_bar_is_missed_where_chance_does_not_explain_it(number, total, bar, at_most, word, missed) -> None:
    share = aa.Share("it", number, total, bar, at_most)
    assert share.missed is missed
    assert share.line().endswith(word or ")")


# the simulation


def test_the_statistics_are_printed_and_a_missed_bar_is_an_exit_code(command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interval_coverage, "DRAWS", 1000)
    code, out, err = command("self-test", "statistics", "--seed", 1)
    assert (code, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[3:7]] == ["skewed", "bimodal", "drifting", "clustered"]
    monkeypatch.setattr(interval_coverage, "BAR", (0.97, 0.98))
    assert command("self-test", "statistics")[0] == 1
