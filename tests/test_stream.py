"""Streams give what forward gives, step by step, keep their state, and refuse what is wrong.

On the NumPy reference, whose steps are calls of forward, and on numba_cpu, which has steps of its own.  Takes 6 s if Numba's
cache is empty.
"""

import copy
import pickle
from dataclasses import replace

import numpy as np
import pytest
from helpers.network_calls import JORDAN, LSTM, B, H, I, arguments, assert_refused, each_backend, loaded, zeros

import rnnbench
from rnnbench.check import Problem, expected
from rnnbench.check.streaming import streamed
from rnnbench.impls import numpy_ref
from rnnbench.impls.numba_cpu.stream import CompiledStream
from rnnbench.suite.case import Case

DEEP = replace(LSTM, num_layers=3)


def steps_of(stream, x) -> np.ndarray:
    return np.stack([stream.step(x_t) for x_t in x])


def assert_same(got, expected) -> None:
    for part, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(part, wanted, strict=True)


@each_backend
@pytest.mark.parametrize("spec", [DEEP, JORDAN], ids=["lstm", "jordan"])
def test_steps_give_what_forward_gives_bit_for_bit(backend, spec):
    net, given = backend.load(spec, rnnbench.init_params(spec, 0), threads=1), arguments(spec)
    y, final = net.forward(given.x, given.state)
    stream = net.stream(B, given.state)
    assert_same([steps_of(stream, given.x)], [y])
    assert_same(stream.state, final)


@each_backend
def test_a_stream_has_one_sequence_and_begins_with_zeros(backend):
    net, given = loaded(backend), arguments(LSTM, batch=1)
    stream = net.stream()
    assert stream.batch_size == 1
    assert_same(stream.state, [zeros(1, 1, H)] * 2)
    assert_same([steps_of(stream, given.x)], [net.forward(given.x)[0]])


@each_backend
def test_the_state_can_be_read_and_set_at_any_step(backend):
    net, given = loaded(backend, DEEP), arguments(DEEP)
    stream = net.stream(B, given.state)
    for _ in range(2):  # the rows in which a state may stand
        before = stream.state
        first = stream.step(given.x[0])
        after = stream.state
        stream.state = before
        assert_same(stream.state, before)
        assert_same([stream.step(given.x[0]), *stream.state], [first, *after])
    stream.reset()
    assert_same([stream.step(given.x[0])], [net.stream(B).step(given.x[0])])


@each_backend
def test_the_state_and_y_are_copies(backend):
    net, given = loaded(backend, DEEP), arguments(DEEP)
    y, final = net.forward(given.x, given.state)
    stream = net.stream(B, given.state)
    for part in given.state:
        part[...] = 7
    got = []
    for x_t in given.x:
        got.append(stream.step(x_t))
        kept = got[-1].copy()
        for part in stream.state:
            part[...] = 7
        got[-1][...] = 7
        got[-1] = kept
    assert_same([np.stack(got)], [y])
    held = stream.state
    stream.step(given.x[0])
    assert_same(held, final)


@each_backend
def test_an_update_takes_effect_at_the_next_step_and_keeps_the_state(backend):
    net, given = loaded(backend), arguments(LSTM)
    other = loaded(backend, seed=5)
    stream = net.stream(B, given.state)
    stream.step(given.x[0])
    state = stream.state
    net.update(other.params())
    assert_same(stream.state, state)
    assert_same([stream.step(given.x[1])[None]], [other.forward(given.x[1:2], state)[0]])


@each_backend
def test_streams_of_one_network_do_not_disturb_each_other_or_its_calls(backend):
    net, mine, other = loaded(backend), arguments(LSTM), arguments(LSTM, seed=2)
    first, second = net.stream(B, mine.state), net.stream(B, other.state)
    got = []
    for x_t, other_x in zip(mine.x, other.x, strict=True):
        got.append((first.step(x_t), second.step(other_x)))
        net.forward(other.x, mine.state)
    for ys, given in zip(zip(*got, strict=True), (mine, other), strict=True):
        assert_same([np.stack(ys)], [net.forward(given.x, given.state)[0]])


@each_backend
def test_arrays_of_any_layout_are_accepted(backend):
    net, given = loaded(backend), arguments(LSTM)
    expected = net.stream(B).step(given.x[0])
    read_only = given.x[0].copy()
    read_only.flags.writeable = False
    for x_t in (np.asfortranarray(given.x[0]), np.repeat(given.x[0], 2, 1)[:, ::2], given.x[0, ::-1].copy()[::-1], read_only):
        assert_same([net.stream(B).step(x_t)], [expected])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_dtypes_have_streams_too(dtype):
    spec = replace(LSTM, dtype=dtype)
    y = loaded(numpy_ref, spec).stream().step(np.zeros((1, I), spec.numpy_dtype))
    assert (y.dtype, y.shape) == (spec.numpy_dtype, (1, H))


def test_auto_has_the_stream_of_the_backend_that_it_picks(monkeypatch, tmp_path):
    monkeypatch.delenv("RNNBENCH_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path)
    assert type(loaded(rnnbench.load_backend("auto")).stream()) is CompiledStream


BAD_STEPS = {
    "x_t of a sequence": (zeros(1, B, I), f"x_t has shape (1, 3, 4); expected (B, I) = (3, {I})"),
    "x_t of another batch": (zeros(2, I), f"x_t has shape (2, 4); expected (B, I) = (3, {I})"),
    "x_t of another size": (zeros(B, 9), f"x_t has shape (3, 9); expected (B, I) = (3, {I})"),
    "x_t of another dtype": (zeros(B, I, dtype="float32"), "x_t has dtype float32; expected float64"),
    "x_t a list": (
        zeros(B, I).tolist(),
        "x_t is a builtins.list; expected a numpy.ndarray (convert with the backend's asarray)",
    ),
    "x_t masked": (
        np.ma.masked_array(zeros(B, I)),
        "x_t is a numpy.ma.MaskedArray; expected a plain numpy.ndarray: the information that the subclass adds would be lost",
    ),
}


@each_backend
@pytest.mark.parametrize("name", BAD_STEPS)
def test_a_wrong_step_is_refused_and_leaves_the_state(backend, name):
    x_t, message = BAD_STEPS[name]
    stream = loaded(backend).stream(B, arguments(LSTM).state)
    assert_refused(lambda: stream.step(x_t), message)
    assert_same(stream.state, arguments(LSTM).state)


@each_backend
def test_wrong_streams_and_states_are_refused(backend):
    net = loaded(backend)
    for wrong in (0, -1, True, 1.0, "2"):
        assert_refused(lambda wrong=wrong: net.stream(wrong), f"batch_size is {wrong!r}; expected an integer >= 1")
    message = "state h has shape (1, 3, 2); expected (L*D, B, H) = (1, 2, 2)"
    assert_refused(lambda: net.stream(2, arguments(LSTM).state), message)
    stream = net.stream(2)
    with pytest.raises(rnnbench.ArgumentError, match="state h has shape"):
        stream.state = arguments(LSTM).state
    assert_refused(
        lambda: loaded(backend, replace(LSTM, bidirectional=True)).stream(),
        "a bidirectional network has no stream: its backward direction begins at the last step of a sequence; "
        "expected a network with bidirectional=False",
    )


@each_backend
def test_a_stream_is_not_copied(backend):
    stream = loaded(backend).stream()
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a stream cannot be copied or pickled"):
            copied(stream)


@pytest.mark.parametrize("name", ["torch_nn", "onnxruntime", "jax_scan"])
def test_streams_of_other_backends_keep_the_promise(name):
    """Those with steps of their own, on a problem that all of them support."""
    try:
        backend = rnnbench.load_backend(name)
    except rnnbench.BackendUnavailable as error:
        pytest.skip(str(error))
    for cell in ("lstm", "gru"):
        problem = Problem(Case(cell, "step", T=5, B=3, I=4, H=5, layers=2), seed=1)
        findings = streamed(backend, problem, expected(problem))
        assert len(findings) > 4
        assert all(finding.passed for finding in findings), findings
