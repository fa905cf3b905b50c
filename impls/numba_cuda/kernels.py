"""Kernels that know no cell: the matrix product, copies, sums and fills."""

# numba-cuda declares cuda.grid as its compiler calls it:
# pyright: reportCallIssue=false

from typing import Any, NamedTuple

from numba import config, cuda

# Numba warns about every grid of fewer than 128 blocks; one time step of a small network is no larger.
config.CUDA_LOW_OCCUPANCY_WARNINGS = 0  # pyright: ignore[reportAttributeAccessIssue]


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
        """The elements in a range of rows and of columns, as a view."""
        top, bottom, _ = rows.indices(self.rows)
        left, right, _ = columns.indices(self.columns)
        first = self.first + top * self.row_stride + left * self.column_stride
        return self._replace(first=first, rows=bottom - top, columns=right - left)

    def repeated(self, rows: int) -> "Matrix":
        """The one row of this matrix, as all of ``rows`` rows."""
        return self._replace(rows=rows, row_stride=0)

    def values(self, units: int) -> "Values":
        """The columns as groups of ``units``, one group per value (gate, saved value)."""
        return Values(self.array, self.first, self.row_stride, units)


class Values(NamedTuple):
    """Several values per hidden unit in a flat device array: value k of unit j in batch row i is
    ``array[first + i * row_stride + k * value_stride + j]``."""

    array: Any
    first: int
    row_stride: int
    value_stride: int


def matrix(array: Any, rows: int, columns: int) -> Matrix:
    """A flat array of rows * columns elements in C order."""
    return Matrix(array, 0, rows, columns, columns, 1)


def constant(array: Any, rows: int, columns: int) -> Matrix:
    """A matrix whose elements are all the one element of ``array``."""
    return Matrix(array, 0, rows, columns, 0, 0)


@cuda.jit
def product(out, start, a, b):
    index = cuda.grid(1)
    if index < out.rows * out.columns:
        i = index // out.columns
        j = index - i * out.columns
        total = start.array[start.first + i * start.row_stride + j * start.column_stride]
        for k in range(a.columns):
            left = a.array[a.first + i * a.row_stride + k * a.column_stride]
            total += left * b.array[b.first + k * b.row_stride + j * b.column_stride]
        out.array[out.first + i * out.row_stride + j * out.column_stride] = total


@cuda.jit
def fill(out, value):
    """out (n,) = value"""
    index = cuda.grid(1)
    if index < len(out):
        out[index] = value


@cuda.jit
def copy_elements(out, source):
    """out (n,) = source (n,), rounded to the dtype of ``out``"""
    index = cuda.grid(1)
    if index < len(out):
        out[index] = source[index]


@cuda.jit
def plus(out, a, b):
    """out (n,) = a (n,) + b (n,); ``out`` may be ``a``."""
    index = cuda.grid(1)
    if index < len(out):
        out[index] = a[index] + b[index]


@cuda.jit
def copy(out, source, first, row_stride):
    """Copy source (P, Q, R), of any strides: (p, q, r) goes to ``out[first + p * row_stride + q * R + r]``."""
    index = cuda.grid(1)
    middle, inner = source.shape[1], source.shape[2]
    if index < source.shape[0] * middle * inner:
        row = index // inner
        r = index - row * inner
        p = row // middle
        q = row - p * middle
        out[first + p * row_stride + q * inner + r] = source[p, q, r]
