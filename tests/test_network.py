"""What every network promises about its arguments, memory and tapes, on the NumPy reference and on numba_cpu.

Wrong arguments are refused in one sentence with what was given and what is allowed; any memory order will do; nothing
the caller holds is changed or shared.  Takes 2 s once Numba's cache holds the kernels.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

import rnnbench
from rnnbench import ArgumentError, Spec, SpecError, TapeError
from rnnbench.impls import numba_cpu, numpy_ref
from rnnbench.networks.cells import CELLS

T, B, I, H = 5, 3, 4, 2  # noqa: E741  # the field's names
LSTM = Spec("lstm", I, H, dtype="float64")
DEEP = replace(LSTM, num_layers=2, bidirectional=True)
# no other shape differs for it, so its kernels are the only ones beyond lstm's that this file compiles
JORDAN = Spec("jordan", I, H, output_size=6, dtype="float64")

each_backend = pytest.mark.parametrize("backend", [numpy_ref, numba_cpu], ids=lambda module: module.__name__.rsplit(".", 1)[-1])


class Arguments(NamedTuple):
    """One set of arguments for a network."""

    x: np.ndarray
    state: tuple[np.ndarray, ...]
    dy: np.ndarray
    dstate: tuple[np.ndarray, ...]


def arguments(spec: Spec, steps: int = T, batch: int = B, seed: int = 1) -> Arguments:
    rng = np.random.default_rng(seed)

    def state():
        return tuple(rng.standard_normal(spec.state_shape(batch)) for _ in spec.kind.states)

    x, dy = (rng.standard_normal((steps, batch, size)) for size in (spec.input_size, spec.features))
    return Arguments(x, state(), dy, state())


def loaded(backend, spec: Spec = LSTM, seed: int = 0):
    return backend.load(spec, rnnbench.init_params(spec, seed))


def step(net, given: Arguments) -> dict[str, np.ndarray]:
    """Every tensor of a training step, by name."""
    y, final, tape = net.record(given.x, given.state)
    return {"y": y} | parts("final", final) | gradients(net, tape, given)


def inference(net, given: Arguments) -> dict[str, np.ndarray]:
    y, final = net.forward(given.x, given.state)
    return {"y": y} | parts("final", final)


def gradients(net, tape, given: Arguments) -> dict[str, np.ndarray]:
    grads = net.backward(tape, given.dy, given.dstate)
    return {"dx": grads.x} | parts("dstate", grads.state) | grads.params


def parts(name: str, state) -> dict[str, np.ndarray]:
    return {f"{name} {index}": part for index, part in enumerate(state)}


def flat(given: Arguments) -> list[np.ndarray]:
    return [given.x, *given.state, given.dy, *given.dstate]


def assert_equal(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """The same tensors, bit for bit."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True, err_msg=name)


def assert_refused(call, message: str, error: type[Exception] = ArgumentError) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message


def zeros(*shape: int, dtype: str = "float64") -> np.ndarray:
    return np.zeros(shape, dtype)


GOOD_X, GOOD_PART = zeros(T, B, I), zeros(1, B, H)

BAD_INPUTS = {
    "x of wrong rank": (zeros(B, I), None, f"x has shape (3, 4); expected (T, B, I) = (_, _, {I})"),
    "x of wrong size": (zeros(T, B, 9), None, f"x has shape (5, 3, 9); expected (T, B, I) = (_, _, {I})"),
    "x of another dtype": (zeros(T, B, I, dtype="float32"), None, "x has dtype float32; expected float64"),
    "x of another byte order": (zeros(T, B, I, dtype=">f8"), None, "x has dtype >f8; expected float64"),
    "x of integers": (zeros(T, B, I, dtype="int64"), None, "x has dtype int64; expected float64"),
    "x a list": (
        GOOD_X.tolist(),
        None,
        "x is a builtins.list; expected a numpy.ndarray (convert with the backend's asarray)",
    ),
    "B = 0": (zeros(T, 0, I), None, f"x has shape (5, 0, {I}); expected a batch B >= 1"),
    "T = B = 0": (zeros(0, 0, I), None, f"x has shape (0, 0, {I}); expected a batch B >= 1"),
    "state too short": (GOOD_X, (GOOD_PART,), "state is 1 arrays; expected a tuple of 2: (h, c)"),
    "state too long": (GOOD_X, (GOOD_PART,) * 3, "state is 3 arrays; expected a tuple of 2: (h, c)"),
    "state an array": (GOOD_X, zeros(2, 1, B, H), "state is a ndarray; expected a tuple of 2: (h, c)"),
    "h of wrong rank": (GOOD_X, (zeros(B, H), GOOD_PART), "state h has shape (3, 2); expected (L*D, B, H) = (1, 3, 2)"),
    "h of another batch": (
        GOOD_X,
        (zeros(1, 1, H), GOOD_PART),
        "state h has shape (1, 1, 2); expected (L*D, B, H) = (1, 3, 2)",
    ),
    "c of wrong size": (GOOD_X, (GOOD_PART, zeros(1, B, 9)), "state c has shape (1, 3, 9); expected (L*D, B, H) = (1, 3, 2)"),
    "c of another dtype": (
        GOOD_X,
        (GOOD_PART, GOOD_PART.astype("float32")),
        "state c has dtype float32; expected float64",
    ),
    "c a number": (
        GOOD_X,
        (GOOD_PART, 0.0),
        "state c is a builtins.float; expected a numpy.ndarray (convert with the backend's asarray)",
    ),
}

BAD_COTANGENTS = {
    "dy of wrong rank": (zeros(B, H), None, "dy has shape (3, 2); expected (T, B, D*H) = (5, 3, 2)"),
    "dy of wrong size": (zeros(T, B, 9), None, "dy has shape (5, 3, 9); expected (T, B, D*H) = (5, 3, 2)"),
    "dy of wrong length": (zeros(T + 1, B, H), None, "dy has shape (6, 3, 2); expected (T, B, D*H) = (5, 3, 2)"),
    "dy of another batch": (zeros(T, 1, H), None, "dy has shape (5, 1, 2); expected (T, B, D*H) = (5, 3, 2)"),
    "dy of another dtype": (zeros(T, B, H, dtype="float32"), None, "dy has dtype float32; expected float64"),
    "dy a number": (
        1.0,
        None,
        "dy is a builtins.float; expected a numpy.ndarray (convert with the backend's asarray)",
    ),
    "dstate too short": (zeros(T, B, H), (GOOD_PART,), "dstate is 1 arrays; expected a tuple of 2: (h, c)"),
    "dh of wrong size": (
        zeros(T, B, H),
        (zeros(1, B, 9), GOOD_PART),
        "dstate h has shape (1, 3, 9); expected (L*D, B, H) = (1, 3, 2)",
    ),
    "dc of another dtype": (
        zeros(T, B, H),
        (GOOD_PART, zeros(1, B, H, dtype="int32")),
        "dstate c has dtype int32; expected float64",
    ),
}


@each_backend
@pytest.mark.parametrize("phase", ["forward", "record"])
@pytest.mark.parametrize(("x", "state", "message"), BAD_INPUTS.values(), ids=BAD_INPUTS)
def test_unfit_inputs_are_refused_by_inference_and_training_alike(backend, phase, x, state, message):
    assert_refused(lambda: getattr(loaded(backend), phase)(x, state), message)


@each_backend
@pytest.mark.parametrize(("dy", "dstate", "message"), BAD_COTANGENTS.values(), ids=BAD_COTANGENTS)
def test_unfit_cotangents_are_refused_and_the_tape_can_still_be_used(backend, dy, dstate, message):
    net, given = loaded(backend), arguments(LSTM)
    expected = step(net, given)
    _, _, tape = net.record(given.x, given.state)
    assert_refused(lambda: net.backward(tape, dy, dstate), message)
    found = gradients(net, tape, given)
    assert_equal(found, {name: expected[name] for name in found})


@each_backend
def test_messages_for_jordan_name_its_output_size(backend):
    net = loaded(backend, JORDAN)
    assert_refused(
        lambda: net.forward(GOOD_X, (zeros(1, B, H),)), "state y has shape (1, 3, 2); expected (L*D, B, O) = (1, 3, 6)"
    )
    _, _, tape = net.record(GOOD_X)
    assert_refused(lambda: net.backward(tape, zeros(T, B, H)), "dy has shape (5, 3, 2); expected (T, B, D*O) = (5, 3, 6)")


def without(name: str):
    return lambda params: {key: value for key, value in params.items() if key != name}


BAD_PARAMS = {
    "missing": (without("bias_hh_l0"), "parameters do not fit lstm: missing bias_hh_l0; expected "),
    "extra": (
        lambda params: params | {"weight_ho_l0": zeros(2, 2)},
        "parameters do not fit lstm: extra weight_ho_l0; expected ",
    ),
    "shape": (lambda params: params | {"bias_hh_l0": zeros(4)}, "bias_hh_l0 has shape (4,); expected (8,)"),
    "dtype": (
        lambda params: params | {"bias_hh_l0": zeros(8, dtype="float32")},
        "bias_hh_l0 has dtype float32; expected float64",
    ),
    "type": (lambda params: params | {"bias_hh_l0": [0.0] * 8}, "bias_hh_l0 is a builtins.list; expected a numpy.ndarray"),
}


@each_backend
@pytest.mark.parametrize(("change", "message"), BAD_PARAMS.values(), ids=BAD_PARAMS)
def test_unfit_parameters_are_refused_by_load_and_by_update_which_keeps_the_old_ones(backend, change, message):
    if message.endswith("expected "):
        message += "weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0"
    net, params, given = loaded(backend), rnnbench.init_params(LSTM, 0), arguments(LSTM)
    before = step(net, given)
    unfit = change({name: value + 1 for name, value in params.items()})
    assert_refused(lambda: backend.load(LSTM, unfit), message)
    assert_refused(lambda: net.update(unfit), message)
    assert_equal(net.params(), params)
    assert_equal(step(net, given), before)


def test_an_unknown_cell_is_refused_before_any_backend_sees_it():
    assert_refused(
        lambda: Spec("rnn", I, H),
        "cell is 'rnn'; expected one of elman, jordan, lstm, gru, gru_reset_before",
        SpecError,
    )


@each_backend
@pytest.mark.parametrize("threads", [0, -1, True, "2", 1.0])
def test_unfit_threads_are_refused(backend, threads):
    assert_refused(
        lambda: backend.load(LSTM, rnnbench.init_params(LSTM, 0), threads=threads),
        f"threads is {threads!r}; expected an integer >= 1, or None for the process's setting",
    )


@each_backend
@pytest.mark.parametrize("steps", [T, 0])
def test_a_tape_serves_one_backward(backend, steps):
    net, given = loaded(backend), arguments(LSTM, steps)
    _, _, tape = net.record(given.x, given.state)
    net.backward(tape, given.dy)
    assert_refused(
        lambda: net.backward(tape, given.dy), "the tape was already used; expected an unused one: record again", TapeError
    )


@each_backend
def test_a_tape_of_another_network_is_refused_and_not_lost(backend):
    net, other, given = loaded(backend), loaded(backend), arguments(LSTM)
    expected = step(net, given)
    _, _, tape = net.record(given.x, given.state)
    assert_refused(
        lambda: other.backward(tape, given.dy),
        "the tape was recorded by another network; expected a tape of this network",
        TapeError,
    )
    found = gradients(net, tape, given)
    assert_equal(found, {name: expected[name] for name in found})


@each_backend
@pytest.mark.parametrize("tape", [None, (), "tape"])
def test_what_is_no_tape_is_refused(backend, tape):
    assert_refused(
        lambda: loaded(backend).backward(tape, zeros(T, B, H)),
        f"tape is a {type(tape).__name__}; expected the tape that this network's record returned",
        TapeError,
    )


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
