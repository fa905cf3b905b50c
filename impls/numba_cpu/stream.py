"""Streams: one compiled call runs a step of all layers, on arrays that were bound when the stream began.

The call is ``kernels.forward`` with T = 1, so steps equal a forward pass on one thread bit for bit.  It reads a layer's state
from one of two rows and writes the other; the argument ``reverse`` says which, so inverting it moves on to the next step.
"""

from itertools import pairwise
from typing import Any

import numpy as np

from rnnbench.impls.numba_cpu.layer import Layer, StepBuffers
from rnnbench.jit.table_call import table_call, words
from rnnbench.networks.contract import State
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.stream import Stream


class CompiledNetwork(StackedNetwork):
    """Layers of ``Layer``, or of ``InFloat32`` around it, whose streams call ``forward``."""

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        if isinstance(self._layers, Layer):
            return CompiledStream(self, self._layers, batch_size, state)
        return super()._stream(batch_size, state)


class CompiledStream(Stream):
    """A stream whose steps run on the calling thread alone, and allocate only y."""

    def __init__(self, network: CompiledNetwork, layer: Layer, batch_size: int, state: State | None) -> None:
        spec = network.spec
        self._layer, self._spec, self._dtype = layer, spec, spec.numpy_dtype
        sizes = [spec.input_size] + [spec.features] * spec.num_layers
        arrays = [np.zeros((1, batch_size, size), self._dtype) for size in sizes]
        self._x, self._y = arrays[0][0], arrays[-1][0]
        self._buffers = [layer.step_buffers(x, y) for x, y in pairwise(arrays)]
        self._weights: list[Any] = []
        super().__init__(network, batch_size, state)

    def step(self, x_t: np.ndarray) -> np.ndarray:
        if type(x_t) is not np.ndarray or x_t.shape != self._row or x_t.dtype is not self._dtype:
            self._check(x_t)  # slower, and accepts what is as good
        if self._network._weights is not self._weights:
            self._bind(self._row_of_state())
        self._x[...] = x_t
        if status := self._run(self._address, self._rows):
            raise RuntimeError(f"the kernel of numba_cpu failed with status {status}")
        return self._y.copy()

    _step = step  # without a second call for what the base class checks

    def _bind(self, row: int) -> None:
        """Fill the table for steps with the network's current weights from the state in a row, 0 or 1."""
        weights = self._network._weights
        rows = [self._layer.step_arguments(*pair, bool(row)) for pair in zip(weights, self._buffers, strict=True)]
        self._run, self._flag, self._code = table_call(self._layer.forward_kernel, rows[0])
        self._table = np.array([words(arguments) for arguments in rows], np.int64)
        self._bound = rows  # their arrays are alive as long as the table
        self._address, self._rows, self._weights = self._table.ctypes.data, len(rows), weights

    def _row_of_state(self) -> int:
        return int(self._table[0, self._flag]) if self._weights else 0

    def _read(self) -> State:
        row = self._row_of_state()
        by_part = zip(*(self._states(buffers) for buffers in self._buffers), strict=True)
        return tuple(np.stack([part[row] for part in parts]).astype(self._dtype) for parts in by_part)

    def _write(self, state: State) -> None:
        row = self._row_of_state()
        for place, buffers in enumerate(self._buffers):
            for own, part in zip(self._states(buffers), state, strict=True):
                own[row] = part[place]

    def _states(self, buffers: StepBuffers) -> list[np.ndarray]:
        """The rows of a layer's states, each (2, B, H)."""
        recurrent = buffers.kept.recurrent[:, :, : self._spec.state_size]
        return [recurrent, buffers.kept.memory] if len(self._spec.kind.states) > 1 else [recurrent]
