"""Kernels independent of the cell: the matrix product, copies and sums.

Operands may have any dtype; ``number`` is the dtype of the computation, float64 in float64 networks, else float32.
"""

# numba-cuda declares cuda.grid as its compiler calls it:
# pyright: reportCallIssue=false, reportAttributeAccessIssue=false, reportIndexIssue=false

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda import types

from rnnbench.impls.numba_cuda.launching import Kernel


class Matrix(NamedTuple):
    """A matrix in a flat device array: element (i, j) is ``array[first + i * row_stride + j * column_stride]``."""

    array: Any
    first: int
    rows: int
    columns: int
    row_stride: int
    column_stride: int

    @property
    def transposed(self) -> "Matrix":
        return Matrix(self.array, self.first, self.columns, self.rows, self.column_stride, self.row_stride)

    def part(self, rows: slice = slice(None), columns: slice = slice(None)) -> "Matrix":
        """A view of a range of rows and columns."""
        top, bottom, _ = rows.indices(self.rows)
        left, right, _ = columns.indices(self.columns)
        first = self.first + top * self.row_stride + left * self.column_stride
        return Matrix(self.array, first, bottom - top, right - left, self.row_stride, self.column_stride)

    def repeated(self, rows: int) -> "Matrix":
        """This one-row matrix broadcast to ``rows`` rows."""
        return self._replace(rows=rows, row_stride=0)

    def values(self, units: int) -> "Values":
        """The columns as groups of ``units``, one group per gate or saved value."""
        return Values(self.array, self.first, self.row_stride, units)


class Values(NamedTuple):
    """Several values per hidden unit in a flat device array: value k of unit j in batch row i is
    ``array[first + i * row_stride + k * value_stride + j]``."""

    array: Any
    first: int
    row_stride: int
    value_stride: int


class Cube(NamedTuple):
    """Three axes in a flat device array: element (p, q, r) is ``array[first + p * p_stride + q * q_stride + r * r_stride]``."""

    array: Any
    first: int
    p_stride: int
    q_stride: int
    r_stride: int


def matrix(array: Any, rows: int, columns: int, first: int = 0) -> Matrix:
    """A matrix in C order within a flat array."""
    return Matrix(array, first, rows, columns, columns, 1)


def constant(array: Any, rows: int, columns: int) -> Matrix:
    """A matrix that broadcasts the single element of ``array``."""
    return Matrix(array, 0, rows, columns, 0, 0)


@lru_cache
def product_in(dtype: np.dtype) -> Kernel:
    """``product(out, start, a, b)``: out = start + a b, one thread per element, computed in ``dtype``."""
    number: Any = getattr(types, dtype.name)

    def product(out, start, a, b):
        index = cuda.grid(1)
        if index < out.rows * out.columns:
            i = index // out.columns
            j = index - i * out.columns
            total = number(start.array[start.first + i * start.row_stride + j * start.column_stride])
            for k in range(a.columns):
                left = number(a.array[a.first + i * a.row_stride + k * a.column_stride])
                total += left * number(b.array[b.first + k * b.row_stride + j * b.column_stride])
            out.array[out.first + i * out.row_stride + j * out.column_stride] = total

    return Kernel(product)


@lru_cache
def plus_in(dtype: np.dtype) -> Kernel:
    """``plus(out, a, b)``: out = a + b for matrices of one shape, computed in ``dtype``; ``out`` may be ``a``."""
    number: Any = getattr(types, dtype.name)

    def plus(out, a, b):
        index = cuda.grid(1)
        if index < out.rows * out.columns:
            i = index // out.columns
            j = index - i * out.columns
            left = number(a.array[a.first + i * a.row_stride + j * a.column_stride])
            right = number(b.array[b.first + i * b.row_stride + j * b.column_stride])
            out.array[out.first + i * out.row_stride + j * out.column_stride] = left + right

    return Kernel(plus)


def _copy(out, source, p_size, q_size, r_size):
    """Copy every element of a cube, rounded to the dtype of ``out``."""
    index = cuda.grid(1)
    if index < p_size * q_size * r_size:
        row = index // r_size
        r = index - row * r_size
        p = row // q_size
        q = row - p * q_size
        value = source.array[source.first + p * source.p_stride + q * source.q_stride + r * source.r_stride]
        out.array[out.first + p * out.p_stride + q * out.q_stride + r * out.r_stride] = value


copy = Kernel(_copy)
