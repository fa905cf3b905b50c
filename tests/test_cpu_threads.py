"""Threads of the Numba backend: the barrier, how work is shared out, callers at the same time, and the rooms and packed
weights that they use.  About 25 s, a minute where the kernels are not in Numba's cache.

A broken barrier or a lost task shows as threads that wait for ever, which cannot be ended in this process: what might
do so runs in a process of its own.
"""

import faulthandler
import functools
import itertools
import multiprocessing
import os
import signal
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import threadpoolctl
from numba import njit

import rnnbench
from rnnbench import Spec
from rnnbench.check import Problem, expected, gate
from rnnbench.impls import numba_cpu
from rnnbench.impls.numba_cpu import weights
from rnnbench.impls.numba_cpu.buffers import BufferPool
from rnnbench.impls.numba_cpu.products import packed
from rnnbench.impls.numba_cpu.weights import LayerWeights
from rnnbench.impls.numba_cpu.workers import Share, Workers
from rnnbench.jit import thread_pool
from rnnbench.jit.barrier import Team, meet
from rnnbench.jit.target import current_target
from rnnbench.networks.cells import CELLS
from rnnbench.processes.patience import Patience
from rnnbench.suite.case import Case

LIMIT = 240
"""Seconds for what is done in a process of its own, many times what it needs where it compiles everything first.  Those in
which its threads were ready, and other work had the processors, do not count."""


def in_a_process(function: Callable[..., None], *arguments: object) -> None:
    """Call a function of this module in a new process: fails where it raises, and where it has not ended in time."""
    process = multiprocessing.get_context("spawn").Process(target=watched, args=(function, *arguments))
    process.start()
    assert process.pid
    patience = Patience(process.pid, LIMIT)
    while process.is_alive() and patience.left:
        process.join(1)
    if process.is_alive():
        os.kill(process.pid, signal.SIGABRT)
    process.join()
    assert process.exitcode == 0, "raised or never ended: the captured error output says which, and where"


def watched(function: Callable[..., None], *arguments: object) -> None:
    faulthandler.enable()  # says where all threads are when it is aborted
    with threadpoolctl.threadpool_limits(1, "blas"):
        function(*arguments)


def at_once(*calls: Callable[[], object]) -> list[object]:
    """Run each call in a thread of its own; raises what one of them raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


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
    [*itertools.product(["lstm", "gru", "elman"], ["rows", "units"]), ("jordan", "rows"), ("gru_reset_before", "rows")],
)
def test_networks_are_right_with_one_two_and_three_threads(cell, by):
    case = shared(cell, by, "step").case
    for count in (2, 3):
        shares = Workers(count).shares(case.spec(), case.T, case.B)
        assert len({getattr(share, by).start for share in shares}) == count, "a shape that does not share what it should"
    in_a_process(are_right, cell, by)


Step = dict[str, np.ndarray]


class Caller:
    """One caller's inputs for a training step of a network, and what it got."""

    def __init__(self, spec: Spec, steps: int, batch: int, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def drawn(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(spec.dtype)

        self.x, self.dy = drawn(steps, batch, spec.input_size), drawn(steps, batch, spec.features)
        self.state, self.dstate = (tuple(drawn(*spec.state_shape(batch)) for _ in spec.kind.states) for _ in range(2))

    def recorded(self, net) -> tuple[Step, object]:
        y, final, tape = net.record(self.x, self.state)
        return {"y": y} | {f"final {k}": part for k, part in enumerate(final)}, tape

    def gradients(self, net, tape) -> Step:
        grads = net.backward(tape, self.dy, self.dstate)
        return grads.params | {"dx": grads.x} | {f"d initial {k}": part for k, part in enumerate(grads.state)}

    def step(self, net) -> Step:
        found, tape = self.recorded(net)
        return found | self.gradients(net, tape)

    def forward(self, net) -> Step:
        y, final = net.forward(self.x, self.state)
        return {"y": y} | {f"final {k}": part for k, part in enumerate(final)}


def assert_same(got: Step, wanted: Step) -> None:
    for name, value in got.items():
        np.testing.assert_array_equal(value, wanted[name], strict=True, err_msg=name)


def loaded(spec: Spec, threads: int, seed: int = 0):
    return numba_cpu.load(spec, rnnbench.init_params(spec, seed), threads=threads)


SHAPES = {
    "rows": (Spec("lstm", 5, 17), 7, 33),
    "units": (Spec("lstm", 5, 257), 7, 1),
    "directions": (Spec("lstm", 5, 257, bidirectional=True), 17, 1),
}
"""(spec, T, B) that two and three threads share."""

CALLS = 60


def callers_at_once(by: str, networks: int) -> None:
    spec, steps, batch = SHAPES[by]
    sys.setswitchinterval(1e-5)  # seconds: one caller's tasks come between another's
    for threads in (1, 2, 3):
        nets = [loaded(spec, threads, seed) for seed in range(networks)]
        pairs = [(nets[k % networks], Caller(spec, steps, batch, seed=k)) for k in range(2)]
        alone = [caller.step(net) for net, caller in pairs]

        def call(which: int, pairs=pairs, alone=alone) -> None:
            net, caller = pairs[which]
            for _ in range(CALLS):
                assert_same(caller.step(net), alone[which])
                assert_same(caller.forward(net), alone[which])

        at_once(functools.partial(call, 0), functools.partial(call, 1))


@pytest.mark.parametrize("by", SHAPES)
def test_two_callers_of_one_network_get_what_they_get_alone(by):
    in_a_process(callers_at_once, by, 1)


@pytest.mark.parametrize("by", SHAPES)
def test_two_networks_at_the_same_time_give_what_they_give_alone(by):
    in_a_process(callers_at_once, by, 2)


@pytest.mark.parametrize(("steps", "batch", "threads", "at_once"), [
    (17, 1, 2, True), (17, 7, 3, True), (17, 1, 1, False), (17, 8, 2, False), (1, 1, 2, False), (17, 1, 4, False),
])  # fmt: skip
def test_both_directions_run_at_once_where_threads_would_be_idle_and_calls_are_long(steps, batch, threads, at_once):
    spec, workers, seen = Spec("lstm", 5, 257, bidirectional=True), Workers(threads), []

    def call() -> int:
        seen.append(threading.get_ident())
        return len(seen)

    assert workers.run_directions(spec, [call, call], steps, batch) in ([1, 2], [2, 1])
    assert len(set(seen)) == (2 if at_once else 1)
    assert threading.get_ident() in seen


def test_what_either_direction_raises_reaches_the_caller():
    spec, workers = Spec("lstm", 5, 257, bidirectional=True), Workers(2)

    def fails() -> None:
        raise ArithmeticError("a direction")

    for calls in ([fails, int], [int, fails]):
        with pytest.raises(ArithmeticError, match="a direction"):
            workers.run_directions(spec, calls, 17, 1)


def errors_reach_the_caller() -> None:
    workers = Workers(3)
    for failing in range(3):

        def kernel(place: int, done: list[int], failing: int = failing) -> None:
            if place == failing:
                raise ArithmeticError(f"share {failing}")
            done.append(place)

        with pytest.raises(ArithmeticError, match=f"share {failing}"):
            workers.run(kernel, [(place, []) for place in range(3)])
    done: list[int] = []
    workers.run(lambda place: done.append(place), [(place,) for place in range(3)])
    assert sorted(done) == [0, 1, 2], "nor is anything left of the failed calls"


def test_an_exception_in_a_kernel_is_raised_to_the_caller():
    in_a_process(errors_reach_the_caller)


def tapes_keep_their_own(by: str) -> None:
    spec, steps, batch = SHAPES[by]
    callers = [Caller(spec, steps, batch, seed) for seed in range(4)]
    for threads in (1, 2, 3):
        alone = [caller.step(loaded(spec, threads)) for caller in callers]
        net = loaded(spec, threads)
        tapes = [caller.recorded(net)[1] for caller in callers[:3]]
        callers[3].forward(net)
        assert_same(callers[1].gradients(net, tapes[1]), alone[1])
        again = callers[3].recorded(net)[1]  # in the buffers that tape 1 gave back
        for k, tape in [(2, tapes[2]), (3, again), (0, tapes[0])]:
            assert_same(callers[k].gradients(net, tape), alone[k])


@pytest.mark.parametrize("by", SHAPES)
def test_tapes_alive_keep_their_own_buffers(by):
    in_a_process(tapes_keep_their_own, by)


SEQUENCE = (5, 3)


def test_a_room_is_handed_out_again_after_it_was_given_back_and_not_before():
    rooms, first, second = BufferPool(), ["first"], ["second"]
    assert rooms.take(SEQUENCE, "forward") is None
    rooms.give_back(SEQUENCE, "forward", first)
    rooms.give_back(SEQUENCE, "forward", second)
    assert {id(rooms.take(SEQUENCE, "forward")) for _ in range(2)} == {id(first), id(second)}
    assert rooms.take(SEQUENCE, "forward") is None


def test_rooms_of_other_kinds_and_sequences_are_kept_apart():
    rooms = BufferPool()
    rooms.give_back(SEQUENCE, "forward", ["room"])
    assert rooms.take(SEQUENCE, "backward") is None
    assert rooms.take((5, 4), "forward") is None
    assert rooms.take(SEQUENCE, "forward") == ["room"]


def given_back(rooms: BufferPool, sequences: list[tuple[int, int]]) -> dict[tuple[int, int], weakref.ref]:
    """An array for each sequence, given back in this order, as it may or may not be kept."""
    found = {}
    for sequence in sequences:
        array = np.empty(2)
        found[sequence] = weakref.ref(array)
        rooms.give_back(sequence, "forward", array)
    return found


def kept(arrays: dict[tuple[int, int], weakref.ref]) -> list[tuple[int, int]]:
    return [sequence for sequence, array in arrays.items() if array() is not None]


def test_rooms_of_the_last_two_sequences_are_kept_and_no_others():
    rooms = BufferPool()
    assert kept(given_back(rooms, [(steps, 3) for steps in range(50)])) == [(48, 3), (49, 3)]
    long, short = (20, 3), (7, 3)  # the windows of truncated BPTT, and what is left at the end
    assert kept(given_back(rooms, [long, short])) == [long, short]
    rooms.take(long, "forward")
    others = given_back(rooms, [(1, 1)])
    assert kept(others) == [(1, 1)]
    assert rooms.take(short, "forward") is None


def test_a_room_is_never_handed_to_two_threads_at_once():
    rooms, interval = BufferPool(), sys.getswitchinterval()
    started = threading.Barrier(4)

    def use(owner: int) -> None:
        started.wait()
        for turn in range(3000):
            sequence = (turn % 3, 1)
            array = rooms.take(sequence, "forward")
            array = np.empty(2, np.int64) if array is None else array
            array[:] = owner
            assert np.all(array == owner)
            rooms.give_back(sequence, "forward", array)

    sys.setswitchinterval(1e-6)
    try:
        at_once(*(functools.partial(use, owner) for owner in range(4)))
    finally:
        sys.setswitchinterval(interval)


def test_layers_of_other_input_sizes_do_not_share_rooms():
    """A deep network's first layer reads I values a step, the others H, with the same T and B."""
    problem = Problem(Case("lstm", "step", 6, 5, 9, 4, layers=3, bidirectional=True))
    wanted = expected(problem)
    for _ in range(2):
        assert all(finding.passed for finding in gate(numba_cpu, problem, wanted))


def layer_weights(cell: str, size: int, seed: int = 0) -> tuple[LayerWeights, dict[str, np.ndarray]]:
    spec = Spec(cell, 3, size)
    params = {name.removesuffix("_l0"): value for name, value in rnnbench.init_params(spec, seed).items()}
    return LayerWeights(spec, params, current_target()), params


def test_weights_are_packed_once_for_each_range_of_units(monkeypatch):
    packings = []

    def counted(matrix, target):
        packings.append(matrix.shape)
        return packed(matrix, target)

    monkeypatch.setattr(weights, "packed", counted)
    layer, _ = layer_weights("lstm", 8)
    assert not packings, "packed before they are asked for"
    first = layer.of_units(slice(0, 4))
    once = len(packings)
    assert once > 0
    assert layer.of_units(slice(0, 4)) is first
    assert len(packings) == once
    assert layer.of_units(slice(4, 8)) is not first
    assert layer.of_units(slice(0, 8)) is not first
    assert len(packings) == 3 * once
    for units in (slice(0, 8), slice(4, 8), slice(0, 4)):
        layer.of_units(units)
    assert len(packings) == 3 * once
    back = layer.back_of_units(slice(0, 4))
    assert len(packings) > 3 * once, "packed for BPTT before it was asked for"
    assert layer.back_of_units(slice(0, 4)) is back
    assert layer.back_of_units(slice(4, 8)) is not back


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "gru_reset_before", "jordan"])
@pytest.mark.parametrize("units", [slice(0, 9), slice(0, 4), slice(4, 9)])
def test_weights_of_units_are_their_rows_of_every_gate(cell, units):
    layer, params = layer_weights(cell, 9)
    found, found_back, target, kind = layer.of_units(units), layer.back_of_units(units), current_target(), CELLS[cell]
    count, outer = len(kind.gates), kind.outer_gates
    rows = {name: np.concatenate(np.split(value, count)[:outer]) for name, value in params.items() if not name.endswith("ho")}
    of_outer = np.concatenate([np.arange(9)[units] + gate * 9 for gate in range(outer)])
    of_inner = np.concatenate([np.arange(9)[units] + gate * 9 for gate in range(outer, count)] or [np.zeros(0, int)])
    of_all = np.concatenate([of_outer, of_inner])
    assert len(rows["weight_hh"]) == outer * 9
    for matrix, forward, back in [
        (params["weight_ih"][of_all], found.ih, found_back.ih),
        (params["weight_hh"][of_outer], found.outer, found_back.outer),
        (params["weight_hh"][of_inner], found.inner, found_back.inner),
        (params.get("weight_ho", np.zeros((0, 9), "float32")), found.ho, found_back.ho),
    ]:
        np.testing.assert_array_equal(forward, packed(matrix.T, target), strict=True)
        np.testing.assert_array_equal(back, packed(matrix, target), strict=True)
    # where the equations read sums alone, the input product brings both biases, rounded once
    together = kind.reads_sums and not kind.inner_gates
    bias_ih = params["bias_ih"] + params["bias_hh"] if together else params["bias_ih"]
    bias_hh = 0 * params["bias_hh"] if together else params["bias_hh"]
    for bias, row in [
        (bias_ih[of_all], found.bias_ih),
        (bias_hh[of_outer], found.bias_outer),
        (bias_hh[of_inner], found.bias_inner),
    ]:
        np.testing.assert_array_equal(row[: len(bias)], bias)
        assert not np.any(row[len(bias) :])
        assert len(row) % target.lanes(row.dtype) == 0


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
