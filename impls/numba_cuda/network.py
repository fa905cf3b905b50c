"""The stack of layers on device arrays."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.backend import Array, Gradients, State
from rnnbench.impls.numba_cuda.algebra import Algebra
from rnnbench.impls.numba_cuda.arrays import DeviceArrays, contiguous, converted
from rnnbench.impls.numba_cuda.device import device_limits
from rnnbench.impls.numba_cuda.layer import Layer
from rnnbench.impls.numba_cuda.per_step import PerStep
from rnnbench.impls.numba_cuda.persistent import Persistent
from rnnbench.impls.numba_cuda.products import fastest
from rnnbench.impls.numba_cuda.regimes import PER_STEP, choose, computed_spec
from rnnbench.params import Params
from rnnbench.spec import Spec
from rnnbench.stack import StackedNetwork


class CudaNetwork(StackedNetwork):
    """A network whose arguments may lie in any memory order; what is not in C order is copied first.

    A network of bfloat16 or float16 computes in float32: arguments and weights are widened, results rounded once, at the
    end.  On tensor cores what blocks send each other in a step is rounded too, as it is sent.
    ``regime`` names the kernels that run it (``regimes``).
    """

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        self._computed = computed_spec(spec)
        computing = DeviceArrays(self._computed.numpy_dtype)
        algebra, limits = Algebra(computing, fastest()), device_limits()
        regime = choose(spec, limits)
        recurrence = (
            PerStep(self._computed, algebra) if regime.name == PER_STEP else Persistent(self._computed, algebra, regime, limits)
        )
        arrays = DeviceArrays(spec.numpy_dtype)
        device_array = type(arrays.empty((1,)))  # the simulator has a class of its own
        self.regime = regime.name
        super().__init__(spec, params, Layer(self._computed, computing, algebra, recurrence), arrays, device_array)

    def _set_params(self, params: Params) -> None:
        super()._set_params({name: value.astype(self._computed.numpy_dtype) for name, value in params.items()})

    def _forward(self, x: Array, state: State) -> tuple[Array, State]:
        y, final = super()._forward(self._wide(x), self._wide_parts(state))
        return self._result(y), self._results(final)

    def _record(self, x: Array, state: State) -> tuple[Array, State, Any]:
        y, final, tape = super()._record(self._wide(x), self._wide_parts(state))
        return self._result(y), self._results(final), tape

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        params, x, state = super()._backward(content, self._wide(dy), self._wide_parts(dstate))
        return Gradients({name: self._result(grad) for name, grad in params.items()}, self._result(x), self._results(state))

    def _wide(self, array: Array) -> Array:
        return converted(contiguous(array), self._computed.numpy_dtype)

    def _wide_parts(self, state: State) -> State:
        return tuple(self._wide(part) for part in state)

    def _result(self, array: Array) -> Array:
        return converted(array, self.spec.numpy_dtype)

    def _results(self, state: State) -> State:
        return tuple(self._result(part) for part in state)
