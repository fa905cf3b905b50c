"""bfloat16 for compiled code: the upper half of a float32, stored in arrays of uint16, and paired operands of products.

Everything is computed in float32.  Arrays of the caller and operands of products have 16 bits; rounding is to nearest, ties
to even.  Operands are stored in pairs along the summed axis, as the processor's dot product instruction expects; an odd axis
is padded with a zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rnnbench.networks.bfloat16 import is_bfloat16

STORED = np.dtype(np.uint16)
"""dtype of the bits of a bfloat16; arrays of ml_dtypes' bfloat16 can be viewed as it."""

_INT, _HALF, _REAL = ir.IntType(32), ir.IntType(16), ir.FloatType()


def storage(dtype: np.dtype) -> np.dtype:
    """dtype of the arrays that compiled code receives for arrays of ``dtype``."""
    return STORED if is_bfloat16(dtype) else dtype


def computed(dtype: np.dtype) -> np.dtype:
    """dtype in which networks of ``dtype`` compute."""
    return np.dtype(np.float32) if is_bfloat16(dtype) else dtype


def widened(builder: Any, bits: Any) -> Any:
    """LLVM: the 16 bits of a bfloat16 as a float."""
    return builder.bitcast(builder.shl(builder.zext(bits, _INT), ir.Constant(_INT, 16)), _REAL)


def narrowed(builder: Any, value: Any) -> Any:
    """LLVM: the 16 bits of the bfloat16 nearest to a float; NaN keeps its sign."""
    bits = builder.bitcast(value, _INT)
    upper = builder.lshr(bits, ir.Constant(_INT, 16))
    odd = builder.and_(upper, ir.Constant(_INT, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, ir.Constant(_INT, 0x7FFF))), ir.Constant(_INT, 16))
    quiet = builder.or_(upper, ir.Constant(_INT, 0x40))
    return builder.trunc(builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded), _HALF)


@intrinsic
def _bits(typing_context: Any, value: Any) -> Any:
    """The stored form of a float32; a stored number is returned unchanged."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return narrowed(builder, arguments[0]) if value == types.float32 else arguments[0]

    return types.uint16(value), codegen


@njit(nogil=True, error_model="numpy")
def rows_in_pairs(a, terms, room):
    """Write a[:, :terms], rounded, to ``room``, with rows padded to an even number of elements."""
    width = (terms + 1) // 2 * 2
    for i in range(a.shape[0]):
        line, out = a[i], room[i * width : (i + 1) * width]
        for k in range(terms):
            out[k] = _bits(line[k])  # pyright: ignore[reportCallIssue]  # an intrinsic has no context to be given
        if terms < width:
            out[terms] = 0


@intrinsic
def _pair(typing_context: Any, first: Any, second: Any) -> Any:
    """Join two numbers into a pair; float32 is rounded, stored numbers are taken as they are."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lower, upper = (narrowed(builder, value) if first == types.float32 else value for value in arguments)
        return builder.or_(builder.zext(lower, _INT), builder.shl(builder.zext(upper, _INT), ir.Constant(_INT, 16)))

    return types.uint32(first, first), codegen


@njit(nogil=True, error_model="numpy")
def pairs_of_rows(a, rows, first, columns, room):
    """Write a[:rows, first : first + columns], rounded, to ``room``; each two rows become one row of pairs."""
    pairs = room.view(np.uint32)
    for k in range((rows + 1) // 2):
        _join(a, 2 * k, rows, first, columns, pairs[k * columns : (k + 1) * columns])


@njit(nogil=True, error_model="numpy")
def _join(a, row, rows, first, count, out):
    """out = pairs of a[row] and the next row (zeros beyond ``rows``), in columns from ``first`` on."""
    upper = a[row]
    if row + 1 < rows:
        lower = a[row + 1]
        for j in range(count):
            out[j] = _pair(upper[first + j], lower[first + j])  # pyright: ignore[reportCallIssue]
    else:
        for j in range(count):
            out[j] = _bits(upper[first + j])  # pyright: ignore[reportCallIssue]


def packer_of_pairs(width: int, lanes: int) -> Callable[..., None]:
    """``Products.pack`` for panels of ``width`` elements and vectors of ``lanes`` pairs."""

    @njit(nogil=True, error_model="numpy")
    def pack(source, columns, packed):
        rows, pairs = source.shape[0], packed.view(np.uint32)
        place = 0
        for first in range(0, columns, width):
            given = min(width, columns - first)
            whole = (given + lanes - 1) // lanes * lanes
            for row in range(0, rows, 2):
                _join(source, row, rows, first, given, pairs[place : place + given])
                pairs[place + given : place + whole] = 0
                place += whole

    return pack
