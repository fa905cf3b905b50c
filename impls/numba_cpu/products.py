"""Matrix products with a packed operand.

Packed K x N elements lie in panels of a tile's width, one panel after the other, the rows of a panel one after the
other; N is rounded up to whole vectors by zeros, and the last panel may be narrower.  The other operand has any strides.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numba.extending import register_jitable

from rnnbench.impls.numba_cpu.microkernel import tiles
from rnnbench.impls.numba_cpu.target import Target

BLOCK = 16
"""Rows and columns that are transposed together: as many cache lines as the first level holds easily."""


class Products(NamedTuple):
    """Functions for compiled code, for one dtype and target; matrices are two-dimensional arrays with contiguous rows.

    ``plus_row(a, packed, row, out, terms)``: out = row + a[:, :terms] @ packed, ``row`` as wide as out
    ``added(a, packed, out, terms)``: out += a[:, :terms] @ packed
    ``added_transposed(a, packed, out, terms)``: out += a.T @ packed, where a has so many rows
    ``pack(source, columns, packed)``: pack source[:, :columns]; rows of source are the K axis
    ``transposed(source, out)``: out = source[:, : len(out)].T
    """

    plus_row: Callable[..., None]
    added: Callable[..., None]
    added_transposed: Callable[..., None]
    pack: Callable[..., None]
    transposed: Callable[..., None]


@functools.cache
def products(dtype: np.dtype, target: Target) -> Products:
    lanes, size = target.lanes(dtype), dtype.itemsize
    width, zero = target.vectors * lanes, dtype.type(0)
    most_rows = {vectors: target.rows(vectors) for vectors in range(target.vectors, 0, -1)}
    of_full, of_narrow = most_rows[target.vectors], target.rows(target.vectors - 1)
    run_tile = tiles(dtype, lanes, most_rows)

    @njit(nogil=True, error_model="numpy")
    def product(a, a_row, a_k, packed, c, c_row, out, out_row, height, total, terms):
        """out (height, total) = c + a @ packed; addresses and strides in bytes, ``total`` a multiple of the lanes."""
        for first in range(0, total, width):
            columns = min(width, total - first)
            most = of_full if columns == width else of_narrow
            count = (height + most - 1) // most
            panel, offset = packed + first * terms * size, first * size
            row = 0
            for tile in range(count):
                rows = (height - row + count - tile - 1) // (count - tile)  # as even as they can be
                run_tile(
                    rows, columns // lanes, a + row * a_row, a_row, a_k, panel, columns * size,
                    c + row * c_row + offset, c_row, out + row * out_row + offset, out_row, terms,
                )  # fmt: skip
                row += rows

    @register_jitable
    def plus_row(a, packed, row, out, terms):
        product(
            a.ctypes.data, a.strides[0], size, packed.ctypes.data, row.ctypes.data, 0,
            out.ctypes.data, out.strides[0], a.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @register_jitable
    def added(a, packed, out, terms):
        product(
            a.ctypes.data, a.strides[0], size, packed.ctypes.data, out.ctypes.data, out.strides[0],
            out.ctypes.data, out.strides[0], a.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @register_jitable
    def added_transposed(a, packed, out, terms):
        product(
            a.ctypes.data, size, a.strides[0], packed.ctypes.data, out.ctypes.data, out.strides[0],
            out.ctypes.data, out.strides[0], out.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @njit(nogil=True, error_model="numpy")
    def pack(source, columns, packed):
        rows = source.shape[0]
        place = 0
        for first in range(0, columns, width):
            given = min(width, columns - first)
            whole = (given + lanes - 1) // lanes * lanes
            for k in range(rows):
                line = source[k]
                for j in range(given):
                    packed[place + j] = line[first + j]
                for j in range(given, whole):
                    packed[place + j] = zero
                place += whole

    @njit(nogil=True, error_model="numpy")
    def transposed(source, out):
        columns, rows = out.shape
        for first_row in range(0, rows, BLOCK):
            for first in range(0, columns, BLOCK):
                for j in range(first, min(first + BLOCK, columns)):
                    for i in range(first_row, min(first_row + BLOCK, rows)):
                        out[j, i] = source[i, j]

    return Products(plus_row, added, added_transposed, pack, transposed)


def rounded_up(size: int, lanes: int) -> int:
    """The smallest whole number of vectors that holds ``size`` elements, in elements."""
    return -(-size // lanes) * lanes


def packed(matrix: np.ndarray, target: Target) -> np.ndarray:
    """``Products.pack`` of a (K, N) matrix, in NumPy: what is done once for each set of weights."""
    rows, columns = matrix.shape
    lanes = target.lanes(matrix.dtype)
    whole = np.zeros((rows, rounded_up(columns, lanes)), matrix.dtype)
    whole[:, :columns] = matrix
    width = target.vectors * lanes
    panels = [np.ascontiguousarray(whole[:, first : first + width]).ravel() for first in range(0, whole.shape[1], width)]
    return np.concatenate(panels) if panels else np.zeros(0, matrix.dtype)
