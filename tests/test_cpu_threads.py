"""Threads of the Numba backend: the barrier, how work is shared out, and the processors that threads run on.

About 15 s, more where the kernels are not in Numba's cache.
"""

import functools
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.own_process import at_once, in_a_process
from numba import njit

from rnnbench import Spec
from rnnbench.check import Problem, expected, gate
from rnnbench.impls import numba_cpu
from rnnbench.impls.numba_cpu.workers import Share, Workers
from rnnbench.jit import thread_pool
from rnnbench.jit.barrier import Team, meet
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case

MODULUS = 1_000_003


@njit(nogil=True)
def mix_with_neighbours(team, place, values, rounds):
    """Each round, values[other, place] from the neighbours' in values[one]; the rows change places after each."""
    size = values.shape[1]
    for r in range(rounds):
        old, new = r % 2, (r + 1) % 2
        left, right = values[old, (place - 1) % size], values[old, (place + 1) % size]
        values[new, place] = (3 * left + 5 * right + r) % MODULUS
        meet(team)


def mixed(size: int, rounds: int) -> np.ndarray:
    values = np.arange(size)
    for r in range(rounds):
        values = (3 * np.roll(values, 1) + 5 * np.roll(values, -1) + r) % MODULUS
    return values


def a_team_meets(size: int, rounds: int) -> None:
    mix_with_neighbours(Team.of(1), 0, np.zeros((2, 1), np.int64), 1)  # compiled before the threads begin
    team, values = Team.of(size), np.zeros((2, size), np.int64)
    values[0] = np.arange(size)
    at_once(*(functools.partial(mix_with_neighbours, team, place, values, rounds) for place in range(size)))
    np.testing.assert_array_equal(values[rounds % 2], mixed(size, rounds))


# with more threads than cores a round takes as long as the system needs to let all of them run
@pytest.mark.parametrize(("size", "rounds"), [(1, 1000), (2, 20_000), (4, 2001), ((os.cpu_count() or 1) + 3, 1000)])
def test_barrier_nobody_goes_on_before_all_have_come(size, rounds):
    in_a_process(a_team_meets, size, rounds)


def test_shares_cover_every_row_and_unit_exactly_once():
    sizes = [1, 2, 3, 4, 7, 8, 9, 15, 16, 33, 64, 130, 257]
    for count, cell, size, batch in itertools.product([1, 2, 3, 4, 7, 16], CELLS, sizes, sizes):
        shares = Workers(count).shares(Spec(cell, 3, size), 10, batch)
        times = np.zeros((batch, size), int)
        for share in shares:
            times[share.rows, share.units] += 1
            assert times[share.rows, share.units].size, f"{share}: empty"
        assert np.all(times == 1), f"{cell}, {count} threads, B {batch}, H {size}: {shares}"
        assert len(shares) <= count


def test_shares_are_of_rows_where_each_thread_gets_four():
    for count, cell, batch in itertools.product([2, 3, 4, 7], CELLS, range(1, 70)):
        shares = Workers(count).shares(Spec(cell, 3, 300), 10, batch)
        by_rows = any(share.rows != slice(0, batch) for share in shares)
        assert by_rows == (batch >= 8), f"{cell}, {count} threads, B {batch}: {shares}"
        if by_rows:
            assert all(share.units == slice(0, 300) for share in shares)
            assert min(share.rows.stop - share.rows.start for share in shares) >= 4
            assert len(shares) == min(count, batch // 4), "every thread that there are four rows for"


@pytest.mark.parametrize(("cell", "gates"), [("elman", 1), ("lstm", 4), ("gru", 3)])
def test_shares_are_of_units_where_rows_are_few_and_a_step_is_large(cell, gates):
    for count, batch, size in itertools.product([2, 3, 4], range(1, 8), [16, 64, 128, 200, 257, 512]):
        shares = Workers(count).shares(Spec(cell, 3, size), 10, batch)
        assert all(share.rows == slice(0, batch) for share in shares)
        flops = 2 * batch * gates * size * size  # of the recurrent product of a step; a thread gets at least 100,000
        assert len(shares) == min(count, max(1, flops // 100_000)), f"{count} threads, B {batch}, H {size}"
        assert max(s.units.stop - s.units.start for s in shares) - min(s.units.stop - s.units.start for s in shares) <= 1


@pytest.mark.parametrize("cell", ["jordan", "gru_reset_before"])
def test_shares_are_never_of_units_for_cells_that_would_meet_twice_a_step(cell):
    for count, batch, size in itertools.product([1, 2, 4], [1, 3, 7, 8, 33], [16, 257, 2048]):
        assert all(s.units == slice(0, size) for s in Workers(count).shares(Spec(cell, 3, size), 10, batch))


def test_threads_are_the_processs_setting_unless_given(monkeypatch):
    monkeypatch.setattr("numba.get_num_threads", lambda: 5)
    assert Workers(None).threads == 5
    assert Workers(2).threads == 2


def test_one_thread_has_one_share():
    for cell, batch, size in itertools.product(CELLS, [1, 8, 64], [1, 512]):
        assert Workers(1).shares(Spec(cell, 3, size), 10, batch) == [Share(slice(0, batch), slice(0, size))]


def with_threads(count: int) -> SimpleNamespace:
    """The backend, loaded with so many threads."""
    functions = {name: getattr(numba_cpu, name) for name in numba_cpu.__all__}
    return SimpleNamespace(**functions | {"load": functools.partial(numba_cpu.load, threads=count)})


def shared(cell: str, by: str, phase: str) -> Problem:
    """A problem whose rows, or units, are shared among two and three threads; an even and an odd number of steps."""
    few = 3 if cell == "elman" else 1  # rows, as many as make a step large enough
    sizes = {"rows": {"T": 5, "B": 33, "H": 17}, "units": {"T": 4, "B": few, "H": 257}}[by]
    case = Case(cell, phase, **sizes, I=6, layers=2, bidirectional=True)  # type: ignore[arg-type]
    return Problem(case, "orthogonal", seed=3)


def are_right(cell: str, by: str) -> None:
    """Every output and gradient within the tolerance that the gate derives, with each number of threads."""
    for phase in ("step", "forward"):  # without a tape, the states are kept for two steps alone
        problem = shared(cell, by, phase)
        wanted = expected(problem)
        for count in (1, 2, 3):
            wrong = [str(finding) for finding in gate(with_threads(count), problem, wanted) if not finding.passed]
            assert not wrong, f"{problem.case.label()}, {count} threads: {wrong}"


@pytest.mark.parametrize(
    ("cell", "by"),
    [
        *itertools.product(["lstm", "lstm_peephole", "gru", "elman"], ["rows", "units"]),
        ("jordan", "rows"),
        ("gru_reset_before", "rows"),
    ],
)
def test_networks_are_right_with_one_two_and_three_threads(cell, by):
    case = shared(cell, by, "step").case
    for count in (2, 3):
        shares = Workers(count).shares(case.spec(), case.T, case.B)
        assert len({getattr(share, by).start for share in shares}) == count, "a shape that does not share what it should"
    in_a_process(are_right, cell, by)


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, (1 << 16) + 3])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_sums_that_threads_share_are_sums(threads, size):
    total, term = np.arange(size, dtype="float32"), np.full(size, 0.5, "float32")
    Workers(threads).add(total, term)
    np.testing.assert_array_equal(total, np.arange(size, dtype="float32") + np.float32(0.5))


# processors


@pytest.fixture
def on_processors(monkeypatch):
    """Threads run on the first of these and may run on all; gives what was asked of the system."""

    def on(*allowed: int) -> list[set[int]]:
        asked: list[set[int]] = []
        monkeypatch.setattr(thread_pool, "_CAN_MOVE", True)
        monkeypatch.setattr(thread_pool, "_processor", lambda: min(asked[0] if asked else {allowed[0]}))
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(allowed), raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", lambda _, processors: asked.append(processors), raising=False)
        return asked

    return on


def test_a_thread_on_a_processor_that_is_taken_is_moved_to_a_free_one_and_not_bound_to_it(on_processors):
    asked, taken = on_processors(2, 5, 7), {2, 7}
    assert thread_pool._elsewhere(taken, max, 3, 4) == 4
    assert asked == [{5}, {2, 5, 7}]
    assert taken == {2, 5, 7}


@pytest.mark.parametrize(("allowed", "taken"), [((2, 5), {5}), ((2,), {2})], ids=["apart already", "nowhere to go"])
def test_a_thread_is_not_moved_where_that_helps_nothing(on_processors, allowed, taken):
    asked = on_processors(*allowed)
    assert thread_pool._elsewhere(taken, max, 3, 4) == 4
    assert asked == []


def test_a_thread_that_cannot_be_moved_does_its_share(on_processors, monkeypatch):
    """Others wait for it."""

    def refuse(*_):
        raise OSError("no such processor any more")

    on_processors(2, 5)
    monkeypatch.setattr(os, "sched_setaffinity", refuse, raising=False)
    assert thread_pool._elsewhere({2}, max, 3, 4) == 4


@pytest.mark.skipif(not thread_pool._CAN_MOVE, reason="this system does not move threads")
def test_threads_keep_the_processors_that_they_may_run_on():
    before = os.sched_getaffinity(0)
    with ThreadPoolExecutor(1) as pool:
        after = pool.submit(thread_pool._elsewhere, set(sorted(before)[:-1]), os.sched_getaffinity, 0).result()
    assert after == before
