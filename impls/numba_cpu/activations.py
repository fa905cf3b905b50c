"""tanh, sigmoid, relu and exp for Numba scalars, written so that LLVM vectorises the loops that call them.

They use no branch, no library call and no conversion from float to integer.  All are based on expm1:

    y = n ln 2 + r, |r| <= ln(2)/2        expm1(y) = 2^n expm1(r) + (2^n - 1)
    tanh(x) = expm1(2x) / (expm1(2x) + 2)     sigmoid(x) = 1 / (2 + expm1(-x))

expm1(r) is its Taylor polynomial, up to the degree at which the next term falls below half a unit of roundoff.  Adding and
subtracting 1.5 * 2^(mantissa bits) rounds to the integer n and leaves it in the low bits of the sum; shifted into the
exponent, these bits give 2^n.  NaN passes through r; arguments out of range saturate.
"""

import functools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from rnnbench.impls.numba_cpu.binding import inlined
from rnnbench.networks.cells import Activations

_LN2 = Fraction("0.693147180559945309417232121458176568")


@intrinsic
def _power_of_two(typing_context: Any, shifted: Any) -> Any:
    """2^n as a float of the type of ``shifted`` = n + 1.5 * 2^(mantissa bits), for n in the range of the exponent."""
    widths = {types.float32: (32, 23, 127), types.float64: (64, 52, 1023)}
    if shifted not in widths:
        raise TypingError(f"shifted is {shifted}; expected float32 or float64")
    width, mantissa, bias = widths[shifted]

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        integer = ir.IntType(width)
        bits = builder.bitcast(arguments[0], integer)
        # shifts out the bits of 1.5 * 2^mantissa, and moves those of n into the exponent
        exponent = builder.add(builder.shl(bits, ir.Constant(integer, mantissa)), ir.Constant(integer, bias << mantissa))
        return builder.bitcast(exponent, context.get_value_type(shifted))

    return shifted(shifted), codegen


class _Reduced(NamedTuple):
    """What expm1 and exp have in common.

    ``parts(y)``: 2^n and expm1(r), for y within +-``largest``.
    """

    parts: Callable[..., Any]
    largest: Any


@functools.cache
def _reduced(dtype: np.dtype) -> _Reduced:
    real = dtype.type
    mantissa = np.finfo(dtype).nmant
    log2_e, shift = real(1 / math.log(2)), real(1.5 * 2**mantissa)
    # ln 2 in two parts, the first with few enough bits that its product with any n in range is exact
    bits = mantissa - 11
    ln2_high = real(math.ldexp(math.floor(math.ldexp(math.log(2), bits)), -bits))
    ln2_low = real(_LN2 - Fraction(float(ln2_high)))
    taylor = _polynomial([1 / math.factorial(k) for k in range(1, _degree(dtype) + 1)])

    @inlined(dtype)
    def parts(y):
        shifted = y * log2_e + shift
        n = shifted - shift
        r = (y - n * ln2_high) - n * ln2_low
        return _power_of_two(shifted), r * taylor(r)  # pyright: ignore[reportCallIssue]  # Numba adds the first argument

    return _Reduced(parts, real((np.finfo(dtype).maxexp - 2) * math.log(2)))


@functools.cache
def activations(dtype: np.dtype) -> Activations:
    """Activations for float32 or float64 scalars; all their constants have that type."""
    real = dtype.type
    zero, one, two = real(0), real(1), real(2)
    parts, largest = _reduced(dtype)

    @inlined(dtype)
    def expm1(y):
        y = largest if y > largest else y
        y = -largest if y < -largest else y
        scale, power = parts(y)
        return scale * power + (scale - one)

    @inlined(dtype)
    def tanh(x):
        e = expm1(x + x)
        return e / (e + two)

    @inlined(dtype)
    def sigmoid(x):
        return one / (two + expm1(-x))

    @inlined(dtype)
    def relu(x):
        return zero if x < zero else x

    @inlined(dtype)
    def relu_slope(h):
        return one if h > zero else h

    return Activations(tanh, sigmoid, relu, relu_slope)


@functools.cache
def exponential(dtype: np.dtype) -> Callable[..., Any]:
    """exp(y) for float32 or float64 scalars y <= 0; 0 where it is below 4 times the smallest normal number."""
    zero = dtype.type(0)
    parts, largest = _reduced(dtype)

    @inlined(dtype)
    def exp(y):
        low = y < -largest
        scale, power = parts(-largest if low else y)
        return zero if low else scale * power + scale

    return exp


def _degree(dtype: np.dtype) -> int:
    """Degree of the Taylor polynomial of expm1 whose first omitted term is below half a unit of roundoff."""
    degree = 1
    while (math.log(2) / 2) ** degree / math.factorial(degree + 1) > np.finfo(dtype).eps / 4:
        degree += 1
    return degree


def _polynomial(coefficients: list[float]) -> Any:
    """The polynomial with these coefficients, lowest first, as an unrolled function."""

    @intrinsic
    def polynomial(typing_context: Any, r: Any) -> Any:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
            constants = [context.get_constant(r, c) for c in coefficients]
            total = constants[-1]
            for constant in constants[-2::-1]:
                product = builder.fmul(total, arguments[0], flags=("contract",))  # pyright: ignore[reportCallIssue]
                total = builder.fadd(product, constant, flags=("contract",))  # pyright: ignore[reportCallIssue]
            return total

        return r(r), codegen

    return polynomial
