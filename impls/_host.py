"""Shared by the CPU backends: the contract for NumPy arrays, and narrow dtypes around layers that compute in float32."""

from typing import Any

import numpy as np

from rnnbench.networks.arrays import check_plain
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import LayerFunctions


def asarray(array: np.ndarray) -> np.ndarray:
    check_plain("the array", array)
    return np.asarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Does nothing: calls return when they are done."""


def supports(spec: Spec) -> str | None:
    return None


def supports_lengths(spec: Spec) -> str | None:
    return None


class InFloat32:
    """A layer with arrays of a narrow dtype around one that computes in float32; results are rounded once.

    Implements ``rnnbench.networks.stacked.LayerFunctions``.  NumPy warns where a result overflows float16 to infinity.
    """

    def __init__(self, layer: LayerFunctions, dtype: np.dtype) -> None:
        self._layer, self._dtype = layer, dtype
        self.takes_lengths = getattr(layer, "takes_lengths", False)
        if hasattr(layer, "states"):
            self.states = self._states

    def pack(self, params: Params) -> Any:
        return self._layer.pack({name: _wide(value) for name, value in params.items()})

    def forward(
        self, weights: Any, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State]:
        y, final = self._layer.forward(weights, _wide(x), _wide_all(state), reverse, lengths)
        return self._narrow(y), self._narrow_all(final)

    def record(
        self, weights: Any, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State, Any]:
        y, final, tape = self._layer.record(weights, _wide(x), _wide_all(state), reverse, lengths)
        return self._narrow(y), self._narrow_all(final), tape

    def backward(
        self, weights: Any, tape: Any, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        grads, dx, initial = self._layer.backward(weights, tape, _wide(dy), _wide_all(dstate), reverse)
        return {name: self._narrow(value) for name, value in grads.items()}, self._narrow(dx), self._narrow_all(initial)

    def _states(self, tape: Any, steps: int, reverse: bool) -> State:
        layer: Any = self._layer
        return self._narrow_all(layer.states(tape, steps, reverse))

    def _narrow(self, array: np.ndarray) -> np.ndarray:
        return array.astype(self._dtype)

    def _narrow_all(self, state: State) -> State:
        return tuple(map(self._narrow, state))


def _wide(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32)


def _wide_all(state: State) -> State:
    return tuple(map(_wide, state))
