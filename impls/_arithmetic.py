"""Rounding operations of the reference, in its own or a narrow dtype, and sums of its weight gradients."""

from typing import NamedTuple

import numpy as np

from rnnbench.networks.arrays import NumpyArrays, numpy_errors
from rnnbench.networks.cells import Activations, Cell, Equations
from rnnbench.networks.layer_norm import layer_norm
from rnnbench.networks.params import Params

BLOCK = 64
"""Number of time steps whose weight gradients are summed in one matrix product."""


_NORM = layer_norm(np.sqrt)


class Normalised(NamedTuple):
    """What the derivative of a normalisation needs: its values before gain and bias (rows, size), and their scale (rows, 1)."""

    x: np.ndarray
    scale: np.ndarray


class Arithmetic:
    """All operations of the loop that round.  The tolerances come from another class with the same methods."""

    def equations(self, cell: Cell, nonlinearity: str) -> Equations:
        return cell.equations(Activations(self.tanh, self.sigmoid, self.relu, self.relu_slope), nonlinearity)

    def tanh(self, z: np.ndarray) -> np.ndarray:
        return np.tanh(z)

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        # exp of a non-positive number only: no overflow, full relative accuracy in both tails
        return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))

    def relu(self, z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    def relu_slope(self, h: np.ndarray) -> np.ndarray:
        return np.sign(h)

    def exp(self, z: np.ndarray) -> np.ndarray:
        return np.exp(z)

    def log(self, v: np.ndarray) -> np.ndarray:
        return np.log(v)

    def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        """v @ w.T + bias, where w is part of the network's weights."""
        return v @ w.T if bias is None else v @ w.T + bias

    def normalised(self, v: np.ndarray, gain: np.ndarray, bias: np.ndarray | float) -> tuple[np.ndarray, Normalised]:
        """Normalise the rows of v (``rnnbench.networks.layer_norm``)."""
        mean = self.mean(v)
        scale = _NORM.scale(self.mean(_NORM.squared(v, mean)))
        scale = self.within(scale, 2 * scale)
        x = self.within(_NORM.standardised(v, mean, scale), (abs(v) + abs(mean)) * scale)
        return self.within(_NORM.result(x, gain, bias), _NORM.result(abs(x), abs(gain), abs(bias))), Normalised(x, scale)

    def normalised_backward(self, dy: np.ndarray, kept: Normalised, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cotangent of v, and the terms whose sum over the rows is the gradient of the gain."""
        x, scale = kept
        g, gx = (self.within(terms, abs(terms)) for terms in _NORM.weighed(dy, x, gain))
        mean_g, mean_gx = self.mean(g), self.mean(gx)
        magnitude = scale * (abs(g) + abs(mean_g) + abs(x * mean_gx))
        dv, terms = _NORM.derivative(dy, x, gain, scale, mean_g, mean_gx), dy * x
        return self.within(dv, magnitude), self.within(terms, abs(terms))

    def mean(self, v: np.ndarray) -> np.ndarray:
        """The mean of each row within a normalisation."""
        return v.mean(1, keepdims=True)

    def within(self, result: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
        """A result within a normalisation; ``magnitude`` is the sum of the magnitudes of its terms."""
        return result

    def outer(self, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
        """cotangents.T @ operands, both (rows, size): the gradient of weights that read ``operands``."""
        return cotangents.T @ operands

    def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
        """total + term."""
        return total + term

    def summed(self, total: np.ndarray, term: np.ndarray, rows: int, steps: int) -> np.ndarray:
        """total + term, where term is itself a sum over ``rows`` rows of ``steps`` time steps."""
        return total + term

    def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Results of an elementwise equation, rounded."""
        return values


class Narrow(Arithmetic):
    """Arithmetic in a narrow dtype on float32 arrays: every result is rounded to it, products after summation."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype

    def tanh(self, z: np.ndarray) -> np.ndarray:
        return self._nearest(super().tanh(z))

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        return self._nearest(super().sigmoid(z))

    def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        return self._nearest(super().product(v, w, bias))

    def normalised(self, v: np.ndarray, gain: np.ndarray, bias: np.ndarray | float) -> tuple[np.ndarray, Normalised]:
        y, kept = super().normalised(v, gain, bias)
        return self._nearest(y), kept

    def normalised_backward(self, dy: np.ndarray, kept: Normalised, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dv, terms = super().normalised_backward(dy, kept, gain)
        return self._nearest(dv), terms

    def outer(self, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
        return self._nearest(super().outer(cotangents, operands))

    def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
        return self._nearest(super().accumulated(total, term))

    def summed(self, total: np.ndarray, term: np.ndarray, rows: int, steps: int) -> np.ndarray:
        return self._nearest(super().summed(total, term, rows, steps))

    def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(self._nearest(value) for value in values)

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        return values.astype(self._dtype).astype(np.float32)


class WeightGradients:
    """Gradients of weights and biases, summed over time in blocks of steps."""

    def __init__(self, arithmetic: Arithmetic, weights: Params, dtype: np.dtype) -> None:
        self._arithmetic = arithmetic
        self._sums = {name: np.zeros(value.shape, dtype) for name, value in weights.items()}
        self._pending: dict[tuple[str, int | None, int | None], list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, name: str, rows: slice, cotangent: np.ndarray, operand: np.ndarray) -> None:
        """Add one step: cotangents (B, rows) of a weight that reads ``operand`` (B, size)."""
        key = (name, rows.start, rows.stop)
        steps = self._pending.setdefault(key, [])
        steps.append((cotangent, operand))
        if len(steps) == BLOCK:
            self._add_block(key)

    def add_sum(self, name: str, rows: slice, terms: np.ndarray) -> None:
        """Add the sum of one step's rows (B, rows), if there is such a parameter."""
        if name in self._sums:
            self.add(name, rows, terms, np.ones((len(terms), 1), terms.dtype))

    def result(self) -> Params:
        for key in list(self._pending):
            self._add_block(key)
        return self._sums

    def _add_block(self, key: tuple[str, int | None, int | None]) -> None:
        name, start, stop = key
        steps = self._pending.pop(key)
        cotangents, operands = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        total = self._sums[name][start:stop]
        term = self._arithmetic.outer(cotangents, operands).reshape(total.shape)
        total[...] = self._arithmetic.summed(total, term, len(cotangents), len(steps))


class ArithmeticArrays(NumpyArrays):
    """NumPy arrays whose additions use the given arithmetic."""

    def __init__(self, dtype: np.dtype, arithmetic: Arithmetic) -> None:
        super().__init__(dtype)
        self._arithmetic = arithmetic

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with numpy_errors():
            return self._arithmetic.accumulated(a, b)
