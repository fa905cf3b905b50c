"""Layer normalisation of the values v of a row.  Ba, Kiros and Hinton 2016, "Layer normalization"; torch.nn.LayerNorm.

    y = gain x + bias    x = (v - mean(v)) scale    scale = 1 / sqrt(mean((v - mean(v))^2) + EPSILON)

Its derivative, with g = gain dy:

    dv = scale (g - mean(g) - x mean(g x))    dgain = sum of dy x, dbias = sum of dy, over the rows

Platforms take the means, which are over all values of a row.  What is elementwise is written here, for NumPy and JAX arrays
and for Numba scalars.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

EPSILON = 1e-5

Function = Callable[..., Any]


class LayerNorm(NamedTuple):
    """The elementwise functions; ``weighed(dy, x, gain)`` returns the two values whose means ``derivative`` needs."""

    squared: Function
    scale: Function
    standardised: Function
    result: Function
    weighed: Function
    derivative: Function


def layer_norm(sqrt: Function, real: Callable[[float], Any] = float) -> LayerNorm:
    """The functions with a platform's square root and its type of constants: Numba would widen float32 with others."""
    one, epsilon = real(1), real(EPSILON)

    def squared(v, mean):
        deviation = v - mean
        return deviation * deviation

    def scale(variance):
        return one / sqrt(variance + epsilon)

    def standardised(v, mean, scale):
        return (v - mean) * scale

    def result(x, gain, bias):
        return gain * x + bias

    def weighed(dy, x, gain):
        g = gain * dy
        return g, g * x

    def derivative(dy, x, gain, scale, mean_g, mean_gx):
        return scale * (gain * dy - mean_g - x * mean_gx)

    return LayerNorm(squared, scale, standardised, result, weighed, derivative)
