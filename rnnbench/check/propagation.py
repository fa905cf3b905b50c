"""The tolerance in closed form: the variance of every result's rounding error, to first order, in one run.

The reference runs once on arrays that hold each value together with the variance of its error, in units of the unit
roundoff squared.  The error of each operation is that of ``rnnbench.check.tolerance``:

    v W^T + bias     V_v (W^2)^T + (|v| |W|^T + |bias|)^2
    f(p, q, ...)     sum over the operands of (df/dp)^2 V_p, and (df/da)^2 (2 a)^2 for each activation a in f
    a result stored  V + value^2
    a + b            V_a + V_b + (a + b)^2
    a sum of n rows  the same with n/3 (a + b)^2

If sums within a product have a finer roundoff, r times the unit:

    v W^T + bias     V_v (W^2)^T + (r (|v| |W|^T + |bias|))^2 + value^2

If values may be subnormal, the square of the smallest normal number s is added to the square of every result, because
subnormal numbers have a constant spacing.

Errors of different operands are assumed independent (Higham and Mary 2019, "A new approach to probabilistic rounding error
analysis").  The tolerance of a tensor is the median of the largest of as many normal numbers with these variances as the
noisy runs draw, times the same factor.

``docs/tolerance.md`` compares the closed form with the noisy runs.  If errors do not grow from step to step, it lies within
0.5 to 2 times their result.  In networks that amplify disturbances, errors of different units are correlated, and the closed
form is too small.  Benchmark runs draw weights as torch does, and such networks do not amplify.
"""

import bisect
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from rnnbench.check.noise import CachedByWeights, summed_variance
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.cells import Activations, Cell, Equations
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import StackedNetwork

# Values and variances are the real and imaginary parts of a complex array, so that NumPy slices, joins and stores both at
# once, and adding arrays adds the variances.  Only this module multiplies such arrays.

Pairs = npt.NDArray[np.complex128]
"""Values (real part) and their variances (imaginary part)."""

STEP = 1e-40
"""Step of the complex-step derivatives; its square is negligible beside any value."""


def with_variance(value: np.ndarray, variance: np.ndarray | float) -> Pairs:
    pair = np.empty(value.shape, complex)
    pair.real, pair.imag = value, variance
    return pair


class FirstOrder:
    """``numpy_ref.Arithmetic`` on values with variances, to first order."""

    def __init__(self, repeats: float = 1, accumulation: float = 1, smallest: float = 0) -> None:
        self._magnitudes, self._squares, self._repeats = CachedByWeights(abs), CachedByWeights(np.square), repeats
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
        """Add the rounding of a product on storing, if its sums have a finer roundoff."""
        if self._accumulation < 1:
            product.imag += self._rounding(product.real)
        return product

    def rounded(self, values: tuple[Pairs, ...]) -> tuple[Pairs, ...]:
        return tuple(with_variance(value.real, value.imag + self._rounding(value.real)) for value in values)

    def _rounding(self, value: np.ndarray) -> np.ndarray:
        """The variance of one rounding."""
        return value**2 + self._smallest**2


class _Derivatives:
    """Derivatives of an elementwise function by each operand and each activation in it, in one call.

    The function is called on operands with a leading axis: one index for each source of error, at which that source gets an
    imaginary step.
    """

    def __init__(self, smallest: float = 0) -> None:
        self._smallest, self._first_activation, self._activations = smallest, 0, 0
        self._counts: dict[tuple[Any, ...], int] = {}

    def tanh(self, z: Pairs) -> Pairs:
        value = np.tanh(z.real)
        return self._with_step(value, (1 - value * value) * z.imag)

    def sigmoid(self, z: Pairs) -> Pairs:
        value = np.exp(np.minimum(z.real, 0)) / (1 + np.exp(-abs(z.real)))
        return self._with_step(value, (value - value * value) * z.imag)

    def relu(self, z: Pairs) -> Pairs:
        return with_variance(np.maximum(z.real, 0), (z.real > 0) * z.imag)

    def _with_step(self, value: np.ndarray, step: np.ndarray) -> Pairs:
        """Return an activation; at its own index, its error of twice the unit roundoff is added to the imaginary step."""
        index = self._first_activation + self._activations
        self._activations += 1
        if index < len(value):
            step[index] += 2 * np.hypot(value[index], self._smallest) * STEP
        return with_variance(value, step)

    def propagating(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def propagated(*groups: tuple[Pairs, ...]) -> Any:
            operands = [operand for group in groups for operand in group]
            key = (function, len(operands))
            if key not in self._counts:
                self._counts[key] = self._count_activations(function, groups)
            sources = len(operands) + self._counts[key]
            variances = np.ones((sources, *operands[0].shape))
            stepped = []
            for index, operand in enumerate(operands):
                variances[index] = operand.imag
                copies = np.repeat(operand.real[None].astype(complex), sources, 0)
                copies[index].imag = STEP
                stepped.append(copies)
            self._first_activation, self._activations = len(operands), 0
            remaining = iter(stepped)
            results = function(*(tuple(next(remaining) for _ in group) for group in groups))
            return _mapped(lambda r: with_variance(r[0].real, ((r.imag / STEP) ** 2 * variances).sum(0)), results)

        return propagated

    def _count_activations(self, function: Callable[..., Any], groups: tuple[tuple[Pairs, ...], ...]) -> int:
        self._first_activation, self._activations = 1, 0  # an index that does not exist
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
        """Accept all arrays: complex arrays do not have the dtype of the spec, and only this module creates them."""


class WithVariances:
    """The reference as a backend on values with variances; arguments are exact.

    ``repeats``, ``accumulation`` and ``smallest`` are those of ``noisy``.
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


_BOUNDS = np.geomspace(0.01, 40, 2**17)
"""What the median is one of, in units of the largest standard deviation."""


def median_largest(variances: np.ndarray, draws: int) -> float:
    """The median of the largest magnitude among ``draws`` independent normal numbers for each variance."""
    deviations = np.sqrt(variances[variances > 0])
    if not deviations.size:
        return 0.0
    top = deviations.max()
    counts, edges = np.histogram(np.log(deviations / top), bins=400, range=(-4.0, 0.0))  # smaller ones never give the maximum
    counts, levels = counts[counts > 0], np.exp(edges[1:][counts > 0])
    arguments, logarithms = _log_erf()

    def excess(place: int) -> float:
        scaled = _BOUNDS[place] / levels / math.sqrt(2)
        return draws * float(np.sum(counts * np.interp(scaled, arguments, logarithms))) + math.log(2)

    return float(top * _BOUNDS[bisect.bisect_left(range(len(_BOUNDS)), 0, key=excess)])


@functools.cache
def _log_erf() -> tuple[np.ndarray, np.ndarray]:
    """Arguments and the logarithm of the error function; scipy's takes longer to import than a small check to run."""
    arguments = np.geomspace(_BOUNDS[0] / 2, 6, 2**12)
    return arguments, np.log([math.erf(argument) for argument in arguments])
