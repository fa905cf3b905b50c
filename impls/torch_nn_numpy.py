"""torch_nn for callers with NumPy arrays: every call converts its arguments and results, and its time includes that.

Arrays are numpy.ndarray.  ``auto`` picks this backend rather than torch_nn, whose times leave out the conversion.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.impls import torch_nn
from rnnbench.impls._host import asarray, synchronize, to_numpy
from rnnbench.impls.torch_nn import info, supports, supports_lengths
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.checked import CheckedNetwork, checked_load
from rnnbench.networks.contract import Gradients, Network, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy"]


class ConvertingNetwork(CheckedNetwork):
    """A network of torch_nn behind NumPy arrays."""

    array_type = np.ndarray
    takes_lengths = True

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], threads: int | None) -> None:
        self.arrays = NumpyArrays(spec.numpy_dtype)
        self._network = torch_nn.load(spec, params, threads=threads)
        super().__init__(spec, params)

    def _set_params(self, params: Params) -> None:
        self._network.update(params)

    def _forward(self, x: np.ndarray, state: State, lengths: np.ndarray | None = None) -> tuple[np.ndarray, State]:
        y, final = self._network.forward(torch_nn.asarray(x), _tensors(state), lengths)
        return torch_nn.to_numpy(y), _converted(final)

    def _record(self, x: np.ndarray, state: State, lengths: np.ndarray | None = None) -> tuple[np.ndarray, State, Any]:
        y, final, tape = self._network.record(torch_nn.asarray(x), _tensors(state), lengths)
        return torch_nn.to_numpy(y), _converted(final), tape

    def _backward(self, content: Any, dy: np.ndarray, dstate: State) -> Gradients:
        grads = self._network.backward(content, torch_nn.asarray(dy), _tensors(dstate))
        params = {name: torch_nn.to_numpy(value) for name, value in grads.params.items()}
        return Gradients(params, torch_nn.to_numpy(grads.x), _converted(grads.state))


def _tensors(state: State) -> State:
    return tuple(map(torch_nn.asarray, state))


def _converted(state: State) -> State:
    return tuple(map(torch_nn.to_numpy, state))


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Build torch_nn's network; raises ArgumentError for networks that ``supports`` rejects."""
    return ConvertingNetwork(spec, params, threads)
