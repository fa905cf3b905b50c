"""The reference of a model's parts (``rnnbench.models.parts.Parts``), in NumPy: what the other backends' are compared with."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from rnnbench.impls._arithmetic import Arithmetic
from rnnbench.models.equations import CONSTANTS, SLOPES, Rule, squared_error
from rnnbench.models.parts import OutputGradients, Rows
from rnnbench.networks.arrays import numpy_errors
from rnnbench.networks.threads import blas_limits, together

_BLOCK = 1 << 20
"""Maximum number of results of the output layer that exist at the same time."""


class NumpyParts:
    """Parts on NumPy arrays of one dtype; ``arithmetic`` has the operations that round."""

    name = "numpy"

    def __init__(self, dtype: str, threads: int | None = None, arithmetic: Arithmetic | None = None) -> None:
        self._dtype, self._arithmetic = np.dtype(dtype), arithmetic or Arithmetic()
        self._limits = together(numpy_errors, blas_limits(threads))

    def asarray(self, array: np.ndarray) -> np.ndarray:
        return np.array(array, self._dtype, order="C")

    def to_numpy(self, array: np.ndarray) -> np.ndarray:
        return array

    def embedded(self, weight: np.ndarray, indices: np.ndarray) -> np.ndarray:
        return weight[indices]

    def embedding_gradient(self, indices: np.ndarray, dx: np.ndarray) -> Rows:
        found, place = np.unique(indices, return_inverse=True)
        sums = np.zeros((len(found), dx.shape[2]), self._dtype)
        np.add.at(sums, place.reshape(-1), dx.reshape(-1, dx.shape[2]))
        counts = int(np.bincount(place.reshape(-1)).max())
        return Rows(found.astype(np.int64), self._arithmetic.summed(np.zeros_like(sums), sums, counts, 1))

    def scaled(self, array: np.ndarray, mask: np.ndarray) -> np.ndarray:
        return self._arithmetic.rounded((array * mask,))[0]

    def outputs(self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, activation: str) -> np.ndarray:
        with self._limits():
            z = self._arithmetic.product(y.reshape(-1, y.shape[2]), weight, bias)
            return self._activated(z, activation).reshape(*y.shape[:2], -1)

    def cross_entropy(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> OutputGradients:
        expected, counted = targets.reshape(-1), weights.astype(self._dtype).reshape(-1, 1)

        def loss_of(z: np.ndarray, rows: slice) -> tuple[float, np.ndarray]:
            loss, powers, total = self._entropies(z, expected[rows], counted[rows, 0])
            (p,) = self._arithmetic.rounded((powers / total,))
            p[np.arange(len(z)), expected[rows]] -= 1
            return loss, self._arithmetic.rounded((counted[rows] * p,))[0]

        return self._through_output(y, weight, bias, loss_of)

    def cross_entropy_loss(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, targets: np.ndarray, weights: np.ndarray
    ) -> float:
        expected, counted = targets.reshape(-1), weights.astype(self._dtype).reshape(-1)
        return self._summed(y, weight, bias, lambda z, rows: self._entropies(z, expected[rows], counted[rows])[0])

    def squared_errors(
        self,
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        activation: str,
        targets: np.ndarray,
        weights: np.ndarray,
    ) -> OutputGradients:
        expected, counted = (array.astype(self._dtype).reshape(-1, len(bias)) for array in (targets, weights))

        def loss_of(z: np.ndarray, rows: slice) -> tuple[float, np.ndarray]:
            output = self._activated(z, activation)
            loss, cotangent = self._squares(output, expected[rows], counted[rows])
            return loss, self._arithmetic.rounded((SLOPES[activation](cotangent, output),))[0]

        return self._through_output(y, weight, bias, loss_of)

    def squared_errors_loss(
        self,
        y: np.ndarray,
        weight: np.ndarray,
        bias: np.ndarray,
        activation: str,
        targets: np.ndarray,
        weights: np.ndarray,
    ) -> float:
        expected, counted = (array.astype(self._dtype).reshape(-1, len(bias)) for array in (targets, weights))

        def loss_of(z: np.ndarray, rows: slice) -> float:
            return self._squares(self._activated(z, activation), expected[rows], counted[rows])[0]

        return self._summed(y, weight, bias, loss_of)

    def add(self, total: np.ndarray | Rows, term: np.ndarray | Rows) -> np.ndarray | Rows:
        if isinstance(total, np.ndarray) and isinstance(term, np.ndarray):
            return self._arithmetic.accumulated(total, term)
        assert isinstance(total, Rows)
        assert isinstance(term, Rows)
        found = np.union1d(total.indices, term.indices)
        values = np.zeros((len(found), total.values.shape[1]), self._dtype)
        for rows in (total, term):
            place = np.searchsorted(found, rows.indices)
            values[place] = self._arithmetic.accumulated(values[place], rows.values)
        return Rows(found, values)

    def squared_norm(self, gradients: Sequence[np.ndarray | Rows]) -> float:
        flat = [(g.values if isinstance(g, Rows) else g).reshape(-1) for g in gradients]
        return float(sum(np.square(values, dtype=np.float64).sum() for values in flat))

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
        typed = CONSTANTS[rule.name](*(self._dtype.type(value) for value in constants))
        if isinstance(gradient, Rows):
            dense = np.zeros_like(parameter)
            dense[gradient.indices] = gradient.values
            gradient = dense
        largest = self._dtype.type(limit)
        with numpy_errors():
            clipped = np.clip(gradient * self._dtype.type(scale), -largest, largest)
            new, kept = rule.update(parameter, clipped, tuple(slots), typed)
            (parameter[...],) = self._arithmetic.rounded((new,))
            for slot, value in zip(slots, self._arithmetic.rounded(kept), strict=True):
                slot[...] = value

    def _activated(self, z: np.ndarray, activation: str) -> np.ndarray:
        arithmetic = self._arithmetic
        if activation == "softmax":
            powers = arithmetic.exp(z - z.max(1, keepdims=True))
            return arithmetic.rounded((powers / powers.sum(1, keepdims=True),))[0]
        return z if activation == "identity" else getattr(arithmetic, activation)(z)

    def _entropies(self, z: np.ndarray, expected: np.ndarray, counted: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        """The sum of the rows' losses; exp(z), scaled by row, and its sums (N, 1)."""
        arithmetic = self._arithmetic
        (shifted,) = arithmetic.rounded((z - z.max(1, keepdims=True),))
        powers = arithmetic.exp(shifted)
        total = arithmetic.summed(np.zeros((len(z), 1), z.dtype), powers.sum(1, keepdims=True), z.shape[1], 1)
        losses = counted * (arithmetic.log(total[:, 0]) - shifted[np.arange(len(z)), expected])
        return float(losses.sum(dtype=np.float64)), powers, total

    def _squares(self, output: np.ndarray, expected: np.ndarray, counted: np.ndarray) -> tuple[float, np.ndarray]:
        """The sum of the losses, and the cotangents of the outputs."""
        losses, cotangent = self._arithmetic.rounded(squared_error(output, expected, counted))
        return float(losses.sum(dtype=np.float64)), cotangent

    def _summed(
        self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, loss_of: Callable[[np.ndarray, slice], float]
    ) -> float:
        """Run the output layer in the blocks of ``_through_output``; ``loss_of(z, rows)`` returns the loss."""
        flat, loss = y.reshape(-1, y.shape[2]), 0.0
        with self._limits():
            for rows in _blocks(len(flat), max(1, _BLOCK // len(bias))):
                loss += loss_of(self._arithmetic.product(flat[rows], weight, bias), rows)
        return loss

    def _through_output(self, y: np.ndarray, weight: np.ndarray, bias: np.ndarray, loss_of) -> OutputGradients:
        """Run the output layer and its gradients block by block of rows; ``loss_of(z, rows)`` returns the loss and dz."""
        product, outer, summed = self._arithmetic.product, self._arithmetic.outer, self._arithmetic.summed
        flat = y.reshape(-1, y.shape[2])
        dy, dweight, dbias, loss = np.empty_like(flat), np.zeros_like(weight), np.zeros_like(bias), 0.0
        with self._limits():
            for rows in _blocks(len(flat), max(1, _BLOCK // len(bias))):
                part, dz = loss_of(product(flat[rows], weight, bias), rows)
                loss += part
                dy[rows] = product(dz, weight.T)
                dweight = summed(dweight, outer(dz, flat[rows]), len(dz), 1)
                dbias = summed(dbias, dz.sum(0), len(dz), 1)
        return OutputGradients(loss, dy.reshape(y.shape), dweight, dbias)


def _blocks(size: int, block: int) -> Iterator[slice]:
    return (slice(first, min(first + block, size)) for first in range(0, size, block))
