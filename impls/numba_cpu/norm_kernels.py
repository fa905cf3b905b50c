"""Layer normalisation of one row, and its derivative.

``compile`` binds the free names below to one dtype.  ``moments`` (2,) are the mean and the scale of a row v.  Sums over a row
may be added in any order, so that they become vectors; the order is the same in every call.
"""

from collections.abc import Callable
from typing import Any

from rnnbench.impls.numba_cpu.noalias import load, storer

store_first, store_second, store_third = storer(0), storer(1), storer(2)

squared: Callable[..., Any]
scale_of: Callable[..., Any]
standardised: Callable[..., Any]
result: Callable[..., Any]
weighed: Callable[..., Any]
derivative: Callable[..., Any]
row_mean: Callable[..., Any]
row_variance: Callable[..., Any]
means_of_weighed: Callable[..., Any]
real: Callable[..., Any]
ZERO: Any


def mean_of(v):
    total = ZERO
    for u in range(v.size):
        total += v[u]
    return total / real(v.size)


def variance_of(v, mean):
    total = ZERO
    for u in range(v.size):
        total += squared(v[u], mean)
    return total / real(v.size)


def means_backward(dy, v, mean, scale, gain):
    """The two means that the derivative needs."""
    total, total_of_products = ZERO, ZERO
    for u in range(v.size):
        g, gx = weighed(dy[u], standardised(v[u], mean, scale), gain[u])
        total += g
        total_of_products += gx
    return total / real(v.size), total_of_products / real(v.size)


def normalised(v, gain, bias, moments, out):
    """Fill out and ``moments``; out and the others may be longer than v."""
    mean = row_mean(v)
    scale = scale_of(row_variance(v, mean))
    moments[0], moments[1] = mean, scale
    for u in range(v.size):
        store_first(out, u, result(standardised(load(v, u), mean, scale), load(gain, u), load(bias, u)))


def normalised_backward(dy, v, gain, moments, dgain, dbias):
    """Replace dy by the cotangent of v; each element is read before it is written.  Add to dgain and dbias."""
    mean, scale = moments[0], moments[1]
    mean_g, mean_gx = means_of_weighed(dy, v, mean, scale, gain)
    for u in range(v.size):
        d, x = load(dy, u), standardised(load(v, u), mean, scale)
        store_first(dy, u, derivative(d, x, load(gain, u), scale, mean_g, mean_gx))
        store_second(dgain, u, load(dgain, u) + d * x)
        store_third(dbias, u, load(dbias, u) + d)
