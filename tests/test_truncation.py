"""Truncated BPTT against its definition: every pass differentiated on its own, by complex step, with other equations.

The reference below shares no code with the package: its own elman and lstm, its own passes, no backward at all.
Takes 5 s once Numba's cache holds the kernels.
"""

import gc
import tracemalloc
import weakref
from typing import NamedTuple

import numpy as np
import pytest

import rnnbench
from rnnbench import ArgumentError, Spec
from rnnbench.impls import numba_cpu, numpy_ref

T, B, I, H = 7, 2, 3, 2  # noqa: E741  # the field's names
SPECS = {
    "elman": Spec("elman", I, H, dtype="float64"),
    "lstm": Spec("lstm", I, H, dtype="float64"),
}
CPU = [numpy_ref, numba_cpu]
TORCH = ["torch_nn", "torch_eager"]

# A number of the result passes at most 7 steps forward and 7 back, of at most 20 rounding operations each (dot products
# of I and H terms, biases, activations of 2 ulp, elementwise factors), and is the sum of at most 7 passes x 7 steps x 2
# rows: 300 + 100 roundings, relative to the largest value of its tensor as no step amplifies (|W_hh| sums to less than 2
# and a gate's slope is below 1/2, or |tanh'| < 1 damps it).  The complex step rounds as often.
TOLERANCE = 800 * np.finfo("float64").eps

CUTS = {
    "window 1": (1, None),
    "stride None, T a multiple": (7, None),
    "stride None, T no multiple": (3, None),
    "stride = window": (3, 3),
    "stride < window": (5, 2),
    "stride 1": (4, 1),
    "stride divides neither": (4, 3),
    "window = T, stride < T": (7, 3),
    "window > T, stride < T": (20, 5),
    "window and stride > T": (20, 9),
    "stride = T - 1": (6, 6),
}
each_cut = pytest.mark.parametrize(("window", "stride"), CUTS.values(), ids=CUTS)
each_cell = pytest.mark.parametrize("cell", SPECS)


class Given(NamedTuple):
    """A problem: parameters by name, x (T, B, I), dy (T, B, H) and the initial state."""

    params: dict[str, np.ndarray]
    x: np.ndarray
    dy: np.ndarray
    state: tuple[np.ndarray, ...]


def given(spec: Spec, steps: int = T, batch: int = B) -> Given:
    # orthogonal recurrent weights: with default ones a window one step off would change the gradients too little to see
    params = rnnbench.init_params(spec, 3, "orthogonal", 1.0 if spec.cell == "lstm" else 0.0)
    rng = np.random.default_rng(4)
    x, dy = (rng.standard_normal((steps, batch, size)) for size in (spec.input_size, spec.features))
    return Given(params, x, dy, tuple(rng.standard_normal(spec.state_shape(batch)) for _ in spec.kind.states))


def elman_step(w, x, state):
    """Batches of matrices: x (N, B, I), state (h,) of (N, B, H)."""
    return (np.tanh(gates(w, x, state[0])),)


def lstm_step(w, x, state):
    i, f, g, o = np.split(gates(w, x, state[0]), 4, axis=-1)
    c = state[1] / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
    return np.tanh(c) / (1 + np.exp(-o)), c


STEPS = {"elman": elman_step, "lstm": lstm_step}


def gates(w, x, h):
    biases = w["bias_ih_l0"] + w["bias_hh_l0"]
    return x @ w["weight_ih_l0"].swapaxes(1, 2) + h @ w["weight_hh_l0"].swapaxes(1, 2) + biases[:, None, :]


def whole_forward(cell: str, p: Given):
    """y (T, B, H) and the state before every step and after the last, each part (B, H)."""
    w = {name: value[None] for name, value in p.params.items()}
    states = [tuple(part[0][None] for part in p.state)]
    for x in p.x:
        states.append(STEPS[cell](w, x[None], states[-1]))
    return np.stack([state[0][0] for state in states[1:]]), states


def derivative(function, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The derivative of a real number with respect to every element of ``values``, by complex step.

    ``function`` takes the values with a leading axis of N perturbed copies and returns N numbers.
    """
    sizes = [value.size for value in values.values()]
    step = 1e-30
    directions = np.split(1j * step * np.eye(sum(sizes)), np.cumsum(sizes)[:-1], axis=1)
    perturbed = {
        name: value + direction.reshape(-1, *value.shape)
        for (name, value), direction in zip(values.items(), directions, strict=True)
    }
    flat = np.split(function(perturbed).imag / step, np.cumsum(sizes)[:-1])
    return {name: part.reshape(value.shape) for (name, value), part in zip(values.items(), flat, strict=True)}


def defined(cell: str, p: Given, window: int, stride: int | None, dstate=()) -> dict[str, np.ndarray]:
    """The sum over passes of the derivative of each pass's own loss, its start state held fixed.

    The loss of the last pass has the final state too, with the weights ``dstate``.
    """
    _, states = whole_forward(cell, p)
    stride = window if stride is None else stride
    steps = len(p.x)
    ends = [*range(stride, steps, stride), steps]
    total = {name: np.zeros_like(value) for name, value in p.params.items()}
    total |= {"dx": np.zeros_like(p.x)} | {f"dstate {k}": np.zeros_like(part) for k, part in enumerate(p.state)}
    for previous, end in zip([0, *ends], ends, strict=False):
        start = max(0, end - window)
        variables = p.params | {"dx": p.x[start:end]} | {f"dstate {k}": part[0] for k, part in enumerate(states[start])}

        def loss(v, start=start, previous=previous, end=end):
            state = tuple(v[f"dstate {k}"] for k in range(len(p.state)))
            value = np.zeros(len(v["dx"]), complex)
            for t in range(start, end):
                state = STEPS[cell](v, v["dx"][:, t - start], state)
                if t >= previous:
                    value += np.sum(p.dy[t] * state[0], axis=(1, 2))
            if end == steps:
                for weight, part in zip(dstate, state, strict=False):
                    value += np.sum(weight[0] * part, axis=(1, 2))
            return value

        found = derivative(loss, variables)
        for name in p.params:
            total[name] += found[name]
        total["dx"][start:end] += found["dx"]
        if start == 0:
            for k in range(len(p.state)):
                total[f"dstate {k}"][0] += found[f"dstate {k}"]
    return total


def run(backend, spec: Spec, p: Given, window: int, stride: int | None) -> dict[str, np.ndarray]:
    """Every tensor of truncated BPTT on a backend, by name, in NumPy."""
    net = backend.load(spec, p.params)
    x, dy = map(backend.asarray, (p.x, p.dy))
    y, final, grads = rnnbench.tbptt(net, x, dy, window, stride, tuple(map(backend.asarray, p.state)))
    return named(backend, y, final, grads)


def full(backend, spec: Spec, p: Given) -> dict[str, np.ndarray]:
    """The same tensors of full BPTT."""
    net = backend.load(spec, p.params)
    y, final, tape = net.record(backend.asarray(p.x), tuple(map(backend.asarray, p.state)))
    return named(backend, y, final, net.backward(tape, backend.asarray(p.dy)))


def named(backend, y, final, grads) -> dict[str, np.ndarray]:
    tensors = {"y": y} | {f"final {k}": part for k, part in enumerate(final)} | grads.params
    tensors |= {"dx": grads.x} | {f"dstate {k}": part for k, part in enumerate(grads.state)}
    return {name: backend.to_numpy(tensor) for name, tensor in tensors.items()}


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        bound = TOLERANCE * np.max(np.abs(value))
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, strict=True, err_msg=name)


def of_torch(name: str):
    pytest.importorskip("torch", reason="truncation of torch tensors needs torch")
    return rnnbench.load_backend(name)


@each_cell
@each_cut
@pytest.mark.parametrize("backend", [*CPU, *TORCH], ids=lambda b: str(getattr(b, "__name__", b)).rsplit(".", 1)[-1])
def test_gradients_are_those_of_the_definition_pass_by_pass(backend, cell, window, stride):
    backend = of_torch(backend) if isinstance(backend, str) else backend
    p = given(SPECS[cell])
    y, states = whole_forward(cell, p)
    expected = {"y": y} | {f"final {k}": part for k, part in enumerate(states[-1])} | defined(cell, p, window, stride)
    assert_close(run(backend, SPECS[cell], p, window, stride), expected)


@each_cell
@each_cut
@pytest.mark.parametrize("backend", CPU, ids=["numpy_ref", "numba_cpu"])
def test_the_last_pass_takes_the_cotangent_of_the_final_state(backend, cell, window, stride):
    spec, p = SPECS[cell], given(SPECS[cell])
    dstate = tuple(np.random.default_rng(9).standard_normal(part.shape) for part in p.state)
    net = backend.load(spec, p.params)
    got = named(backend, *rnnbench.tbptt(net, p.x, p.dy, window, stride, p.state, dstate))
    assert_close(got, defined(cell, p, window, stride, dstate))


@each_cell
@each_cut
@pytest.mark.parametrize("backend", [*CPU, *TORCH], ids=lambda b: str(getattr(b, "__name__", b)).rsplit(".", 1)[-1])
def test_cotangents_may_come_from_a_loss_of_each_window_as_in_training(backend, cell, window, stride):
    backend = of_torch(backend) if isinstance(backend, str) else backend
    spec, p = SPECS[cell], given(SPECS[cell])
    net, x, state = backend.load(spec, p.params), backend.asarray(p.x), tuple(map(backend.asarray, p.state))
    asked = []

    def squared_error(y, first):
        """The derivative of |y - target|^2 / 2, where the targets are p.dy."""
        asked.extend(range(first, first + len(y)))
        return y - backend.asarray(p.dy[first : first + len(y)])

    got = named(backend, *rnnbench.tbptt(net, x, squared_error, window, stride, state))
    y, _, _ = net.record(x, state)
    expected = named(backend, *rnnbench.tbptt(net, x, y - backend.asarray(p.dy), window, stride, state))
    assert asked == list(range(T))
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=TOLERANCE * np.max(np.abs(value)), err_msg=name)


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
def test_the_definition_sees_a_window_or_stride_that_is_one_step_off(cell):
    p = given(SPECS[cell])
    for one, other in (((4, 2), (5, 2)), ((4, 2), (4, 1)), ((4, 3), (4, 4)), ((6, 6), (7, 7))):
        a, b = defined(cell, p, *one), defined(cell, p, *other)
        for name in p.params:
            assert np.max(np.abs(a[name] - b[name])) > 1e6 * TOLERANCE * np.max(np.abs(a[name])), (one, other, name)


@each_cell
def test_the_initial_state_gets_the_gradient_of_passes_that_reach_it_and_no_other(cell):
    p = given(SPECS[cell])
    late = p._replace(dy=p.dy * (np.arange(T) >= 4)[:, None, None])
    # windows of 2 in steps of 2: no pass with a cotangent starts at step 0
    assert not np.any(run(numpy_ref, SPECS[cell], late, 2, None)["dstate 0"])
    # a window of 5 at step 5: it starts at 0 and takes the cotangent of step 4
    assert np.all(run(numpy_ref, SPECS[cell], late, 5, 1)["dstate 0"])


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
