"""Wrong arguments of a network are refused in one sentence with what was given and what is allowed.

On the NumPy reference and on numba_cpu.  Takes 1 s once Numba's cache holds the kernels.
"""

import pytest
from helpers.network_calls import (
    GOOD_PART,
    GOOD_X,
    JORDAN,
    LSTM,
    B,
    H,
    I,
    T,
    arguments,
    assert_equal,
    assert_refused,
    each_backend,
    gradients,
    loaded,
    step,
    zeros,
)

import rnnbench
from rnnbench import Spec, SpecError, TapeError
from rnnbench.networks.cells import CELLS

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
        f"cell is 'rnn'; expected one of {', '.join(CELLS)}",
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
