"""One layer of a module: a network of numba_cpu whose weights follow the module's tensors."""

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from rnnbench.networks.checked import Unchecked
from rnnbench.networks.registry import load_backend
from rnnbench.networks.spec import Spec
from rnnbench.torch.arrays import conversions
from rnnbench.torch.changes import Copies

Tensors = Sequence[torch.Tensor]


class _Loaded:
    """A network, its copies of the weights, and the number of calls that run on it."""

    def __init__(self, spec: Spec, params: dict[str, np.ndarray], weights: Tensors, threads: int) -> None:
        self.network: Any = load_backend("numba_cpu").load(spec, params, threads=threads)
        self.calls: Unchecked = self.network.unchecked()
        self.threads, self.running = threads, 0
        self.copies = Copies(weights, self.network.held_params().values())

    def update(self, params: dict[str, np.ndarray], weights: Tensors) -> None:
        self.network.update(params)
        self.copies = Copies(weights, self.network.held_params().values())


class Layer:
    """A layer in one or both directions; calls may come from several threads, and with other weights each time.

    Each call compares the weights with the network's copies (``Copies``), and packs them again only if they differ.

    Tensors are dense, on the CPU and of the dtype of the spec; x is (T, B, I) with T, B >= 1, and its lengths, if it has any,
    are sorted, the longest first and T.  ``state=None`` means zeros.
    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self._names = list(spec.param_shapes())
        self._array_of, self._tensor_of = conversions(spec.dtype)
        self._lock = threading.Lock()
        self._loaded: _Loaded | None = None
        self._zeros: dict[int, tuple[np.ndarray, ...]] = {}

    def forward(
        self, weights: Tensors, x: torch.Tensor, state: Tensors | None, lengths: np.ndarray | None = None
    ) -> tuple[torch.Tensor, ...]:
        """Return y and the parts of the final state."""
        loaded = self._take(weights, x.shape[0] * x.shape[1])
        try:
            with loaded.calls.limits():
                y, final = loaded.calls.forward(self._array_of(x), self._arrays(state, x.shape[1]), *_shorter(lengths))
        finally:
            self._give_back(loaded)
        return self._tensor_of(y), *map(self._tensor_of, final)

    def record(
        self, weights: Tensors, x: torch.Tensor, state: Tensors | None, lengths: np.ndarray | None = None
    ) -> tuple[tuple[torch.Tensor, ...], tuple[Unchecked, Any]]:
        """Return y and the parts of the final state, and what ``backward`` takes once."""
        loaded = self._take(weights, x.shape[0] * x.shape[1])
        try:
            with loaded.calls.limits():
                y, final, content = loaded.calls.record(self._array_of(x), self._arrays(state, x.shape[1]), *_shorter(lengths))
        finally:
            self._give_back(loaded)
        return (self._tensor_of(y), *map(self._tensor_of, final)), (loaded.calls, content)

    def backward(self, recorded: tuple[Unchecked, Any], dy: torch.Tensor, dfinal: Tensors | None) -> tuple[torch.Tensor, ...]:
        """Return the gradients of x, of the parts of the state, and of the weights."""
        calls, content = recorded
        with calls.limits():
            grads = calls.backward(content, self._array_of(dy), self._arrays(dfinal, dy.shape[1]))
        return tuple(map(self._tensor_of, (grads.x, *grads.state, *grads.params.values())))

    def _take(self, weights: Tensors, rows: int) -> _Loaded:
        """The network with these weights, for a call on so many rows; another one if calls with other weights run on it."""
        threads = torch.get_num_threads()
        with self._lock:
            loaded = self._loaded
            if loaded is None or loaded.threads != threads or loaded.copies.differ(weights, rows):
                params = dict(zip(self._names, map(self._array_of, weights), strict=True))
                if loaded is None or loaded.threads != threads or loaded.running:
                    loaded = self._loaded = _Loaded(self.spec, params, weights, threads)
                else:
                    loaded.update(params, weights)
            loaded.running += 1
            return loaded

    def _give_back(self, loaded: _Loaded) -> None:
        with self._lock:
            loaded.running -= 1

    def _arrays(self, state: Tensors | None, batch: int) -> tuple[np.ndarray, ...]:
        if state is not None:
            return tuple(map(self._array_of, state))
        zeros = self._zeros.get(batch)
        if zeros is None:
            zeros = tuple(np.zeros(shape, self.spec.numpy_dtype) for shape in self.spec.state_shapes(batch))
            self._zeros = {batch: zeros}  # for the next call: numba_cpu only reads a state
        return zeros


def _shorter(lengths: np.ndarray | None) -> tuple[np.ndarray, ...]:
    """The lengths as the only element, or nothing if no row is shorter than T."""
    return () if lengths is None or lengths[-1] == lengths[0] else (lengths,)
