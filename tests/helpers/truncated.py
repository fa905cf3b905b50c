"""Truncated and full BPTT of small problems, and every tensor that they give, by name."""

from typing import NamedTuple

import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
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


def of_torch(name: str):
    pytest.importorskip("torch", reason="truncation of torch tensors needs torch")
    return rnnbench.load_backend(name)
