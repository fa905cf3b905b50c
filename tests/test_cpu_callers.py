"""Callers of the Numba backend at the same time: each gets what it gets alone, or what its own call raised.  About 10 s."""

import functools
import sys
import threading

import numpy as np
import pytest
from helpers.own_process import at_once, in_a_process

import rnnbench
from rnnbench import Spec
from rnnbench.impls import numba_cpu
from rnnbench.impls.numba_cpu.workers import Workers

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
