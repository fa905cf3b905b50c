"""The tolerance in closed form: the variance of every result's rounding error, to first order, in one run.

The reference's loop runs once on arrays that carry, beside each value, the variance of its error, in units of the unit
roundoff squared.  The noise is that of ``rnnbench.check.tolerance``, operation by operation:

    v W^T + bias     V_v (W^2)^T + (|v| |W|^T + |bias|)^2
    f(p, q, ...)     sum over the operands of (df/dp)^2 V_p, and (df/da)^2 (2 a)^2 for each activation a in f
    a result stored  V + value^2
    a + b            V_a + V_b + (a + b)^2
    a sum of n rows  the same with n/3 (a + b)^2

where the sums within a product have a finer unit, of r times the roundoff,

    v W^T + bias     V_v (W^2)^T + (r (|v| |W|^T + |bias|))^2 + value^2

and where values may be smaller than the smallest normal number s, below which all numbers are equally far apart, s^2 comes
beside the square of every result.

Errors of different operands are taken for independent (Higham and Mary 2019, "A new approach to probabilistic rounding
error analysis").  The tolerance of a tensor is the median of the largest of so many normal numbers with these variances
as the noisy runs would draw, times the same factor.

``docs/tolerance.md`` compares the two over a grid: where errors do not grow from step to step the closed form lies within
0.5 to 2 of the noisy runs.  Where they do, in networks that amplify a disturbance, errors of different units are anything
but independent, and it falls short; a run draws its weights as torch does, and such networks do not amplify.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnbench.check.noise import OfWeights, summed_variance
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.cells import Activations, Cell, Equations
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import StackedNetwork

# Values and variances are the real and imaginary parts of one complex array: NumPy then slices, joins and stores both
# at once, and the sum of two arrays has the sum of the variances.  Nothing but this module multiplies such arrays.

Pairs = npt.NDArray[np.complex128]
"""Values and their variances."""

STEP = 1e-40
"""Of the complex-step derivatives: its square vanishes beside any value."""


def with_variance(value: np.ndarray, variance: np.ndarray | float) -> Pairs:
    pair = np.empty(value.shape, complex)
    pair.real, pair.imag = value, variance
    return pair


class FirstOrder:
    """``numpy_ref.Arithmetic`` on values with variances."""

    def __init__(self, repeats: float = 1, accumulation: float = 1, smallest: float = 0) -> None:
        self._magnitudes, self._squares, self._repeats = OfWeights(abs), OfWeights(np.square), repeats
        self._accumulation, self._smallest = accumulation, smallest

    def equations(self, cell: Cell, nonlinearity: str) -> Equations:
        derivatives = _Derivatives(self._smallest)
        exact = cell.equations(Activations(derivatives.tanh, derivatives.sigmoid, derivatives.relu, _slope), nonlinearity)
        return exact._replace(
            **{name: derivatives.propagating(function) for name, function in exact._asdict().items() if function}
        )

    def product(self, v: Pairs, w: np.ndarray, bias: np.ndarray | None = None) -> Pairs:
        value, noise = v.real @ w.T, abs(v.real) @ self._magnitudes(w).T
        if bias is not None:
            value, noise = value + bias, noise + abs(bias)
        return self._stored(with_variance(value, v.imag @ self._squares(w).T + (self._accumulation * noise) ** 2))

    def outer(self, cotangents: Pairs, operands: Pairs) -> Pairs:
        c, o = cotangents.real.T, operands.real
        noise = (self._accumulation * (abs(c) @ abs(o))) ** 2
        return self._stored(with_variance(c @ o, cotangents.imag.T @ o**2 + c**2 @ operands.imag + noise))

    def accumulated(self, total: Pairs, term: Pairs) -> Pairs:
        result = total + term
        result.imag += self._rounding(result.real)
        return result

    def summed(self, total: Pairs, term: Pairs, rows: int, steps: int) -> Pairs:
        result = total + term
        result.imag += summed_variance(rows * self._repeats, steps, self._accumulation) * self._rounding(result.real)
        return result

    def _stored(self, product: Pairs) -> Pairs:
        """Rounded once more where its sums were finer than what it is stored in."""
        if self._accumulation < 1:
            product.imag += self._rounding(product.real)
        return product

    def rounded(self, values: tuple[Pairs, ...]) -> tuple[Pairs, ...]:
        return tuple(with_variance(value.real, value.imag + self._rounding(value.real)) for value in values)

    def _rounding(self, value: np.ndarray) -> np.ndarray:
        """The variance of one rounding."""
        return value**2 + self._smallest**2


class _Derivatives:
    """Derivatives of an elementwise function by each operand and by each activation in it, all in one call.

    The function is called with a leading axis on its operands, one place for each source of error; in that place the
    source is moved by an imaginary step.
    """

    def __init__(self, smallest: float = 0) -> None:
        self._smallest, self._first_activation, self._activations = smallest, 0, 0
        self._counts: dict[tuple[Any, ...], int] = {}

    def tanh(self, z: Pairs) -> Pairs:
        value = np.tanh(z.real)
        return self._activated(value, (1 - value * value) * z.imag)

    def sigmoid(self, z: Pairs) -> Pairs:
        value = np.exp(np.minimum(z.real, 0)) / (1 + np.exp(-abs(z.real)))
        return self._activated(value, (value - value * value) * z.imag)

    def relu(self, z: Pairs) -> Pairs:
        return with_variance(np.maximum(z.real, 0), (z.real > 0) * z.imag)

    def _activated(self, value: np.ndarray, moved: np.ndarray) -> Pairs:
        """The value of an activation, itself moved by its noise of twice the unit roundoff in the place that is its own."""
        place = self._first_activation + self._activations
        self._activations += 1
        if place < len(value):
            moved[place] += 2 * np.hypot(value[place], self._smallest) * STEP
        return with_variance(value, moved)

    def propagating(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def propagated(*groups: tuple[Pairs, ...]) -> Any:
            operands = [operand for group in groups for operand in group]
            key = (function, len(operands))
            if key not in self._counts:
                self._counts[key] = self._count_activations(function, groups)
            sources = len(operands) + self._counts[key]
            variances = np.ones((sources, *operands[0].shape))
            moved = []
            for place, operand in enumerate(operands):
                variances[place] = operand.imag
                copies = np.repeat(operand.real[None].astype(complex), sources, 0)
                copies[place].imag = STEP
                moved.append(copies)
            self._first_activation, self._activations = len(operands), 0
            remaining = iter(moved)
            results = function(*(tuple(next(remaining) for _ in group) for group in groups))
            return _mapped(lambda r: with_variance(r[0].real, ((r.imag / STEP) ** 2 * variances).sum(0)), results)

        return propagated

    def _count_activations(self, function: Callable[..., Any], groups: tuple[tuple[Pairs, ...], ...]) -> int:
        self._first_activation, self._activations = 1, 0  # a place that does not exist
        function(*(tuple(operand.real[None].astype(complex) for operand in group) for group in groups))
        return self._activations


def _slope(h: Pairs) -> Pairs:
    return np.sign(h.real).astype(complex)


def _mapped(convert: Callable[[Pairs], Pairs], results: Any) -> Any:
    return tuple(_mapped(convert, part) for part in results) if isinstance(results, tuple) else convert(results)


class _Arrays(NumpyArrays):
    def __init__(self, arithmetic: FirstOrder) -> None:
        super().__init__(np.dtype(complex))
        self._arithmetic = arithmetic

    def add(self, a: Pairs, b: Pairs) -> Pairs:
        return self._arithmetic.accumulated(a, b)


class _Network(StackedNetwork):
    def _check_array(self, name: str, array: Any, axes: tuple[str, ...], expected: tuple[int | None, ...]) -> None:
        """Arrays with variances have no dtype of a spec; they come from this package alone."""


class WithVariances:
    """The reference as a backend on values with variances; arguments are exact.

    ``repeats``, ``accumulation`` and ``smallest`` as of ``noisy``.
    """

    def __init__(self, repeats: float = 1, accumulation: float = 1, smallest: float = 0) -> None:
        self._repeats, self._accumulation, self._smallest = repeats, accumulation, smallest

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Any:
        arithmetic = FirstOrder(self._repeats, self._accumulation, self._smallest)
        layer = reference_backend().Layer(spec, arithmetic)
        return _Network(spec, params, layer, _Arrays(arithmetic), np.ndarray)

    def asarray(self, array: np.ndarray) -> Pairs:
        return with_variance(array, 0.0)

    def to_numpy(self, array: Pairs) -> Pairs:
        return array


def median_largest(variances: np.ndarray, draws: int) -> float:
    """The median of the largest magnitude among ``draws`` independent normal numbers for each variance."""
    from scipy.optimize import brentq  # not needed before, and slow to import
    from scipy.special import erf

    deviations = np.sqrt(variances[variances > 0])
    if not deviations.size:
        return 0.0
    top = deviations.max()
    counts, edges = np.histogram(np.log(deviations / top), bins=400, range=(-4.0, 0.0))  # smaller ones never are the largest
    counts, levels = counts[counts > 0], np.exp(edges[1:][counts > 0])

    def excess(bound: float) -> float:
        return draws * float(np.sum(counts * np.log(erf(bound / levels / np.sqrt(2))))) + np.log(2)

    return float(top * brentq(excess, 0.01, 40.0, rtol=1e-4))
