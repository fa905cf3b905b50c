"""The states of all steps, read from a tape: they are y, the final states, and those of every layer in between."""

import numpy as np
import pytest

import rnnbench
from rnnbench import ArgumentError, Spec, init_params, load_backend
from rnnbench.errors import TapeError
from rnnbench.networks.cells import CELLS

T, B = 7, 6
LENGTHS = {"one length": None, "lengths": [7, 0, 3, 5, 1, 2], "lengths below T": [4, 0, 3, 4, 1, 2]}
NETWORKS = {
    **{cell: Spec(cell, 3, 5, num_layers=2, bidirectional=True, dtype="float64") for cell in CELLS},
    "projection": Spec("lstm", 3, 5, projection_size=3, dtype="float64"),
}


@pytest.fixture
def reference():
    return load_backend("numpy_ref")


def recorded(backend, spec, lengths=None, threads=1):
    """A network and its tape of a call, with the call's y and final state."""
    x = np.random.default_rng(0).standard_normal((T, B, 3)).astype(spec.numpy_dtype)
    net = backend.load(spec, init_params(spec, 1), threads=threads)
    return net, *net.record(x, None, lengths)


@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_the_last_layer_s_states_are_y_and_every_row_ends_with_its_final_state(reference, spec, lengths):
    net, y, final, tape = recorded(reference, spec, lengths)
    states = net.states(tape)
    np.testing.assert_array_equal(np.concatenate(list(states[0][-spec.directions :]), axis=2), y)
    for part, last in zip(states, final, strict=True):
        for row, length in enumerate(lengths or [T] * B):
            assert not part[:, length:, row].any()
            for index in range(len(part) if length else 0):
                np.testing.assert_array_equal(part[index, 0 if index % spec.directions else length - 1, row], last[index, row])


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("lengths", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_numba_cpu_reads_the_same_from_rows_and_units_that_threads_share(reference, spec, lengths, threads):
    net, _, _, tape = recorded(reference, spec, lengths)
    fast, _, _, fast_tape = recorded(load_backend("numba_cpu"), spec, lengths, threads)
    for wanted, got in zip(net.states(tape), fast.states(fast_tape), strict=True):
        assert got.dtype == wanted.dtype
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_one_row_whose_units_threads_share_has_all_of_them():
    spec, backend = Spec("lstm", 3, 64, dtype="float64"), load_backend("numba_cpu")
    x = np.random.default_rng(0).standard_normal((T, 1, 3))
    found = []
    for threads in (1, 2):
        net = backend.load(spec, init_params(spec, 1), threads=threads)
        found.append(net.states(net.record(x)[2]))
    for one, two in zip(*found, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-12)


def test_narrow_states_have_the_dtype_of_the_network(reference):
    net, y, _, tape = recorded(reference, Spec("gru", 3, 5, dtype="float16"))
    (states,) = net.states(tape)
    assert states.dtype == np.float16
    np.testing.assert_array_equal(states[0], y)


def test_no_steps_have_no_states(reference):
    spec = Spec("lstm", 3, 5)
    net = reference.load(spec, init_params(spec, 1))
    _, _, tape = net.record(np.zeros((0, B, 3), np.float32))
    assert [part.shape for part in net.states(tape)] == [(1, 0, B, 5)] * 2


def test_a_tape_that_was_used_or_is_another_network_s_is_refused(reference):
    spec = Spec("gru", 3, 5)
    net, y, _, tape = recorded(reference, spec)
    *_, others = recorded(reference, spec)
    with pytest.raises(TapeError, match="another network"):
        net.states(others)
    net.backward(tape, y)
    with pytest.raises(TapeError, match="already used"):
        net.states(tape)


def test_a_backend_that_does_not_keep_states_says_so():
    pytest.importorskip("torch")
    spec = Spec("gru", 3, 5)
    net = rnnbench.load_backend("torch_nn").load(spec, init_params(spec, 1))
    _, _, tape = net.record(rnnbench.load_backend("torch_nn").asarray(np.zeros((T, B, 3), np.float32)))
    with pytest.raises(ArgumentError, match=r"does not keep the states of all steps; load the network on numba_cpu"):
        net.states(tape)
