"""The reference's arithmetic with random rounding errors of a lower precision."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np


class WithArithmetic:
    """The reference as a backend with another arithmetic."""

    def __init__(self, reference: Any, arithmetic: Any) -> None:
        self._reference, self._arithmetic = reference, arithmetic

    def load(self, spec: Any, params: Any, *, threads: int | None = None) -> Any:
        return self._reference.load(spec, params, threads=threads, arithmetic=self._arithmetic)

    def parts(self, dtype: str, *, threads: int | None = None) -> Any:
        return self._reference.parts(dtype, threads=threads, arithmetic=self._arithmetic)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reference, name)


class CachedByWeights:
    """A function of weights, computed once for each array; the arrays must not change while the network lives."""

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, weights: np.ndarray) -> np.ndarray:
        key = (weights.ctypes.data, weights.shape, weights.strides)
        if key not in self._known:
            self._known[key] = (weights, self._function(weights))  # the reference keeps the address from being reused
        return self._known[key][1]


def sum_variance(additions: float) -> float:
    """The variance of the relative error of a sum, in units of the unit roundoff squared.

    Each addition rounds uniformly within +-u, and the terms may be added one after the other.
    """
    return max(1.0, additions / 3)


def summed_variance(rows: float, steps: int, accumulation: float) -> float:
    """The variance of ``sum_variance`` for a sum of ``rows`` terms from ``steps`` time steps.

    With ``accumulation`` below 1, the terms of a step are summed at that finer roundoff, and the steps at u.
    """
    return sum_variance(rows) if accumulation == 1 else sum_variance(steps) + accumulation**2 * sum_variance(rows)


def noisy(
    exact: Any, u: float, rng: np.random.Generator, repeats: float = 1, accumulation: float = 1, smallest: float = 0
) -> Any:
    """Return an arithmetic that adds rounding errors of unit roundoff ``u`` to each result of the class ``exact``.

    ``repeats``: the number of rows of the batch, added one after the other, that each row represents.
    ``accumulation``: the unit roundoff of sums within a product, in units of u; if it is finer, the product is rounded again
    when it is stored.
    ``smallest``: the smallest normal number; each result also gets an absolute error of u times it, half the spacing of
    subnormal numbers.
    """
    finer = accumulation < 1

    def noise(like: np.ndarray) -> np.ndarray:
        return np.float64(u) * rng.standard_normal(like.shape, np.float32)

    def stored(result: np.ndarray) -> np.ndarray:
        return in_storage(result) if finer else result

    def in_storage(result: np.ndarray, scale: float = 1) -> np.ndarray:
        relative = result * (1 + scale * noise(result))
        return relative + smallest * scale * noise(result) if smallest else relative

    magnitudes = CachedByWeights(abs)

    class Noisy(exact):
        def tanh(self, z: np.ndarray) -> np.ndarray:
            return in_storage(super().tanh(z), 2)

        def sigmoid(self, z: np.ndarray) -> np.ndarray:
            return in_storage(super().sigmoid(z), 2)

        def exp(self, z: np.ndarray) -> np.ndarray:
            return in_storage(super().exp(z), 2)

        def log(self, v: np.ndarray) -> np.ndarray:
            return in_storage(super().log(v), 2)

        def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
            result = super().product(v, w, bias)
            magnitude = super().product(abs(v), magnitudes(w), None if bias is None else abs(bias))
            return stored(result + accumulation * noise(result) * magnitude)

        def normalised(self, v: np.ndarray, gain: np.ndarray, bias: Any) -> tuple[np.ndarray, Any]:
            y, (x, scale) = super().normalised(v, gain, bias)
            if finer:  # the mean and the scale are stored for the derivative
                x = x + noise(scale) * super().mean(v) * scale
                own = noise(scale)
                x, scale = x * (1 + own), scale * (1 + own)
            return stored(y), (x, scale)

        def normalised_backward(self, dy: np.ndarray, kept: Any, gain: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            dv, terms = super().normalised_backward(dy, kept, gain)
            return stored(dv), terms

        def mean(self, v: np.ndarray) -> np.ndarray:
            mean = super().mean(v)
            return mean + accumulation * noise(mean) * super().mean(abs(v))

        def within(self, result: np.ndarray, magnitude: np.ndarray) -> np.ndarray:
            return result + accumulation * noise(result) * magnitude

        def outer(self, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
            result = super().outer(cotangents, operands)
            return stored(result + accumulation * noise(result) * super().outer(abs(cotangents), abs(operands)))

        def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
            return in_storage(super().accumulated(total, term))

        def summed(self, total: np.ndarray, term: np.ndarray, rows: int, steps: int) -> np.ndarray:
            result = super().summed(total, term, rows, steps)
            return in_storage(result, math.sqrt(summed_variance(rows * repeats, steps, accumulation)))

        def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            return tuple(in_storage(value) for value in super().rounded(values))

    return Noisy()
