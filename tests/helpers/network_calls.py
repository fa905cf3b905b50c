"""Small networks of the backends on the CPU, and every tensor that their calls give, by name."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest

import rnnbench
from rnnbench import ArgumentError, Spec
from rnnbench.impls import numba_cpu, numpy_ref

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
