"""Matrix products with a packed operand.

A packed K x N matrix consists of panels as wide as a tile, each stored row by row.  N is padded with zeros to whole vectors,
and the last panel may be narrower.  The other operand may have any strides.  For bfloat16, two rows become one: an element is
a pair, and K is padded with zeros to whole pairs (``bfloat16``).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import register_jitable

from rnnbench.impls.numba_cpu.bfloat16 import STORED, computed, packer_of_pairs, pairs_of_rows, rows_in_pairs
from rnnbench.impls.numba_cpu.binding import bound, named, variant
from rnnbench.impls.numba_cpu.microkernel import tiles
from rnnbench.jit.compiler import external
from rnnbench.jit.target import Target
from rnnbench.networks.bfloat16 import is_bfloat16

WIDTH: int
LANES: int
SIZE: int
OF_FULL: int
OF_NARROW: int
run_tile: Callable[..., None]

_Four = tuple[Callable[..., None], Callable[..., None], Callable[..., None], Callable[..., None]]


class Products(NamedTuple):
    """Functions for compiled code, for one dtype and target; matrices are two-dimensional arrays with contiguous rows.

    ``plus_row(a, packed, row, out, terms, room)``: out = row + a[:, :terms] @ packed, ``row`` as wide as out
    ``added(a, packed, out, terms, room)``: out += a[:, :terms] @ packed
    ``plus_row_transposed(a, first, packed, row, out, terms, room)``: out = row + part.T @ packed, where part is
    a[:terms, first : first + len(out)]
    ``added_transposed(a, first, packed, out, terms, room)``: out += part.T @ packed
    ``pack(source, columns, packed)``: pack source[:, :columns]; rows of source are the K axis

    ``room``: scratch memory of ``buffer_size`` elements for the operand of a bfloat16 product; unused for other dtypes.
    """

    plus_row: Callable[..., None]
    added: Callable[..., None]
    plus_row_transposed: Callable[..., None]
    added_transposed: Callable[..., None]
    pack: Callable[..., None]


@functools.cache
def products(dtype: np.dtype, target: Target) -> Products:
    compiled = _compiled_product(dtype, target)
    of_operands = (_of_pairs if is_bfloat16(dtype) else _of_elements)(compiled, dtype)
    return Products(*(named(function, variant(dtype, target)) for function in (*of_operands, _packer(dtype, target))))


def _compiled_product(dtype: np.dtype, target: Target) -> Callable[..., None]:
    """``product`` as a symbol that kernels link: none of them compiles the tiles again."""
    real = computed(dtype)
    most_rows = {vectors: target.rows(vectors) for vectors in range(target.vectors, 0, -1)}
    names = {
        "WIDTH": target.vectors * target.lanes(real),
        "LANES": target.lanes(real),
        "SIZE": real.itemsize,
        "OF_FULL": most_rows[target.vectors],
        "OF_NARROW": target.rows(target.vectors - 1),
        "run_tile": named(tiles(real, target, most_rows, pairs=is_bfloat16(dtype)), variant(dtype, target)),
    }
    signature = types.void(*(types.intp,) * 11)
    return external(bound(product, variant(dtype, target), names), signature, error_model="numpy")


def product(a, a_row, a_k, packed, c, c_row, out, out_row, height, total, terms):
    """out (height, total) = c + a @ packed; addresses and strides are in bytes, ``total`` is a multiple of the lanes."""
    for first in range(0, total, WIDTH):
        columns = min(WIDTH, total - first)
        most = OF_FULL if columns == WIDTH else OF_NARROW
        count = (height + most - 1) // most
        panel, offset = packed + first * terms * SIZE, first * SIZE
        row = 0
        for tile in range(count):
            rows = (height - row + count - tile - 1) // (count - tile)  # tiles of nearly equal height
            run_tile(
                rows, columns // LANES, a + row * a_row, a_row, a_k, panel, columns * SIZE,
                c + row * c_row + offset, c_row, out + row * out_row + offset, out_row, terms,
            )  # fmt: skip
            row += rows


# Numba copies these into their callers before it infers types: compiled by themselves, each would be optimised together with
# all tiles.  All integers that ``product`` gets are of one type, so that it is compiled once.
_inlined = njit(nogil=True, error_model="numpy", inline="always")


def _of_elements(product: Callable[..., None], dtype: np.dtype) -> _Four:
    size, none, integer = np.intp(dtype.itemsize), np.intp(0), np.intp

    @_inlined
    def plus_row(a, packed, row, out, terms, room):
        product(
            integer(a.ctypes.data), a.strides[0], size, integer(packed.ctypes.data), integer(row.ctypes.data), none,
            integer(out.ctypes.data), out.strides[0], a.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @_inlined
    def added(a, packed, out, terms, room):
        product(
            integer(a.ctypes.data), a.strides[0], size, integer(packed.ctypes.data), integer(out.ctypes.data), out.strides[0],
            integer(out.ctypes.data), out.strides[0], a.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @_inlined
    def plus_row_transposed(a, first, packed, row, out, terms, room):
        product(
            integer(a.ctypes.data) + first * size, size, a.strides[0], integer(packed.ctypes.data), integer(row.ctypes.data),
            none, integer(out.ctypes.data), out.strides[0], out.shape[0], out.shape[1], terms,
        )  # fmt: skip

    @_inlined
    def added_transposed(a, first, packed, out, terms, room):
        product(
            integer(a.ctypes.data) + first * size, size, a.strides[0], integer(packed.ctypes.data),
            integer(out.ctypes.data), out.strides[0],
            integer(out.ctypes.data), out.strides[0], out.shape[0], out.shape[1], terms,
        )  # fmt: skip

    return plus_row, added, plus_row_transposed, added_transposed


def _of_pairs(product: Callable[..., None], dtype: np.dtype) -> _Four:
    size = 2 * dtype.itemsize

    @register_jitable
    def plus_row(a, packed, row, out, terms, room):
        rows_in_pairs(a, terms, room)
        pairs = (terms + 1) // 2
        product(
            room.ctypes.data, pairs * size, size, packed.ctypes.data, row.ctypes.data, 0,
            out.ctypes.data, out.strides[0], a.shape[0], out.shape[1], pairs,
        )  # fmt: skip

    @register_jitable
    def added(a, packed, out, terms, room):
        rows_in_pairs(a, terms, room)
        pairs = (terms + 1) // 2
        product(
            room.ctypes.data, pairs * size, size, packed.ctypes.data, out.ctypes.data, out.strides[0],
            out.ctypes.data, out.strides[0], a.shape[0], out.shape[1], pairs,
        )  # fmt: skip

    @register_jitable
    def plus_row_transposed(a, first, packed, row, out, terms, room):
        pairs_of_rows(a, terms, first, out.shape[0], room)
        product(
            room.ctypes.data, size, out.shape[0] * size, packed.ctypes.data, row.ctypes.data, 0,
            out.ctypes.data, out.strides[0], out.shape[0], out.shape[1], (terms + 1) // 2,
        )  # fmt: skip

    @register_jitable
    def added_transposed(a, first, packed, out, terms, room):
        pairs_of_rows(a, terms, first, out.shape[0], room)
        product(
            room.ctypes.data, size, out.shape[0] * size, packed.ctypes.data, out.ctypes.data, out.strides[0],
            out.ctypes.data, out.strides[0], out.shape[0], out.shape[1], (terms + 1) // 2,
        )  # fmt: skip

    return plus_row, added, plus_row_transposed, added_transposed


def _packer(dtype: np.dtype, target: Target) -> Callable[..., None]:
    lanes = target.lanes(computed(dtype))
    width, zero = target.vectors * lanes, computed(dtype).type(0)
    if is_bfloat16(dtype):
        return packer_of_pairs(width, lanes)

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

    return pack


def _side(dtype: np.dtype) -> int:
    """Number of rows joined into one packed row."""
    return 2 if is_bfloat16(dtype) else 1


def rounded_up(size: int, lanes: int) -> int:
    """``size`` rounded up to whole vectors of ``lanes`` elements."""
    return -(-size // lanes) * lanes


def packed_size(dtype: np.dtype, target: Target, rows: int, columns: int) -> int:
    """Number of elements of ``storage(dtype)`` in a packed matrix."""
    return rounded_up(rows, _side(dtype)) * rounded_up(columns, target.lanes(computed(dtype)))


def buffer_size(dtype: np.dtype, *operands: tuple[int, int]) -> int:
    """Number of elements of ``room`` that the largest of some products needs; each is given as (rows of out, terms)."""
    if not is_bfloat16(dtype):
        return 0
    return max(rows * rounded_up(terms, 2) for rows, terms in operands)


def packed(matrix: np.ndarray, target: Target) -> np.ndarray:
    """``Products.pack`` of a (K, N) matrix in NumPy, to be read and compared with."""
    (rows, columns), side = matrix.shape, _side(matrix.dtype)
    width, lanes = target.vectors * target.lanes(computed(matrix.dtype)), target.lanes(computed(matrix.dtype))
    source = matrix.view(STORED) if side > 1 else matrix
    out = np.zeros(packed_size(matrix.dtype, target, rows, columns), source.dtype)
    height, place = rounded_up(rows, side), 0
    for first in range(0, columns, width):
        given = min(width, columns - first)
        whole = rounded_up(given, lanes)
        panel = out[place : place + height * whole].reshape(height // side, whole, side)
        for k in range(side):
            panel[: (rows - k + side - 1) // side, :given, k] = source[k::side, first : first + given]
        place += height * whole
    return out
