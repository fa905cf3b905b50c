"""Problems of every cell for the PyTorch backends, and what it means that two backends give the same.  Needs PyTorch."""

from dataclasses import replace

import numpy as np
import pytest

import rnnbench
from rnnbench import Spec
from rnnbench.impls import numpy_ref, torch_eager, torch_nn

BACKENDS = [torch_nn, torch_eager]
T, B, I, H, O = 6, 3, 5, 4, 2  # noqa: E741  # the field's names

# A value depends on at most 2 layers x 6 steps forward and as many back.  A step of two directions rounds fewer than 50
# times on its way (dot products of 8 and 4 terms, elementwise functions of a few ulp each): 1200 roundings.  Weights lie
# within +-1/sqrt(H) = +-1/2, so a step amplifies errors little; a factor of 8 is left for that and for cancellation.
ROUNDINGS = 1e4  # 1.1e-12 in float64, 6e-4 in float32, relative to the largest value of the tensor

CELLS = {
    "elman-tanh": {"cell": "elman"},
    "elman-relu": {"cell": "elman", "nonlinearity": "relu"},
    "elman-sigmoid": {"cell": "elman", "nonlinearity": "sigmoid"},
    "jordan-tanh": {"cell": "jordan", "output_size": O},
    "jordan-relu": {"cell": "jordan", "output_size": O, "nonlinearity": "relu"},
    "jordan-sigmoid": {"cell": "jordan", "output_size": O, "nonlinearity": "sigmoid"},
    "lstm": {"cell": "lstm"},
    "lstm_peephole": {"cell": "lstm_peephole"},
    "gru": {"cell": "gru"},
    "gru_reset_before": {"cell": "gru_reset_before"},
}
UNSUPPORTED_BY_NN = {
    "elman-sigmoid": "not sigmoid",
    "jordan-tanh": "feeds back its output",
    "jordan-relu": "feeds back its output",
    "jordan-sigmoid": "feeds back its output",
    "lstm_peephole": "has no peepholes",
    "gru_reset_before": "after the recurrent product",
}
PAIRS = [(b, cell) for b in BACKENDS for cell in CELLS if b is torch_eager or cell not in UNSUPPORTED_BY_NN]


def name_of(value: object) -> str:
    return getattr(value, "__name__", str(value)).rsplit(".", 1)[-1]


each_backend = pytest.mark.parametrize("backend", BACKENDS, ids=name_of)
each_pair = pytest.mark.parametrize(("backend", "cell"), PAIRS, ids=name_of)


def spec_of(cell: str, **options) -> Spec:
    return Spec(**{"input_size": I, "hidden_size": H, "dtype": "float64"} | CELLS[cell] | options)


class Problem:
    """Random weights, inputs and cotangents of a spec, in its dtype."""

    def __init__(self, spec: Spec, seed: int = 0, steps: int = T) -> None:
        self.spec, self.params = spec, rnnbench.init_params(spec, seed)
        rng = np.random.default_rng(seed + 1)
        self.x, self.dy = (rng.standard_normal((steps, B, n)).astype(spec.dtype) for n in (I, spec.features))
        self.state, self.dstate = (
            tuple(rng.standard_normal(spec.state_shape(B)).astype(spec.dtype) for _ in spec.kind.states) for _ in range(2)
        )

    def run(self, backend) -> dict[str, np.ndarray]:
        """Every tensor of inference, training forward and BPTT, by name."""
        net = backend.load(self.spec, self.params)
        return self.forward(backend, net) | self.bptt(backend, net)

    def forward(self, backend, net) -> dict[str, np.ndarray]:
        y, final = net.forward(*self.inputs(backend))
        return numpy_tensors(backend, {"inference y": y} | numbered("inference state", final))

    def bptt(self, backend, net) -> dict[str, np.ndarray]:
        y, final, tape = net.record(*self.inputs(backend))
        return numpy_tensors(backend, {"y": y} | numbered("state", final)) | self.gradients(backend, net, tape)

    def gradients(self, backend, net, tape) -> dict[str, np.ndarray]:
        grads = net.backward(tape, backend.asarray(self.dy), tuple(map(backend.asarray, self.dstate)))
        named = {f"d{name}": g for name, g in grads.params.items()}
        return numpy_tensors(backend, named | {"dx": grads.x} | numbered("dstate", grads.state))

    def inputs(self, backend):
        return backend.asarray(self.x), tuple(map(backend.asarray, self.state))

    def in_float64(self) -> "Problem":
        """The same values, exactly."""
        wide = Problem(replace(self.spec, dtype="float64"))
        wide.params = {name: value.astype("float64") for name, value in self.params.items()}
        wide.x, wide.dy = self.x.astype("float64"), self.dy.astype("float64")
        wide.state, wide.dstate = (tuple(p.astype("float64") for p in s) for s in (self.state, self.dstate))
        return wide


def numbered(name: str, parts) -> dict:
    return {f"{name}[{i}]": part for i, part in enumerate(parts)}


def numpy_tensors(backend, tensors) -> dict[str, np.ndarray]:
    return {name: backend.to_numpy(tensor) for name, tensor in tensors.items()}


def assert_same(got: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str) -> None:
    assert list(got) == list(expected)
    for name, reference in expected.items():
        assert (got[name].shape, got[name].dtype) == (reference.shape, np.dtype(dtype)), name
        error = np.abs(got[name] - reference).max() / np.abs(reference).max()
        assert error <= ROUNDINGS * np.finfo(dtype).eps / 2, f"{name} differs by {error:.1e} of its largest value"


def reference_tape(problem: Problem):
    net = numpy_ref.load(problem.spec, problem.params)
    return net, net.record(*problem.inputs(numpy_ref))[2]
