"""The regimes in which one launch runs all time steps, with the weights resident in a block, a cluster or the whole grid."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls.numba_cuda.algebra import Algebra, Weights
from rnnbench.impls.numba_cuda.arrays import on_device
from rnnbench.impls.numba_cuda.cell_kernels import activations
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.launching import TeamKernel
from rnnbench.impls.numba_cuda.layout import Shape, backward_products, forward_products, mail_size, pack, places
from rnnbench.impls.numba_cuda.persistent_backward import backward_kernel
from rnnbench.impls.numba_cuda.persistent_forward import forward_kernel
from rnnbench.impls.numba_cuda.recurrence import Flow, Kept
from rnnbench.impls.numba_cuda.regimes import Limits, Regime, with_rows
from rnnbench.impls.numba_cuda.slots import Sizes
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


class Resident(NamedTuple):
    """A layer's packed recurrent weights, one flat array per product, and the biases of the forward products."""

    forward: list[Any]
    biases: list[Any]
    backward: list[Any]


@lru_cache
def kernel(kind: str, spec: Spec, shape: Shape) -> TeamKernel:
    """The kernel "forward", "record" or "backward" of a spec for one shape of team, created once per process."""
    equations = spec.kind.equations(activations(spec.numpy_dtype), spec.nonlinearity)
    if kind == "backward":
        function, products = backward_kernel(spec, shape, equations), backward_products(spec)
    else:
        function, products = forward_kernel(spec, shape, equations, keeps=kind == "record"), forward_products(spec)
    return TeamKernel(function, shape, places(products, shape)[1], mail_size(products, shape))


def layer_spec(spec: Spec) -> Spec:
    """The part of a spec that the kernels depend on; networks that differ only elsewhere share kernels."""
    return Spec(spec.cell, 1, spec.hidden_size, nonlinearity=spec.nonlinearity, output_size=spec.output_size, dtype=spec.dtype)


class Persistent:
    """A recurrence (``recurrence.Recurrence``) with one launch per pass."""

    def __init__(self, spec: Spec, algebra: Algebra, regime: Regime, limits: Limits) -> None:
        assert regime.forward is not None
        assert regime.backward is not None
        self._spec, self._algebra, self._limits = layer_spec(spec), algebra, limits
        self._cell, self._units = spec.kind, spec.hidden_size
        self.name = regime.name
        self._shapes = (regime.forward, regime.backward)
        self._products = (forward_products(spec), backward_products(spec))
        self._two = len(self._products[0]) == 2
        self._kernels: dict[tuple[str, int], TeamKernel] = {}

    def pack(self, params: Params) -> Resident:
        gates, units, size = len(self._cell.gates), self._units, self._spec.state_size
        recurrent = params["weight_hh"].reshape(gates, units, size)
        bias = params.get("bias_hh", np.zeros(gates * units, self._spec.dtype))
        outer = self._cell.outer_gates
        if self._cell.feeds_back_output:
            second = params["weight_ho"]
            biases = [bias, params.get("bias_ho", np.zeros(size, self._spec.dtype))]
        else:
            second = recurrent[-1]
            biases = [bias[: outer * units], bias[outer * units :]]
        forward = [recurrent[:outer].transpose(1, 0, 2), second[:, None, :]]
        backward = [recurrent[:outer].reshape(outer * units, size).T[:, None, :], second.T[:, None, :]]
        count = 1 + self._two
        packed = [
            [
                on_device(pack(weights, place, shape))
                for weights, place in zip(matrices[:count], places(products, shape)[0], strict=True)
            ]
            for matrices, products, shape in zip((forward, backward), self._products, self._shapes, strict=True)
        ]
        return Resident(packed[0], [on_device(np.ascontiguousarray(part)) for part in biases[:count]], packed[1])

    def forward_work(self, sizes: Sizes, keeps: bool) -> tuple[int, ...]:
        """Size of the mail of a grid."""
        return (self._kernel("forward", 0, sizes.batch).mail_of(sizes.batch),)

    def forward(
        self, weights: Weights, packed: Resident, a: Matrix, flow: Flow, kept: Kept | None, work: Sequence[Any]
    ) -> None:
        run = self._kernel("record" if kept else "forward", 0, flow.sizes.batch)
        tape = (kept.states.array, kept.saved, kept.operand) if kept else (None, None, None)
        state = (*self._parts(flow.initial), flow.y, *self._parts(flow.final))
        arrays = (a, *state, *tape[: 2 + self._two], *packed.forward, *packed.biases)
        run(flow.sizes.batch, work[0], *arrays, *flow.sizes, flow.y.row_stride)

    def backward_work(self, sizes: Sizes) -> tuple[int, ...]:
        """Sizes of the mail of a grid and, for cells that feed back their output, of the output's cotangents."""
        outputs = sizes.rows * self._spec.state_size * self._cell.feeds_back_output
        return self._kernel("backward", 1, sizes.batch).mail_of(sizes.batch), outputs

    def backward(
        self, weights: Weights, packed: Resident, kept: Kept, flow: Flow, da: Matrix, db: Matrix, work: Sequence[Any]
    ) -> Matrix | None:
        run, (mail, outputs) = self._kernel("backward", 1, flow.sizes.batch), work
        state = (flow.y, *self._parts(flow.final), *self._parts(flow.initial))
        written = (outputs, da) if self._two else (da, db)
        run(
            flow.sizes.batch,
            mail,
            kept.saved,
            kept.states.array,
            *state,
            *written,
            *packed.backward,
            *flow.sizes,
            flow.y.row_stride,
        )
        return matrix(outputs, flow.sizes.rows, self._spec.state_size) if self._cell.feeds_back_output else None

    def _parts(self, state: tuple[Matrix, ...]) -> tuple[Matrix | None, ...]:
        """The parts of a state as kernel arguments: kernels with one product always take two."""
        return state if self._two or len(state) == 2 else (*state, None)

    def _kernel(self, kind: str, which: int, batch: int) -> TeamKernel:
        found = self._kernels.get((kind, batch))
        if found is None:
            shape = with_rows(self._shapes[which], self._products[which], batch, self._limits)
            found = self._kernels[kind, batch] = kernel(kind, self._spec, shape)
        return found
