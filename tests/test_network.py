"""What every network promises about memory and tapes, on the NumPy reference and on numba_cpu.

Any memory order will do; nothing the caller holds is changed or shared.  Takes 2 s once Numba's cache holds the kernels.
"""

from dataclasses import replace

import numpy as np
import pytest
from helpers.network_calls import (
    DEEP,
    GOOD_PART,
    JORDAN,
    LSTM,
    Arguments,
    B,
    H,
    I,
    T,
    arguments,
    assert_equal,
    each_backend,
    flat,
    gradients,
    inference,
    loaded,
    parts,
    step,
    zeros,
)

import rnnbench
from rnnbench import Spec
from rnnbench.impls import numba_cpu, numpy_ref
from rnnbench.networks.cells import CELLS


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP, JORDAN], ids=["lstm", "deep lstm", "jordan"])
def test_an_empty_sequence_leaves_the_state_and_passes_its_cotangent_on(backend, spec):
    net, given = loaded(backend, spec), arguments(spec, steps=0)
    y, final = net.forward(given.x, given.state)
    recorded_y, recorded, tape = net.record(given.x, given.state)
    grads = net.backward(tape, given.dy, given.dstate)
    for output in (y, recorded_y):
        assert (output.shape, output.dtype) == ((0, B, spec.features), spec.numpy_dtype)
    assert (grads.x.shape, grads.x.dtype) == ((0, B, I), spec.numpy_dtype)
    expected = {name: np.zeros(shape) for name, shape in spec.param_shapes().items()}
    assert list(grads.params) == list(expected)
    assert_equal(grads.params, expected)
    for got, wanted in ((final, given.state), (recorded, given.state), (grads.state, given.dstate)):
        assert_equal(parts("part", got), parts("part", wanted))
        assert not any(np.shares_memory(a, b) for a, b in zip(got, wanted, strict=True)), "a copy was promised"


@each_backend
def test_an_empty_sequence_without_a_state_gives_zeros(backend):
    net = loaded(backend)
    for got in (net.forward(zeros(0, B, I))[1], net.backward(net.record(zeros(0, B, I))[2], zeros(0, B, H)).state):
        assert_equal(parts("part", got), parts("part", (GOOD_PART, GOOD_PART)))


def every_other(array: np.ndarray) -> np.ndarray:
    """The same values with a stride of two on every axis."""
    holder = np.full([2 * size for size in array.shape], np.nan)
    view = holder[tuple(slice(None, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def reversed_strides(array: np.ndarray) -> np.ndarray:
    """The same values with negative strides on every axis."""
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    return array[backwards].copy()[backwards]


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


FORMS = {
    "strided": every_other,
    "Fortran": lambda array: array.copy(order="F"),
    "batch first": lambda array: array.swapaxes(0, array.ndim // 2).copy().swapaxes(0, array.ndim // 2),
    "negative strides": reversed_strides,
    "read-only": read_only,
}


def in_form(form, given: Arguments) -> Arguments:
    return Arguments(form(given.x), tuple(map(form, given.state)), form(given.dy), tuple(map(form, given.dstate)))


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP], ids=["lstm", "deep lstm"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_arrays_in_any_memory_order_give_the_same_bits_and_are_not_changed(backend, spec, form):
    assert_form_changes_nothing(backend, arguments(spec), spec, form)


@pytest.mark.parametrize(
    "backend",
    [
        numpy_ref,
        numba_cpu,
    ],
    ids=["numpy_ref", "numba_cpu"],
)
def test_a_single_row_with_negative_strides_gives_the_same_bits(backend):
    assert_form_changes_nothing(backend, arguments(LSTM, batch=1), LSTM, reversed_strides)


def assert_form_changes_nothing(backend, given: Arguments, spec: Spec, form) -> None:
    net = loaded(backend, spec)
    formed, kept = in_form(form, given), in_form(np.copy, given)
    assert_equal(step(net, formed), step(net, given))
    assert_equal(inference(net, formed), inference(net, given))
    for array, before in zip([*flat(formed), *flat(given)], flat(kept) * 2, strict=True):
        np.testing.assert_array_equal(array, before, strict=True)


@each_backend
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_parameters_in_any_memory_order_are_copied(backend, form):
    params, given = rnnbench.init_params(LSTM, 0), arguments(LSTM)
    expected = step(backend.load(LSTM, params), given)
    formed = {name: form(value) for name, value in params.items()}
    net = backend.load(LSTM, formed)
    for value in formed.values():
        value.flags.writeable = True
        value[...] = np.nan
    assert_equal(step(net, given), expected)


@each_backend
def test_params_gives_a_copy_in_the_layout_that_load_takes(backend):
    params, given = rnnbench.init_params(DEEP, 0), arguments(DEEP)
    net = loaded(backend, DEEP)
    expected = step(net, given)
    for value in net.params().values():
        value[...] = np.nan
    assert list(net.params()) == list(params)
    assert_equal(net.params(), params)
    assert_equal(step(net, given), expected)
    assert_equal(step(backend.load(DEEP, net.params()), given), expected)


@each_backend
def test_update_replaces_the_weights_and_copies_the_new_ones(backend):
    net, given, new = loaded(backend, DEEP), arguments(DEEP), rnnbench.init_params(DEEP, 7)
    old = step(net, given)
    net.update(new)
    expected = step(loaded(backend, DEEP, seed=7), given)
    assert not np.array_equal(expected["y"], old["y"])
    for value in new.values():
        value[...] = np.nan
    assert_equal(step(net, given), expected)
    assert_equal(net.params(), rnnbench.init_params(DEEP, 7))


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP], ids=["lstm", "deep lstm"])
def test_a_tape_keeps_the_weights_it_was_recorded_with(backend, spec):
    net, given = loaded(backend, spec), arguments(spec)
    expected = step(net, given)
    _, _, tape = net.record(given.x, given.state)
    net.update(rnnbench.init_params(spec, 7))
    found = gradients(net, tape, given)
    assert_equal(found, {name: expected[name] for name in found})


@each_backend
def test_several_tapes_are_alive_at_once_and_serve_in_any_order(backend):
    net = loaded(backend, DEEP)
    # of different lengths and batches, so that a shared buffer could not serve two of them
    problems = [arguments(DEEP, steps, batch, seed) for seed, (steps, batch) in enumerate([(T, B), (1, 7), (9, 1), (T, B)])]
    expected = [step(net, given) for given in problems]
    recorded = [net.record(given.x, given.state) for given in problems]
    net.forward(problems[0].x)
    for index in (2, 0, 3, 1):
        y, final, tape = recorded[index]
        got = {"y": y} | parts("final", final) | gradients(net, tape, problems[index])
        assert_equal(got, expected[index])


def overwritten(arrays) -> None:
    for array in arrays:
        array[...] = np.nan


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP], ids=["lstm", "deep lstm"])
def test_outputs_are_the_callers_to_overwrite_before_backward(backend, spec):
    net, given = loaded(backend, spec), arguments(spec)
    expected = step(net, given)
    y, final, tape = net.record(given.x, given.state)
    overwritten([y, *final])
    found = gradients(net, tape, given)
    assert_equal(found, {name: expected[name] for name in found})


@pytest.mark.parametrize(
    "backend",
    [
        numpy_ref,
        numba_cpu,
    ],
    ids=["numpy_ref", "numba_cpu"],
)
def test_the_initial_state_is_the_callers_to_overwrite_before_backward(backend):
    net, given = loaded(backend), arguments(LSTM)
    expected = step(net, given)
    state = tuple(part.copy() for part in given.state)
    _, _, tape = net.record(given.x, state)
    overwritten(state)
    found = gradients(net, tape, given)
    assert_equal(found, {name: expected[name] for name in found})


@each_backend
def test_results_of_one_call_are_not_touched_by_the_next(backend):
    net, given = loaded(backend, DEEP), arguments(DEEP)
    first = step(net, given)
    kept = {name: value.copy() for name, value in first.items()}
    step(net, arguments(DEEP, seed=5))
    net.forward(given.x)
    assert_equal(first, kept)


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP, JORDAN], ids=["lstm", "deep lstm", "jordan"])
def test_no_state_and_no_dstate_mean_zeros(backend, spec):
    net, given = loaded(backend, spec), arguments(spec)
    nothing = tuple(np.zeros_like(part) for part in given.state)
    y, final, tape = net.record(given.x)
    grads = net.backward(tape, given.dy)
    got = {"y": y} | parts("final", final) | {"dx": grads.x} | parts("dstate", grads.state) | grads.params
    assert_equal(got, step(net, given._replace(state=nothing, dstate=nothing)))


@each_backend
@pytest.mark.parametrize("spec", [LSTM, DEEP, JORDAN], ids=["lstm", "deep lstm", "jordan"])
def test_inference_and_training_forward_give_the_same_bits(backend, spec):
    net, given = loaded(backend, spec), arguments(spec)
    y, final, _ = net.record(given.x, given.state)
    assert_equal(inference(net, given), {"y": y} | parts("final", final))


@each_backend
def test_results_have_the_shapes_of_the_contract(backend):
    for cell in ("lstm", "jordan"):
        spec = replace(DEEP, cell=cell)
        net, given = loaded(backend, spec), arguments(spec)
        found = step(net, given)
        assert found["y"].shape == (T, B, spec.features)
        assert found["dx"].shape == (T, B, I)
        for index, _ in enumerate(CELLS[cell].states):
            assert found[f"final {index}"].shape == found[f"dstate {index}"].shape == spec.state_shape(B)
        assert {name: found[name].shape for name in spec.param_shapes()} == spec.param_shapes()
