"""The stack of layers on device arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.backend import Array, Gradients, State
from rnnbench.impls.numba_cuda.arrays import DeviceArrays, contiguous
from rnnbench.impls.numba_cuda.layer import Layer
from rnnbench.spec import Spec
from rnnbench.stack import StackedNetwork


class CudaNetwork(StackedNetwork):
    """A network whose arguments may lie in any memory order; what is not in C order is copied first."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        arrays = DeviceArrays(spec.numpy_dtype)
        device_array = type(arrays.empty((1,)))  # the simulator has a class of its own
        super().__init__(spec, params, Layer(spec, arrays), arrays, device_array)

    def _forward(self, x: Array, state: State) -> tuple[Array, State]:
        return super()._forward(contiguous(x), _contiguous_parts(state))

    def _record(self, x: Array, state: State) -> tuple[Array, State, Any]:
        return super()._record(contiguous(x), _contiguous_parts(state))

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        return super()._backward(content, contiguous(dy), _contiguous_parts(dstate))


def _contiguous_parts(state: State) -> State:
    return tuple(contiguous(part) for part in state)
