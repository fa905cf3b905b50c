"""One layer of a module: a network of numba_cpu whose weights follow the module's tensors."""

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rnnbench.networks.registry import load_backend
from rnnbench.networks.spec import Spec
from rnnbench.torch.arrays import array_of, tensor_of

State = Sequence[torch.Tensor] | None

_differ = ctypes.CDLL(None).memcmp
_differ.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Loaded:
    """A network, the addresses and sizes in bytes of its weights, and the number of calls that run on it."""

    def __init__(self, spec: Spec, params: dict[str, np.ndarray], threads: int) -> None:
        self.network: Any = load_backend("numba_cpu").load(spec, params, threads=threads)
        self.threads, self.running = threads, 0
        self.find()

    def find(self) -> None:
        self.weights = [(value.ctypes.data, value.nbytes) for value in self.network.held_params().values()]


class Layer:
    """A layer in one or both directions; calls may come from several threads, and with other weights each time.

    Each call compares the weights with those of the network, bit by bit, and packs them again only if they differ.  The version
    of a tensor would be cheaper to compare, but does not change with its ``data``, to which training loops write.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._names = list(spec.param_shapes())
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None

    def forward(
        self, weights: Sequence[torch.Tensor], x: torch.Tensor, state: State, lengths: np.ndarray | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return y and the parts of the final state."""
        loaded = self._take(weights)
        try:
            y, final = loaded.network.forward(array_of(x), _arrays(state), lengths)
        finally:
            self._give_back(loaded)
        return tuple(map(tensor_of, (y, *final)))

    def record(
        self, weights: Sequence[torch.Tensor], x: torch.Tensor, state: State, lengths: np.ndarray | None = None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[Any, Any]]:
        """Return y and the parts of the final state, and what ``backward`` takes."""
        loaded = self._take(weights)
        try:
            y, final, tape = loaded.network.record(array_of(x), _arrays(state), lengths)
        finally:
            self._give_back(loaded)
        return tuple(map(tensor_of, (y, *final))), (loaded.network, tape)

    def backward(self, recorded: tuple[Any, Any], dy: torch.Tensor, dfinal: State) -> tuple[torch.Tensor, ...]:
        """Return the gradients of x, of the parts of the state, and of the weights."""
        network, tape = recorded
        grads = network.backward(tape, array_of(dy), _arrays(dfinal))
        return tuple(map(tensor_of, (grads.x, *grads.state, *grads.params.values())))

    def _take(self, weights: Sequence[torch.Tensor]) -> _Loaded:
        """The network with these weights; another one if calls with other weights are running on it."""
        threads = torch.get_num_threads()
        with self._lock:
            loaded = self._loaded
            if loaded is None or loaded.threads != threads or self._changed(loaded, weights):
                params = dict(zip(self._names, map(array_of, weights), strict=True))
                if loaded is None or loaded.threads != threads or loaded.running:
                    loaded = self._loaded = _Loaded(self.spec, params, threads)
                else:
                    loaded.network.update(params)
                    loaded.find()
            loaded.running += 1
            return loaded

    def _changed(self, loaded: _Loaded, weights: Sequence[torch.Tensor]) -> bool:
        for tensor, (address, size) in zip(weights, loaded.weights, strict=True):
            tensor = tensor if tensor.is_contiguous() else tensor.contiguous()
            if _differ(tensor.data_ptr(), address, size):
                return True
        return False

    def _give_back(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.running -= 1


def _arrays(state: State) -> tuple[np.ndarray, ...] | None:
    return None if state is None else tuple(map(array_of, state))
