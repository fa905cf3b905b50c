"""Device functions for one product on the tensor cores of a grid, as in ``sharing`` for products by lanes.

All warps of a block multiply the same rows of weights, each by its own part of the operand.  They read the operand from the
mail, where blocks write 16-bit values in the layout of fragments.  The sums of the warps are added up in shared memory.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.types import float32, int64

from rnnbench.impls.numba_cuda.fragments import COLUMNS, LANES, PAIR, QUAD, operand_index, tiles
from rnnbench.impls.numba_cuda.layout import Cores, Shape, Tiles
from rnnbench.impls.numba_cuda.matrix_intrinsics import collect_sums, leave_sums, post_half, tile_product

DeviceFunction = Any

_index: Any = cuda.jit(device=True, forceinline=True)(operand_index)


def multiplying(place: Tiles, shape: Shape, cores: Cores) -> DeviceFunction:
    """``multiply(weights, shared, mail, buffer)``: the sums of this thread's unit and batch row, for all gates."""
    lanes, rows, units = shape.lanes, shape.rows, shape.units
    warps, deep, gates = place.warps, place.deep, place.product.gates
    more, box, size, apart = place.weights, place.mail, place.posted(rows), place.apart
    parts = tiles(rows, COLUMNS)
    product = tile_product(cores.dtype, place.high, deep, place.resident, QUAD * shape.threads)
    leave, total = leave_sums(place.high), collect_sums(gates, units * COLUMNS, warps, parts * apart)
    nothing = (np.float32(0),) * gates

    @cuda.jit(device=True, forceinline=True)
    def multiply(weights, shared, mail, buffer):
        tid = int64(cuda.threadIdx.x)
        warp, lane = tid // LANES, tid % LANES
        for part in range(parts):
            operand = box + buffer * size + ((part * warps + warp) * deep * LANES + lane) * PAIR
            sums = product(weights, shared, mail, operand, more + QUAD * tid)
            leave(shared, (warp * parts + part) * apart + 2 * lane, sums)
        cuda.syncthreads()
        own, row = tid // lanes, tid % lanes
        if own < units and row < rows:
            return total(shared, row // COLUMNS * apart + own * COLUMNS + row % COLUMNS)
        return nothing

    return multiply


def through_mail(place: Tiles, shape: Shape, cores: Cores) -> tuple[DeviceFunction, DeviceFunction]:
    """Exchange by mail: each lane writes its own row; there is nothing to collect, because warps read the mail directly."""
    lanes, rows, box, depth = shape.lanes, shape.rows, place.mail, place.warps * place.deep
    size, post = place.posted(rows), post_half(cores.dtype)

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = int64(cuda.threadIdx.x) % lanes
        if valid and lane < rows:
            post(mail, 2 * (box + buffer * size) + _index(position, lane, depth), value)

    @cuda.jit(device=True, forceinline=True)
    def collect(shared, mail, buffer):
        pass

    return send, collect


def beginning(place: Tiles, shape: Shape, cores: Cores, size: int) -> DeviceFunction:
    """``begin(shared, mail, initial, first_row, batch)``: each block writes its own part of the state to the mail."""
    units, rows, threads, box, depth = shape.units, shape.rows, shape.threads, place.mail, place.warps * place.deep
    post = post_half(cores.dtype)

    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail, initial, first_row, batch):
        for i in range(int64(cuda.threadIdx.x), rows * units, threads):
            b = i // units
            k = cuda.blockIdx.x * units + i - b * units
            if k < size and first_row + b < batch:
                post(mail, 2 * box + _index(k, b, depth), float32(initial[(first_row + b) * size + k]))

    return begin
