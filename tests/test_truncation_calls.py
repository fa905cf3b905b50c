"""What a call of truncated BPTT promises: full BPTT where one window covers all, its arguments, and its memory.

Takes 2 s once Numba's cache holds the kernels.
"""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest
from helpers.truncated import (
    CPU,
    SPECS,
    TORCH,
    B,
    H,
    I,
    T,
    each_cell,
    each_cut,
    full,
    given,
    named,
    of_torch,
    run,
)

import rnnbench
from rnnbench import ArgumentError, Spec
from rnnbench.impls import numpy_ref


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda y, _: y[:1], "dy(y, 0) gave a result of shape (1, 2, 2); expected a ndarray of the shape of y, (3, 2, 2)"),
        (lambda *_: None, "dy(y, 0) gave a result of class NoneType; expected a ndarray of the shape of y, (3, 2, 2)"),
        (lambda y, _: y.astype("f4"), "dy has dtype float32; expected float64"),
    ],
    ids=["too few steps", "nothing", "another dtype"],
)
def test_what_is_no_cotangent_of_a_window_is_refused(function, message):
    p = given(SPECS["elman"])
    with pytest.raises(ArgumentError) as caught:
        rnnbench.tbptt(numpy_ref.load(SPECS["elman"], p.params), p.x, function, 3)
    assert str(caught.value) == message


def test_numpy_integers_are_windows_and_strides():
    p = given(SPECS["elman"])
    net = numpy_ref.load(SPECS["elman"], p.params)
    got = named(numpy_ref, *rnnbench.tbptt(net, p.x, p.dy, np.int64(4), np.int32(2)))
    for name, value in named(numpy_ref, *rnnbench.tbptt(net, p.x, p.dy, 4, 2)).items():
        np.testing.assert_array_equal(got[name], value, err_msg=name)


@each_cell
@each_cut
def test_y_and_the_final_state_are_those_of_the_whole_forward_bit_for_bit(cell, window, stride):
    p = given(SPECS[cell])
    got, expected = run(numpy_ref, SPECS[cell], p, window, stride), full(numpy_ref, SPECS[cell], p)
    for name in ("y", *(f"final {k}" for k in range(len(p.state)))):
        np.testing.assert_array_equal(got[name], expected[name], strict=True, err_msg=name)


DEEP = Spec("lstm", I, H, num_layers=2, bidirectional=True, dtype="float64")


@pytest.mark.parametrize("spec", [*SPECS.values(), DEEP], ids=[*SPECS, "deep bidirectional lstm"])
@pytest.mark.parametrize(("window", "stride"), [(T, None), (T, T), (T + 1, None), (50, T), (50, 9)])
@pytest.mark.parametrize("backend", CPU, ids=["numpy_ref", "numba_cpu"])
def test_one_window_over_the_sequence_is_full_bptt_bit_for_bit(backend, spec, window, stride):
    p = given(spec)
    got, expected = run(backend, spec, p, window, stride), full(backend, spec, p)
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True, err_msg=name)


@pytest.mark.parametrize("name", TORCH)
def test_one_window_over_the_sequence_is_full_bptt_bit_for_bit_in_torch(name):
    test_one_window_over_the_sequence_is_full_bptt_bit_for_bit(of_torch(name), SPECS["lstm"], T, None)


@pytest.mark.parametrize("name", TORCH)
def test_torch_tensors_go_in_and_come_out(name):
    torch = pytest.importorskip("torch", reason="truncation of torch tensors needs torch")
    backend, spec, p = of_torch(name), SPECS["lstm"], given(SPECS["lstm"])
    net = backend.load(spec, p.params)
    y, final, grads = rnnbench.tbptt(net, torch.tensor(p.x), torch.tensor(p.dy), 4, 2)
    for tensor in (y, *final, grads.x, *grads.state, *grads.params.values()):
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype is torch.float64
        assert not tensor.requires_grad


@pytest.mark.parametrize("backend", CPU, ids=["numpy_ref", "numba_cpu"])
def test_without_a_state_it_starts_from_zeros(backend):
    spec = SPECS["lstm"]
    p = given(spec)
    zeros = p._replace(state=tuple(np.zeros_like(part) for part in p.state))
    got = named(backend, *rnnbench.tbptt(backend.load(spec, p.params), p.x, p.dy, 4, 2))
    for name, value in run(backend, spec, zeros, 4, 2).items():
        np.testing.assert_array_equal(got[name], value, strict=True, err_msg=name)


@pytest.mark.parametrize("backend", CPU, ids=["numpy_ref", "numba_cpu"])
def test_an_empty_sequence_gives_zero_gradients_and_the_state(backend):
    spec = SPECS["lstm"]
    p = given(spec, steps=0)
    got = run(backend, spec, p, 3, 2)
    assert got["y"].shape == (0, B, H)
    assert got["dx"].shape == (0, B, I)
    for k, part in enumerate(p.state):
        np.testing.assert_array_equal(got[f"final {k}"], part)
        np.testing.assert_array_equal(got[f"dstate {k}"], np.zeros_like(part))
    for name, value in p.params.items():
        np.testing.assert_array_equal(got[name], np.zeros_like(value))


@pytest.mark.parametrize("stride", [1, 3, 4])
def test_arguments_are_not_changed(stride):
    spec = SPECS["lstm"]
    p, kept = given(spec), given(spec)
    run(numpy_ref, spec, p, 4, stride)
    for array, before in zip([p.x, p.dy, *p.state], [kept.x, kept.dy, *kept.state], strict=True):
        np.testing.assert_array_equal(array, before)


REFUSED = {
    "window 0": ({"window": 0}, "window is 0; expected an integer >= 1"),
    "window True": ({"window": True}, "window is True; expected an integer >= 1"),
    "window 2.0": ({"window": 2.0}, "window is 2.0; expected an integer >= 1"),
    "window None": ({"window": None}, "window is None; expected an integer >= 1"),
    "stride 0": ({"window": 3, "stride": 0}, "stride is 0; expected an integer from 1 to window = 3"),
    "stride > window": ({"window": 3, "stride": 4}, "stride is 4; expected an integer from 1 to window = 3"),
    "stride True": ({"window": 3, "stride": True}, "stride is True; expected an integer from 1 to window = 3"),
    "stride '1'": ({"window": 3, "stride": "1"}, "stride is '1'; expected an integer from 1 to window = 3"),
    "dy short": (
        {"window": 3, "dy": np.zeros((T - 1, B, H))},
        f"dy has shape (6, 2, 2); expected (T, B, D*H) with the T and B of x (7, 2, {I})",
    ),
    "dy of another batch": (
        {"window": 3, "dy": np.zeros((T, 1, H))},
        f"dy has shape (7, 1, 2); expected (T, B, D*H) with the T and B of x (7, 2, {I})",
    ),
    "dy of wrong rank": (
        {"window": 3, "dy": np.zeros((T, B))},
        f"dy has shape (7, 2); expected (T, B, D*H) with the T and B of x (7, 2, {I})",
    ),
    "dy of wrong size": (
        {"window": 3, "dy": np.zeros((T, B, 9))},
        "dy has shape (3, 2, 9); expected (T, B, D*H) = (3, 2, 2)",
    ),
    "dy a list": (
        {"window": 3, "dy": [1.0]},
        "dy is a list; expected an array of the network's backend, or a function of y and a step",
    ),
    "x of wrong rank": ({"window": 3, "x": np.zeros((T, B))}, "x has shape (7, 2); expected (T, B, I)"),
    "x of wrong size": ({"window": 3, "x": np.zeros((T, B, 9))}, f"x has shape (3, 2, 9); expected (T, B, I) = (_, _, {I})"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_unfit_arguments_are_refused(options, message):
    spec = SPECS["elman"]
    p = given(spec)
    with pytest.raises(ArgumentError) as caught:
        rnnbench.tbptt(**{"net": numpy_ref.load(spec, p.params), "x": p.x, "dy": p.dy} | options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("window", "stride"), [(T - 1, None), (T, T - 1), (50, 1), (1, 1)])
def test_a_bidirectional_network_is_refused_unless_one_pass_covers_the_sequence(window, stride):
    p = given(DEEP)
    with pytest.raises(ArgumentError) as caught:
        rnnbench.tbptt(numpy_ref.load(DEEP, p.params), p.x, p.dy, window, stride)
    assert str(caught.value) == (
        f"window is {window} and stride {stride or window} for T = {T}; expected both >= T: "
        "a bidirectional network cannot be cut in time"
    )


class Counting:
    """A network that knows, at every call, how many steps its living tapes hold, and how many steps it was run over."""

    def __init__(self, net) -> None:
        self.spec, self._net = net.spec, net
        self._tapes: weakref.WeakSet = weakref.WeakSet()
        self.most_tapes = self.most_steps = self.forward_steps = self.recorded_steps = 0

    def forward(self, x, state=None):
        self.forward_steps += len(x)
        self._look()
        return self._net.forward(x, state)

    def record(self, x, state=None):
        self.recorded_steps += len(x)
        y, final, tape = self._net.record(x, state)
        self._tapes.add(tape)
        self._look()
        return y, final, tape

    def backward(self, tape, dy, dstate=None):
        return self._net.backward(tape, dy, dstate)

    def params(self):
        return self._net.params()

    def update(self, params):
        self._net.update(params)

    def _look(self) -> None:
        self.most_tapes = max(self.most_tapes, len(self._tapes))
        self.most_steps = max(self.most_steps, sum(tape.steps for tape in self._tapes))


@pytest.mark.parametrize(("window", "stride"), [(8, None), (8, 1), (8, 3), (8, 8), (1, 1)])
def test_one_tape_of_at_most_a_window_is_alive_and_no_step_runs_more_than_it_must(window, stride):
    spec, steps = SPECS["elman"], 200
    p = given(spec, steps)
    net = Counting(numpy_ref.load(spec, p.params))
    gc.disable()  # what a reference cycle keeps until a collection counts as alive
    try:
        rnnbench.tbptt(net, p.x, p.dy, window, stride)
    finally:
        gc.enable()
    assert net.most_tapes == 1
    assert net.most_steps == window
    stride = stride or window
    ends = [*range(stride, steps, stride), steps]
    starts = [max(0, end - window) for end in ends]
    assert net.recorded_steps == sum(end - start for start, end in zip(starts, ends, strict=True))
    # states are known at the starts and ends of earlier passes: each start is reached from the nearest of them
    nearest = [max(p for p in (0, *starts[:k], *ends[:k]) if p <= start) for k, start in enumerate(starts)]
    assert net.forward_steps == sum(start - p for start, p in zip(starts, nearest, strict=True))


@pytest.mark.parametrize(
    ("window", "stride"),
    [(8, None), (1, None), (8, 1)],
)
def test_memory_grows_with_the_sequence_by_its_own_results_only(window, stride):
    """Twice y and dx for each further step: the pieces and, at the end, the whole that they are joined to."""
    spec = Spec("lstm", 64, 64, dtype="float64")
    net = numpy_ref.load(spec, rnnbench.init_params(spec, 0))

    def peak(steps: int) -> int:
        p = given(spec, steps, batch=4)
        tracemalloc.start()
        rnnbench.tbptt(net, p.x, p.dy, window, stride)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    step_bytes = 4 * (64 + 64) * 8
    # a tenth more, 0.8 KB a step, for the headers of the pieces
    assert peak(120) - peak(40) < 1.1 * 2 * 80 * step_bytes
