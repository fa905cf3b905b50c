"""Device functions with which the threads of a cluster share a product: fetch the weights, multiply, send what came out."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.types import int64, uint32

from rnnbench.impls.numba_cuda.intrinsics import load_quads, peer_address, row_product, shared_address, store_peer
from rnnbench.impls.numba_cuda.layout import WARP, Place, Shape

DeviceFunction = Any

_WHOLE_WARP = 0xFFFFFFFF


class Sharing(NamedTuple):
    """What threads do for one product.

    ``fetch(packed, rank, shared)``: the weights that this thread keeps; ``multiply(weights, shared, buffer)``: the sums of
    the batch row that is this lane's own, lane b having row b; ``send(shared, buffer, position, valid, values)``: the
    value of every row to the operand of every block of the cluster, entry g at ``position + g * stride``.
    """

    fetch: DeviceFunction
    multiply: DeviceFunction
    send: DeviceFunction


def sharing(place: Place, shape: Shape, stride: int) -> Sharing:
    """Device functions of one product; the buffers of its operand begin ``rows * padded`` elements apart."""
    product, lanes, rows, threads, blocks = place.product, shape.lanes, shape.rows, shape.threads, shape.blocks
    gates, padded, operand, more = product.gates, place.padded, place.operand, place.weights
    kept = place.resident * gates * threads * 4
    whole = place.quads * gates * threads * 4
    rounds = -(-blocks // lanes)
    load, row = (
        load_quads(place.resident * gates, 4 * threads),
        row_product(gates, place.quads, place.resident, lanes, 4 * threads),
    )
    nothing = (np.float32(0),) * gates

    @cuda.jit(device=True, forceinline=True)
    def fetch(packed, rank, shared):
        tid = int64(cuda.threadIdx.x)
        first = rank * whole
        for i in range(tid, whole - kept, threads):
            shared[more + i] = packed[first + kept + i]
        return load(packed, first + 4 * tid)

    @cuda.jit(device=True, forceinline=True)
    def multiply(weights, shared, buffer):
        tid = int64(cuda.threadIdx.x)
        lane = tid % lanes
        mine = nothing
        for b in range(rows):
            sums = row(weights, shared, operand + (buffer * rows + b) * padded + 4 * lane, more + 4 * tid)
            if lane == b:
                mine = sums
        return mine

    @cuda.jit(device=True, forceinline=True)
    def send_one(shared, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        first = cuda.threadIdx.x % WARP - lane
        for b in range(rows):
            shown = cuda.shfl_sync(_WHOLE_WARP, value, first + b)
            here = shared_address(shared, operand + (buffer * rows + b) * padded + position)
            for p in range(rounds):
                rank = p * lanes + lane
                if valid and rank < blocks:
                    store_peer(peer_address(here, uint32(rank)), shown)

    return Sharing(fetch, multiply, _send(send_one, stride))


def _send(one: DeviceFunction, stride: int) -> Any:
    """By how many entries a tuple has: a device function that sends them all."""

    def sending(count: int) -> DeviceFunction:
        if count == 0:

            @cuda.jit(device=True, forceinline=True)
            def nothing(shared, buffer, position, valid, values):
                pass

            return nothing
        before, last = sending(count - 1), count - 1
        offset = last * stride

        @cuda.jit(device=True, forceinline=True)
        def send(shared, buffer, position, valid, values):
            before(shared, buffer, position, valid, values)
            one(shared, buffer, position + offset, valid, values[last])

        return send

    return sending
