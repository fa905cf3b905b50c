"""The stack of layers on device arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.backend import Array, Gradients, State
from rnnbench.impls.numba_cuda.algebra import Algebra
from rnnbench.impls.numba_cuda.arrays import DeviceArrays, contiguous
from rnnbench.impls.numba_cuda.device import device_limits
from rnnbench.impls.numba_cuda.layer import Layer
from rnnbench.impls.numba_cuda.per_step import PerStep
from rnnbench.impls.numba_cuda.persistent import Persistent
from rnnbench.impls.numba_cuda.regimes import PER_STEP, choose
from rnnbench.spec import Spec
from rnnbench.stack import StackedNetwork


class CudaNetwork(StackedNetwork):
    """A network whose arguments may lie in any memory order; what is not in C order is copied first.

    ``regime`` names the kernels that run it (``regimes``).
    """

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        arrays = DeviceArrays(spec.numpy_dtype)
        algebra = Algebra(arrays)
        limits = device_limits()
        regime = choose(spec, limits)
        recurrence = PerStep(spec, algebra) if regime.name == PER_STEP else Persistent(spec, algebra, regime, limits)
        device_array = type(arrays.empty((1,)))  # the simulator has a class of its own
        self.regime = regime.name
        super().__init__(spec, params, Layer(spec, arrays, algebra, recurrence), arrays, device_array)

    def _forward(self, x: Array, state: State) -> tuple[Array, State]:
        return super()._forward(contiguous(x), _contiguous_parts(state))

    def _record(self, x: Array, state: State) -> tuple[Array, State, Any]:
        return super()._record(contiguous(x), _contiguous_parts(state))

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        return super()._backward(content, contiguous(dy), _contiguous_parts(dstate))


def _contiguous_parts(state: State) -> State:
    return tuple(contiguous(part) for part in state)
