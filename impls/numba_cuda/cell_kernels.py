"""Elementwise kernels of every cell, from the equations in ``networks.cells``; one thread per batch row and unit."""

# numba-cuda declares cuda.grid as its compiler calls it:
# pyright: reportCallIssue=false

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numba import cuda

from rnnbench.impls.numba_cuda.intrinsics import reciprocal
from rnnbench.impls.numba_cuda.launching import Kernel
from rnnbench.networks.cells import Activations
from rnnbench.networks.spec import Spec

DeviceFunction = Any


class CellKernels(NamedTuple):
    """The kernels of one cell; ``inner`` and ``inner_backward`` are None for cells with one recurrent product."""

    forward: Kernel
    backward: Kernel
    inner: Kernel | None
    inner_backward: Kernel | None


@lru_cache
def cell_kernels(cell: str, nonlinearity: str, dtype: str) -> CellKernels:
    """The kernels of a cell, shared by all networks of a kind, so that each compiles once per process."""
    return build(Spec(cell, 1, 1, nonlinearity=nonlinearity, dtype=dtype))


def build(spec: Spec) -> CellKernels:
    """New kernels for a spec's cell, nonlinearity and dtype.

    Their operands are ``kernels.Values``; ``rows`` is the batch size B and ``units`` the hidden size H.
    """
    cell, equations = spec.kind, spec.kind.equations(activations(spec.numpy_dtype), spec.nonlinearity)
    gates, carried_count = len(cell.gates), int(cell.carries is not None)
    # for cells that feed back their output, the step's result is h; the output layer turns it into the state
    read_gates, read_outer, read_saved = gather(gates), gather(cell.outer_gates), gather(cell.saved)
    read_carried, read_state, read_inner = gather(carried_count), gather(len(cell.states)), gather(cell.inner_gates)
    write_state, write_saved = scatter(len(cell.states)), scatter(cell.saved)
    write_gates, write_outer, write_inner = scatter(gates), scatter(cell.outer_gates), scatter(cell.inner_gates)
    add_carried = scatter_sum(carried_count)
    forward, backward = cuda.jit(device=True)(equations.forward), cuda.jit(device=True)(equations.backward)

    def cell_forward(a, b, carried, new, saved, rows, units):
        index = cuda.grid(1)
        if index < rows * units:
            i = index // units
            j = index - i * units
            results, kept = forward(read_gates(a, i, j), read_gates(b, i, j), read_carried(carried, i, j))
            write_state(new, i, j, results)
            write_saved(saved, i, j, kept)

    def cell_backward(saved, carried, dnew, dinner, da, db, dcarried, rows, units):
        index = cuda.grid(1)
        if index < rows * units:
            i = index // units
            j = index - i * units
            da_values, db_values, dcarried_values = backward(
                read_saved(saved, i, j), read_carried(carried, i, j), read_state(dnew, i, j), read_inner(dinner, i, j)
            )
            write_gates(da, i, j, da_values)
            write_outer(db, i, j, db_values)
            add_carried(dcarried, i, j, dcarried_values)

    if equations.inner is None or equations.inner_backward is None:
        return CellKernels(Kernel(cell_forward), Kernel(cell_backward), None, None)
    inner, inner_back = cuda.jit(device=True)(equations.inner), cuda.jit(device=True)(equations.inner_backward)

    def cell_inner(a, b, carried, operand, rows, units):
        index = cuda.grid(1)
        if index < rows * units:
            i = index // units
            j = index - i * units
            value = inner(read_outer(a, i, j), read_outer(b, i, j), read_carried(carried, i, j))
            operand.array[operand.first + i * operand.row_stride + j] = value

    def cell_inner_backward(saved, carried, dnew, db_inner, rows, units):
        index = cuda.grid(1)
        if index < rows * units:
            i = index // units
            j = index - i * units
            values = inner_back(read_saved(saved, i, j), read_carried(carried, i, j), read_state(dnew, i, j))
            write_inner(db_inner, i, j, values)

    return CellKernels(*map(Kernel, (cell_forward, cell_backward, cell_inner, cell_inner_backward)))


def activations(dtype: np.dtype) -> Activations:
    """Device functions of one dtype; typed constants, because a literal would promote float32 to float64."""
    zero, one = dtype.type(0), dtype.type(1)
    inverse = reciprocal if dtype == np.float32 else _inverse

    @cuda.jit(device=True)
    def tanh(z):
        return math.tanh(z)

    @cuda.jit(device=True)
    def sigmoid(z):
        # exp of a non-positive number only: no overflow, full relative accuracy in both tails; NaN stays NaN
        small = math.exp(-abs(z))
        return (one if z >= zero else small) * inverse(one + small)

    @cuda.jit(device=True)
    def relu(z):
        return zero if z < zero else z  # NaN is not less than zero and stays

    @cuda.jit(device=True)
    def relu_slope(y):
        return one if y > zero else y  # y is positive, 0, or NaN, which stays

    return Activations(tanh, sigmoid, relu, relu_slope)


@cuda.jit(device=True)
def _inverse(value):
    return np.float64(1) / value


@lru_cache
def gather(count: int) -> DeviceFunction:
    """A device function that reads ``count`` values of a unit into a tuple."""
    if count == 0:

        @cuda.jit(device=True)
        def nothing(values, i, j):
            return ()

        return nothing
    before, last = gather(count - 1), count - 1

    @cuda.jit(device=True)
    def read(values, i, j):
        value = values.array[values.first + i * values.row_stride + last * values.value_stride + j]
        return before(values, i, j) + (value,)  # noqa: RUF005  # Numba concatenates tuples but does not unpack them

    return read


@lru_cache
def scatter(count: int) -> DeviceFunction:
    """A device function that writes the first ``count`` entries of a tuple."""
    if count == 0:
        return _write_nothing()
    before, last = scatter(count - 1), count - 1

    @cuda.jit(device=True)
    def write(values, i, j, entries):
        before(values, i, j, entries)
        values.array[values.first + i * values.row_stride + last * values.value_stride + j] = entries[last]

    return write


@lru_cache
def scatter_sum(count: int) -> DeviceFunction:
    """A device function that adds the first ``count`` entries of a tuple to the stored values."""
    if count == 0:
        return _write_nothing()
    before, last = scatter_sum(count - 1), count - 1

    @cuda.jit(device=True)
    def add(values, i, j, entries):
        before(values, i, j, entries)
        values.array[values.first + i * values.row_stride + last * values.value_stride + j] += entries[last]

    return add


def _write_nothing() -> DeviceFunction:
    @cuda.jit(device=True)
    def nothing(values, i, j, entries):
        pass

    return nothing
