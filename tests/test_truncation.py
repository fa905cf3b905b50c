"""Truncated BPTT against its definition: every pass differentiated on its own, by complex step, with other equations.

The reference below shares no code with the package: its own elman and lstm, its own passes, no backward at all.
Takes 3 s once Numba's cache holds the kernels.
"""

import numpy as np
import pytest
from helpers.truncated import CPU, SPECS, TOLERANCE, TORCH, Given, T, each_cell, each_cut, given, named, of_torch, run

import rnnbench
from rnnbench.impls import numpy_ref


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


def assert_close(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        bound = TOLERANCE * np.max(np.abs(value))
        np.testing.assert_allclose(got[name], value, rtol=0, atol=bound, strict=True, err_msg=name)


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
