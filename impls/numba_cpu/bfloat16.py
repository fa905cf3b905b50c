"""bfloat16 for compiled code: the upper half of a float32, in arrays of uint16, and the operands of products in pairs.

Everything is computed in float32.  What enters and leaves the package has 16 bits, and so have the operands of products,
which are rounded on their way: to the nearest, halves to even.  Two numbers that follow each other along the axis that is
summed over lie side by side, as the processor's dot product wants them; that axis is made even by a zero.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from rnnbench.networks.spec import BFLOAT16

STORED = np.dtype(np.uint16)
"""The bits of a bfloat16, which NumPy's own type for it can be viewed as."""

_INT, _HALF, _REAL = ir.IntType(32), ir.IntType(16), ir.FloatType()


def storage(dtype: np.dtype) -> np.dtype:
    """The type of the arrays that compiled code is given for those of ``dtype``."""
    return STORED if dtype == BFLOAT16 else dtype


def computed(dtype: np.dtype) -> np.dtype:
    """What is computed in."""
    return np.dtype(np.float32) if dtype == BFLOAT16 else dtype


def widened(builder: Any, bits: Any) -> Any:
    """LLVM's float of 16 bits."""
    return builder.bitcast(builder.shl(builder.zext(bits, _INT), ir.Constant(_INT, 16)), _REAL)


def narrowed(builder: Any, value: Any) -> Any:
    """The 16 bits of the bfloat16 nearest to LLVM's float; NaN keeps its sign."""
    bits = builder.bitcast(value, _INT)
    upper = builder.lshr(bits, ir.Constant(_INT, 16))
    odd = builder.and_(upper, ir.Constant(_INT, 1))
    rounded = builder.lshr(builder.add(bits, builder.add(odd, ir.Constant(_INT, 0x7FFF))), ir.Constant(_INT, 16))
    quiet = builder.or_(upper, ir.Constant(_INT, 0x40))
    return builder.trunc(builder.select(builder.fcmp_unordered("uno", value, value), quiet, rounded), _HALF)


@intrinsic
def _bits(typing_context: Any, value: Any) -> Any:
    """The stored form of a float32; stored numbers are what they are."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return narrowed(builder, arguments[0]) if value == types.float32 else arguments[0]

    return types.uint16(value), codegen


@njit(nogil=True, error_model="numpy")
def rows_in_pairs(a, terms, room):
    """Pairs of a's columns: a[:, :terms], rounded, in rows of an even number of elements."""
    width = (terms + 1) // 2 * 2
    for i in range(a.shape[0]):
        line, out = a[i], room[i * width : (i + 1) * width]
        for k in range(terms):
            out[k] = _bits(line[k])  # pyright: ignore[reportCallIssue]  # an intrinsic has no context to be given
        if terms < width:
            out[terms] = 0


@intrinsic
def _pair(typing_context: Any, first: Any, second: Any) -> Any:
    """Two numbers side by side, each a float32 that is rounded, or a stored one."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        lower, upper = (narrowed(builder, value) if first == types.float32 else value for value in arguments)
        return builder.or_(builder.zext(lower, _INT), builder.shl(builder.zext(upper, _INT), ir.Constant(_INT, 16)))

    return types.uint32(first, first), codegen


@njit(nogil=True, error_model="numpy")
def pairs_of_rows(a, rows, first, columns, room):
    """Pairs of a's rows: a[:rows, first : first + columns], rounded, each pair of rows one row of pairs."""
    pairs = room.view(np.uint32)
    for k in range((rows + 1) // 2):
        _join(a, 2 * k, rows, first, columns, pairs[k * columns : (k + 1) * columns])


@njit(nogil=True, error_model="numpy")
def _join(a, row, rows, first, count, out):
    """out = pairs of a[row] and the next one, or zeros where that is not below ``rows``, in columns from ``first`` on."""
    upper = a[row]
    if row + 1 < rows:
        lower = a[row + 1]
        for j in range(count):
            out[j] = _pair(upper[first + j], lower[first + j])  # pyright: ignore[reportCallIssue]
    else:
        for j in range(count):
            out[j] = _bits(upper[first + j])  # pyright: ignore[reportCallIssue]


def packer_of_pairs(width: int, lanes: int) -> Callable[..., None]:
    """``Products.pack`` for panels of that width and vectors of so many pairs."""

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
