"""The LSTM of one unit that learns to count: every CPU backend, and Keras itself, have the same loss in every epoch.

Keras runs on the library that is installed for it, here PyTorch or JAX.
"""

import importlib.util
import os

import numpy as np
import pytest

import rnnbench
from rnnbench.models import Adam, ModelSpec, init_model_params, load_model
from rnnbench.networks.convert import to_keras

SEEN, BATCH, EPOCHS = 5, 19, 40
"""From 5 numbers to the next: 95 windows of the series 0 .. 99, five batches, in order."""

RATE, EPSILON = 0.05, 1e-12
"""Keras adds its epsilon before it corrects for bias, PyTorch after it; this one is too small for that to matter."""

BACKENDS = ("numpy_ref", "numba_cpu", "torch_nn", "torch_eager", "jax_scan")

FACTOR = 16
"""A loss in float32 may deviate from that in float64 so many times as far as the reference's in float32 does, which has other
roundings of the same size, so far or in a later epoch; and at least so many roundings of the loss itself."""

STEP_ERROR = 2**-24 / (1 - 0.999)
"""Keras takes 1 - beta2^t in float32 too, off by up to a rounding of 1, and the length of a step with it."""

SPEC = rnnbench.Spec("lstm", 1, 1)


def batches(dtype: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """Windows (5, 19, 1) and the number after each, (19, 1)."""
    series = (np.arange(100) / 100).astype(dtype)
    windows = np.lib.stride_tricks.sliding_window_view(series, SEEN + 1).T[..., None]
    return [(windows[:SEEN, k : k + BATCH].copy(), windows[SEEN, k : k + BATCH].copy()) for k in range(0, 95, BATCH)]


def initial(dtype: str) -> dict[str, np.ndarray]:
    """Drawn in float32; without the second bias, which Keras does not have."""
    params = init_model_params(ModelSpec(SPEC, 1, loss="mse"), 3)
    return {name: (np.zeros_like(value) if name == "rnn.bias_hh_l0" else value).astype(dtype) for name, value in params.items()}


def losses(backend: str, dtype: str = "float32", rate: float = RATE) -> np.ndarray:
    """The mean loss of each epoch."""
    spec = ModelSpec(rnnbench.Spec("lstm", 1, 1, dtype=dtype), 1, loss="mse")
    model = load_model(spec, initial(dtype), backend, threads=None if backend == "jax_scan" else 1)
    optimiser, found = Adam(model, rate, epsilon=EPSILON), []
    mask = np.zeros((SEEN, BATCH))
    mask[-1] = 1
    for _ in range(EPOCHS):
        epoch = []
        for x, after in batches(dtype):
            step = model.gradients(x, np.broadcast_to(after, x.shape).copy(), mask)
            optimiser.step(step.gradients)
            model.update(model.params() | {"rnn.bias_hh_l0": np.zeros(4, dtype)})
            epoch.append(step.loss)
        found.append(np.mean(epoch))
    return np.array(found)


@pytest.fixture(scope="module")
def expected() -> tuple[np.ndarray, np.ndarray]:
    """The losses in float64, and how far one in float32 may be from them."""
    exact = losses("numpy_ref", "float64")
    deviation = abs(losses("numpy_ref") - exact)
    return exact, FACTOR * np.maximum(deviation.max(), np.finfo("float32").eps / 2 * exact)


def test_it_learns_to_count(expected):
    exact, tolerance = expected
    assert exact[-1] < exact[0] / 100
    assert (tolerance < exact / 100).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_cpu_backend_has_the_losses_of_float64_within_float32(backend, expected):
    try:
        found = losses(backend)
    except rnnbench.BackendUnavailable as reason:
        pytest.skip(str(reason))
    exact, tolerance = expected
    assert (abs(found - exact) <= tolerance).all(), (found, exact)


def test_keras_has_the_same_losses_from_the_same_weights(expected, monkeypatch):
    if importlib.util.find_spec("keras") is None:
        pytest.skip("Keras is not installed: pip install keras, which runs on PyTorch, JAX or TensorFlow")
    installed = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]
    if not installed:
        pytest.skip("none of PyTorch, JAX and TensorFlow is installed, on one of which Keras runs")
    if "KERAS_BACKEND" not in os.environ:
        monkeypatch.setenv("KERAS_BACKEND", installed[0])
    import keras

    model = keras.Sequential([keras.Input((SEEN, 1)), keras.layers.LSTM(1), keras.layers.Dense(1)])
    params = initial("float32")
    network = {name.removeprefix("rnn."): value for name, value in params.items() if name.startswith("rnn.")}
    model.layers[0].set_weights(to_keras(SPEC, network))
    model.layers[1].set_weights([params["output.weight"].T, params["output.bias"]])
    model.compile(optimizer=keras.optimizers.Adam(RATE, epsilon=EPSILON), loss="mse")
    x, after = (np.concatenate(parts, axis=-2) for parts in zip(*batches("float32"), strict=True))
    history = model.fit(x.transpose(1, 0, 2), after, BATCH, EPOCHS, verbose=0, shuffle=False)
    exact, tolerance = expected
    longer = losses("numpy_ref", "float64", RATE * (1 + STEP_ERROR))
    found = np.array([float(loss) for loss in history.history["loss"]])
    assert (abs(found - exact) <= tolerance + abs(longer - exact).max()).all(), (found, exact)
