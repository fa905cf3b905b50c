"""A model's parts (``rnnbench.models.parts.Parts``) in compiled code: each of them is one pass over memory that threads divide.

Threads divide rows or elements, always in the same way, and their sums are added in the same order: with the same number of
threads, training gives the same bits every time.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls._parts import NumpyParts
from rnnbench.impls.numba_cpu import compile_parts
from rnnbench.impls.numba_cpu.buffers import BufferPool
from rnnbench.impls.numba_cpu.layer import LINE, plain
from rnnbench.impls.numba_cpu.products import packed_size, rounded_up
from rnnbench.impls.numba_cpu.workers import MIN_TERMS, Workers, divided
from rnnbench.jit.target import current_target
from rnnbench.models.equations import CONSTANTS, Rule
from rnnbench.models.parts import OutputGradients, Rows

_BLOCK_ROWS = 192
"""Maximum number of rows whose results of the output layer exist at the same time, in each thread."""

_MIN_FLOPS = 8_000_000
"""Minimum number of operations of the output layer per thread."""


class PackedLayer(NamedTuple):
    """The output layer's weight, packed for both directions, and its bias, padded to whole vectors."""

    forward: np.ndarray
    backward: np.ndarray
    bias: np.ndarray


class Work(NamedTuple):
    """One thread's scratch memory for ``output_kernels``."""

    z: np.ndarray
    dy: np.ndarray
    packed: np.ndarray
    nothing: np.ndarray
    dbias: np.ndarray
    terms: np.ndarray
    room: np.ndarray


class _Buffers(NamedTuple):
    """What one call needs: ``dweights`` are None where the thread can write into the result."""

    layer: PackedLayer
    rows: list[slice]
    work: list[Work]
    dweights: list[np.ndarray | None]
    losses: list[np.ndarray]


class CompiledParts(NumpyParts):
    """Parts on NumPy arrays of float32 or float64; what is left to the base class is one pass in NumPy already."""

    name = "numba_cpu"

    def __init__(self, dtype: str, threads: int | None = None) -> None:
        super().__init__(dtype, threads)
        self._workers, self._target, self._pool = Workers(threads), current_target(), BufferPool()
        self._passes = compile_parts.passes(self._dtype, self._target)
        self._packings = compile_parts.packings(self._dtype, self._target)
        # a step updates every parameter with the same rule and constants
        self._updates = functools.lru_cache(1)(self._new_updates)

    def embedding_gradient(self, indices: np.ndarray, dx: np.ndarray) -> Rows:
        flat, rows = _integers(indices), plain(dx).reshape(-1, dx.shape[2])
        place = np.full(int(flat.max()) + 1, -1)
        found = np.empty(min(flat.size, place.size), np.int64)
        found = found[: self._passes.embedding_rows(flat, found, place)]
        sums = np.empty((len(found), rows.shape[1]), self._dtype)
        self._passes.embedding_gradient(flat, place, rows, sums)
        return Rows(found, sums)

    def outputs(self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, activation: str) -> np.ndarray:
        kernel = compile_parts.outputs(activation, self._dtype, self._target)
        out = np.empty((y.shape[0] * y.shape[1], weight.shape[0]), self._dtype)
        key, buffers = self._buffers(y, weight, bias, -np.inf if activation == "softmax" else 0, training=False)
        rows = plain(y).reshape(-1, y.shape[2])
        parts = zip(buffers.rows, buffers.work, strict=True)
        self._workers.run(kernel, [(rows[part], out[part], buffers.layer, work) for part, work in parts])
        self._pool.give_back(*key, buffers)
        return out.reshape(*y.shape[:2], -1)

    def cross_entropy(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> OutputGradients:
        kernel = compile_parts.loss_gradients("cross_entropy", "softmax", self._dtype, self._target)
        return self._gradients(kernel, y, weight, bias, *self._classes(targets, weights), -np.inf)

    def cross_entropy_loss(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> float:
        kernel = compile_parts.losses("cross_entropy", "softmax", self._dtype, self._target)
        return self._loss(kernel, y, weight, bias, *self._classes(targets, weights), -np.inf)

    def squared_errors(
        self,
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        activation: str,
        targets: np.ndarray,
        weights: np.ndarray,
    ) -> OutputGradients:
        kernel = compile_parts.loss_gradients("squared_errors", activation, self._dtype, self._target)
        expected, counted = (self._numbers(array).reshape(-1, len(bias)) for array in (targets, weights))
        return self._gradients(kernel, y, weight, bias, expected, counted, 0)

    def squared_errors_loss(
        self,
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        activation: str,
        targets: np.ndarray,
        weights: np.ndarray,
    ) -> float:
        kernel = compile_parts.losses("squared_errors", activation, self._dtype, self._target)
        expected, counted = (self._numbers(array).reshape(-1, len(bias)) for array in (targets, weights))
        return self._loss(kernel, y, weight, bias, expected, counted, 0)

    def squared_norm(self, gradients: Sequence[np.ndarray | Rows]) -> float:
        flat = [plain(g.values if isinstance(g, Rows) else g).reshape(-1) for g in gradients]
        vectors = [values[part] for values in flat for part in self._shares(values.size, values.size)]
        sums = np.zeros((len(vectors), 1))
        pairs, count = list(zip(vectors, sums, strict=True)), self._workers.threads
        for first in range(0, len(pairs), count):
            self._workers.run(self._passes.squared_norm, pairs[first : first + count])
        return float(sums.sum())

    def update(
        self,
        rule: Rule,
        parameter: np.ndarray,
        gradient: np.ndarray | Rows,
        slots: Sequence[np.ndarray],
        constants: tuple[float, ...],
        scale: float,
        limit: float,
    ) -> None:
        kernels, numbers = self._updates(rule.name, constants, scale, limit)
        if not isinstance(gradient, Rows):
            flat, terms, kept = parameter.reshape(-1), plain(gradient).reshape(-1), [slot.reshape(-1) for slot in slots]
            shares = self._shares(flat.size, flat.size)
            arguments = [(flat[part], terms[part], tuple(slot[part] for slot in kept), *numbers) for part in shares]
            self._workers.run(kernels.dense, arguments)
            return
        values = plain(gradient.values)
        arguments: list[tuple[Any, ...]] = []
        zeros = np.zeros(parameter.shape[1], self._dtype)
        for part in self._shares(len(parameter), parameter.size):
            given = slice(*np.searchsorted(gradient.indices, (part.start, part.stop)))
            of_rows = (part.start, part.stop, gradient.indices[given], values[given])
            arguments.append((parameter, *of_rows, tuple(slots), *numbers, zeros))
        self._workers.run(kernels.rows, arguments)

    def _new_updates(
        self, rule: str, constants: tuple[float, ...], scale: float, limit: float
    ) -> tuple[compile_parts.Updates, tuple[Any, ...]]:
        """The kernels of a rule, and their last arguments in this dtype."""
        real = self._dtype.type
        numbers = (CONSTANTS[rule](*map(real, constants)), real(scale), real(limit))
        return compile_parts.updates(rule, self._dtype, self._target), numbers

    def _gradients(
        self,
        kernel: Callable[..., None],
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        pad: float,
    ) -> OutputGradients:
        rows = plain(y).reshape(-1, y.shape[2])
        dy, dweight = np.empty_like(rows), np.empty(weight.shape, self._dtype)
        key, buffers = self._buffers(y, weight, bias, pad, training=True)
        found = [dweight if own is None else own for own in buffers.dweights]
        arguments = []
        for part, sums, loss, work in zip(buffers.rows, found, buffers.losses, buffers.work, strict=True):
            arguments.append((rows[part], targets[part], weights[part], dy[part], sums, loss, buffers.layer, work))
        self._workers.run(kernel, arguments)
        dbias = buffers.work[0].dbias[: len(bias)].copy()
        for sums, work in zip(found[1:], buffers.work[1:], strict=True):
            self._workers.add(found[0], sums)
            dbias += work.dbias[: len(bias)]
        if found[0] is not dweight:
            dweight[...] = found[0][:, : weight.shape[1]]
        loss = float(sum(loss[0] for loss in buffers.losses))
        self._pool.give_back(*key, buffers)
        return OutputGradients(loss, dy.reshape(y.shape), dweight, dbias)

    def _loss(
        self,
        kernel: Callable[..., None],
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        targets: np.ndarray,
        weights: np.ndarray,
        pad: float,
    ) -> float:
        rows = plain(y).reshape(-1, y.shape[2])
        key, buffers = self._buffers(y, weight, bias, pad, training=False)
        shares = zip(buffers.rows, buffers.losses, buffers.work, strict=True)
        self._workers.run(
            kernel, [(rows[part], targets[part], weights[part], loss, buffers.layer, work) for part, loss, work in shares]
        )
        loss = float(sum(loss[0] for loss in buffers.losses))
        self._pool.give_back(*key, buffers)
        return loss

    def _buffers(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, pad: float, *, training: bool
    ) -> tuple[tuple[tuple[int, int], Any], _Buffers]:
        """Buffers of this call, with the packed layer in them, and the place in the pool to return them to."""
        key = (y.shape[:2], (weight.shape, training))
        buffers = self._pool.take(*key) or self._new_buffers(y.shape[0] * y.shape[1], *weight.shape, training=training)
        (self._packings.training if training else self._packings.forward)(plain(weight), buffers.layer)
        buffers.layer.bias[: len(bias)], buffers.layer.bias[len(bias) :] = bias, pad
        return key, buffers

    def _new_buffers(self, rows: int, outputs: int, features: int, *, training: bool) -> _Buffers:
        dtype, target = self._dtype, self._target
        columns, width = self._up(outputs), self._up(features)
        count = max(1, min(self._workers.threads, rows, 6 * rows * outputs * features // _MIN_FLOPS))
        line = LINE // dtype.itemsize
        buffers = _Buffers(
            PackedLayer(
                self._empty(packed_size(dtype, target, features, outputs)),
                self._empty(outputs * width * training),
                self._empty(columns),
            ),
            divided(rows, count), [], [], [],
        )  # fmt: skip
        for place, part in enumerate(buffers.rows):
            block = min(_BLOCK_ROWS, part.stop - part.start)
            buffers.work.append(
                Work(
                    self._empty(block, (-(-columns // line) | 1) * line),
                    self._empty(block, width),
                    self._empty(packed_size(dtype, target, block, features)),
                    np.zeros(width, dtype),
                    self._empty(columns),
                    self._empty(outputs),
                    self._empty(0),
                )
            )
            direct = place == 0 and width == features
            buffers.dweights.append(None if direct or not training else self._empty(outputs, width))
            buffers.losses.append(np.zeros(1))
        return buffers

    def _shares(self, size: int, terms: int) -> list[slice]:
        """``size`` rows or elements, divided among the threads where there are many terms in them."""
        threads = self._workers.threads if terms >= MIN_TERMS else 1
        return divided(size, threads) if threads > 1 else [slice(0, size)]

    def _classes(self, targets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return _integers(targets), self._numbers(weights).reshape(-1)

    def _numbers(self, array: np.ndarray) -> np.ndarray:
        return plain(np.asarray(array, self._dtype))

    def _empty(self, *shape: int) -> np.ndarray:
        return np.empty(shape, self._dtype)

    def _up(self, size: int) -> int:
        return rounded_up(size, self._target.lanes(self._dtype))


def _integers(indices: np.ndarray) -> np.ndarray:
    return plain(np.asarray(indices, np.int64)).reshape(-1)
