"""Buffers that calls of the Numba backend use again, and weights that are packed once.  About 1 s."""

import functools
import sys
import threading
import weakref

import numpy as np
import pytest
from helpers.own_process import at_once

import rnnbench
from rnnbench import Spec
from rnnbench.check import Problem, expected, gate
from rnnbench.impls import numba_cpu
from rnnbench.impls.numba_cpu import weights
from rnnbench.impls.numba_cpu.buffers import BufferPool
from rnnbench.impls.numba_cpu.products import packed
from rnnbench.impls.numba_cpu.weights import LayerWeights
from rnnbench.jit.target import current_target
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case

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
