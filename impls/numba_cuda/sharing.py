"""Device functions by which the threads of a team divide a product, exchange operands and synchronise."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.types import int64, uint32

from rnnbench.impls.numba_cuda.exchange_intrinsics import (
    await_arrivals,
    cluster_arrive,
    cluster_rank,
    cluster_wait,
    count_arrival,
    load_mail,
    peer_address,
    shared_address,
    store_peer,
    store_quad,
)
from rnnbench.impls.numba_cuda.intrinsics import load_quads, rows_product
from rnnbench.impls.numba_cuda.layout import WARP, Place, Shape, Tiles
from rnnbench.impls.numba_cuda.messages import await_phase, expect_bytes, make_mbarrier, send_message
from rnnbench.impls.numba_cuda.tensor_cores import multiplying, through_mail

DeviceFunction = Any

_WHOLE_WARP = 0xFFFFFFFF

FLOAT_BYTES = 4

TOGETHER = 4
"""Number of batch rows multiplied at a time, with a single read of the weights in shared memory."""


class Barriers(NamedTuple):
    """Device functions that synchronise the blocks of a team; exchange n of operands counts from 0.

    ``rank()``: number of this block in its team.
    ``begin(shared, mail)``: all threads of the team wait for each other, before the first exchange.
    ``ready()``: before sending, all threads of the block have read the previous operands.
    ``arrive(shared, mail, n)``: this block has sent its operands.
    ``wait(shared, mail, n)``: wait for the operands of all blocks.
    ``end()``: after the last exchange.
    """

    rank: DeviceFunction
    begin: DeviceFunction
    ready: DeviceFunction
    arrive: DeviceFunction
    wait: DeviceFunction
    end: DeviceFunction


class Sharing(NamedTuple):
    """Device functions for one product.

    ``fetch(packed, rank, shared)``: load this thread's weights, and return those that it keeps in registers.
    ``multiply(weights, shared, mail, buffer)``: the sums of this lane's batch row; lane b has row b.
    ``send(n)``: for n entries, a function ``(shared, mail, number, buffer, position, valid, values)`` that sends every row's
    values to the operand of every block, entry g to ``position + g * stride``.
    ``collect(shared, mail, buffer)``: after the wait, copy received operands to shared memory where necessary.
    """

    fetch: DeviceFunction
    multiply: DeviceFunction
    send: Any
    collect: DeviceFunction


def barriers(shape: Shape, *places: Place | Tiles) -> Barriers:
    """Synchronisation of a team; ``places`` are the operands of a step's exchanges, in order."""
    if shape.grid:
        return _grid_barrier(shape.blocks)
    if shape.blocks == 1:
        return _block_barrier()
    return _message_barrier(shape, places) if shape.sends_messages else _cluster_barrier()


def sharing(place: Place | Tiles, shape: Shape, stride: int) -> Sharing:
    """Device functions of one product."""
    if isinstance(place, Tiles):
        assert shape.cores is not None
        send, collect = through_mail(place, shape, shape.cores)
        multiply = multiplying(place, shape, shape.cores)
    else:
        send, collect = _exchange(shape)(place, shape)
        multiply = _multiply(place, shape)
    return Sharing(_fetch(place, shape.threads), multiply, _send(send, stride), collect)


def _exchange(shape: Shape) -> Any:
    if shape.grid:
        return _through_mail
    if shape.blocks == 1:
        return _within_block
    return _by_messages if shape.sends_messages else _to_peers


def _fetch(place: Place | Tiles, threads: int) -> DeviceFunction:
    """Load a thread's first quads of weights into registers, the others into shared memory."""
    kept, whole, more = place.kept * threads * 4, place.whole * threads * 4, place.weights
    load = load_quads(place.kept, 4 * threads)

    @cuda.jit(device=True, forceinline=True)
    def fetch(packed, rank, shared):
        tid = int64(cuda.threadIdx.x)
        first = rank * whole
        for i in range(tid, whole - kept, threads):
            shared[more + i] = packed[first + kept + i]
        return load(packed, first + 4 * tid)

    return fetch


def _multiply(place: Place, shape: Shape) -> DeviceFunction:
    """Product of one thread; the operand's buffers are ``rows * padded`` elements apart."""
    lanes, rows, gates, padded = shape.lanes, shape.rows, place.product.gates, place.padded
    operand, more = place.operand, place.weights
    together = min(rows, TOGETHER)
    product = rows_product(gates, place.quads, place.resident, lanes, 4 * shape.threads, together, padded)
    nothing = (np.float32(0),) * gates
    apart = 0 if shape.grid else rows * padded

    @cuda.jit(device=True, forceinline=True)
    def multiply(weights, shared, mail, buffer):
        tid = int64(cuda.threadIdx.x)
        lane = tid % lanes
        mine = nothing
        for part in range(rows // together):
            first = operand + buffer * apart + part * together * padded
            sums = product(weights, shared, first + 4 * lane, more + 4 * tid, lane)
            if lane // together == part:
                mine = sums
        return mine

    return multiply


def clearing(place: Place | Tiles, threads: int) -> DeviceFunction:
    """``clear(shared)``: zero a product's operand, including the padding that quads read; the mail is zero already."""
    if isinstance(place, Tiles):
        return _nothing_to_clear
    first, end = place.operand, place.weights

    @cuda.jit(device=True, forceinline=True)
    def clear(shared):
        for i in range(first + int64(cuda.threadIdx.x), end, threads):
            shared[i] = np.float32(0)

    return clear


@cuda.jit(device=True, forceinline=True)
def _nothing_to_clear(shared):
    pass


def _within_block(place: Place, shape: Shape) -> tuple[DeviceFunction, DeviceFunction]:
    """Exchange within one block: each lane stores its own row; there is nothing to collect."""
    operand, padded, lanes, rows = place.operand, place.padded, shape.lanes, shape.rows

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        if valid and lane < rows:
            shared[operand + (buffer * rows + lane) * padded + position] = value

    return send, _nothing_to_collect


def _to_peers(place: Place, shape: Shape) -> tuple[DeviceFunction, DeviceFunction]:
    """Exchange in a cluster by stores: each lane of a group stores to other blocks; there is nothing to collect."""
    operand, padded, lanes, rows, blocks = place.operand, place.padded, shape.lanes, shape.rows, shape.blocks
    rounds = -(-blocks // lanes)

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        first = cuda.threadIdx.x % WARP - lane
        for b in range(rows):
            shown = cuda.shfl_sync(_WHOLE_WARP, value, first + b)
            here = shared_address(shared, operand + (buffer * rows + b) * padded + position)
            for p in range(rounds):
                rank = p * lanes + lane
                if valid and rank < blocks:
                    store_peer(peer_address(here, uint32(rank)), shown)

    return send, _nothing_to_collect


def _by_messages(place: Place, shape: Shape) -> tuple[DeviceFunction, DeviceFunction]:
    """Exchange in a cluster by messages, counted at the mbarrier of this exchange in the receiving block."""
    operand, padded, lanes, rows, blocks = place.operand, place.padded, shape.lanes, shape.rows, shape.blocks
    rounds = -(-blocks // lanes)

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        first = cuda.threadIdx.x % WARP - lane
        counter = shared_address(shared, number % 2 * 2)
        for b in range(rows):
            shown = cuda.shfl_sync(_WHOLE_WARP, value, first + b)
            here = shared_address(shared, operand + (buffer * rows + b) * padded + position)
            for p in range(rounds):
                rank = p * lanes + lane
                if valid and rank < blocks:
                    send_message(peer_address(here, uint32(rank)), shown, peer_address(counter, uint32(rank)))

    return send, _nothing_to_collect


@cuda.jit(device=True, forceinline=True)
def _nothing_to_collect(shared, mail, buffer):
    pass


def _through_mail(place: Place, shape: Shape) -> tuple[DeviceFunction, DeviceFunction]:
    """Exchange in a grid: each lane writes its own row to the mail; every block copies all rows to shared memory."""
    operand, padded, lanes, rows, threads, box = place.operand, place.padded, shape.lanes, shape.rows, shape.threads, place.mail
    copied = rows * padded
    rounds = copied // (4 * threads)  # known to the compiler, so that all loads are in flight at once

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        if valid and lane < rows:
            mail[box + (buffer * rows + lane) * padded + position] = value

    @cuda.jit(device=True, forceinline=True)
    def collect(shared, mail, buffer):
        first = 4 * int64(cuda.threadIdx.x)
        for p in range(rounds):
            i = first + p * 4 * threads
            store_quad(shared, operand + i, load_mail(mail, box + buffer * copied + i))
        i = first + rounds * 4 * threads
        if i < copied:
            store_quad(shared, operand + i, load_mail(mail, box + buffer * copied + i))
        cuda.syncthreads()

    return send, collect


@cuda.jit(device=True, forceinline=True)
def _nothing():
    pass


@cuda.jit(device=True, forceinline=True)
def _rank_in_cluster():
    return int64(cluster_rank())


def _block_barrier() -> Barriers:
    """One barrier suffices: an operand has two buffers, or the other product's exchange lies between its two uses."""

    @cuda.jit(device=True, forceinline=True)
    def rank():
        return int64(0)

    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail):
        cuda.syncthreads()

    @cuda.jit(device=True, forceinline=True)
    def arrive(shared, mail, number):
        pass

    @cuda.jit(device=True, forceinline=True)
    def wait(shared, mail, number):
        cuda.syncthreads()

    return Barriers(rank, begin, _nothing, arrive, wait, _nothing)


def _cluster_barrier() -> Barriers:
    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail):
        cluster_arrive()
        cluster_wait()

    @cuda.jit(device=True, forceinline=True)
    def arrive(shared, mail, number):
        cluster_arrive()

    @cuda.jit(device=True, forceinline=True)
    def wait(shared, mail, number):
        cluster_wait()

    return Barriers(_rank_in_cluster, begin, _nothing, arrive, wait, _nothing)


def _message_barrier(shape: Shape, places: Any) -> Barriers:
    """Synchronisation by messages: two mbarriers per block, for even and odd exchanges, count the bytes that arrive.

    Why nothing is overwritten or counted too early: a block sends for exchange n + 1 only after all its threads have read the
    operands of exchange n (``ready``), for which they waited until its phase was over.  A block that sends for n + 2 has
    received the messages of all blocks for n + 1.  So all blocks have read the operands of n and are done with its phase, but
    may still read those of n + 1.  Messages for n + 2 therefore may use the mbarrier of n, in its next phase, and memory that
    n + 1 did not fill: the other buffer of a single product, or the other product.  With one mbarrier, or one buffer, a fast
    block's messages for n + 1 could collide with a slow block's messages for n, or its reads.

    Messages may arrive before the receiving thread announces them: the phase is not over until that thread arrives.
    """
    even, odd = (FLOAT_BYTES * shape.rows * places[number % len(places)].product.length for number in (0, 1))

    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail):
        if cuda.threadIdx.x == 0:
            make_mbarrier(shared_address(shared, 0))
            make_mbarrier(shared_address(shared, 2))
        cluster_arrive()
        cluster_wait()

    @cuda.jit(device=True, forceinline=True)
    def ready():
        cuda.syncthreads()

    @cuda.jit(device=True, forceinline=True)
    def arrive(shared, mail, number):
        if cuda.threadIdx.x == 0:
            expect_bytes(shared_address(shared, number % 2 * 2), uint32(odd if number % 2 else even))

    @cuda.jit(device=True, forceinline=True)
    def wait(shared, mail, number):
        await_phase(shared_address(shared, number % 2 * 2), uint32(number // 2 % 2))

    @cuda.jit(device=True, forceinline=True)
    def end():
        # all blocks stay until the last messages have arrived
        cluster_arrive()
        cluster_wait()

    return Barriers(_rank_in_cluster, begin, ready, arrive, wait, end)


def _grid_barrier(blocks: int) -> Barriers:
    """Synchronisation of a grid: one thread per block counts the arrival and waits for the other blocks.

    Stores of a block come before its count; reads come after the block's barrier that follows the wait.  ``begin`` is an
    additional exchange.
    """

    @cuda.jit(device=True, forceinline=True)
    def rank():
        return int64(cuda.blockIdx.x)

    @cuda.jit(device=True, forceinline=True)
    def arrive(shared, mail, number):
        cuda.syncthreads()
        if cuda.threadIdx.x == 0:
            count_arrival(mail)

    @cuda.jit(device=True, forceinline=True)
    def wait(shared, mail, number):
        if cuda.threadIdx.x == 0:
            await_arrivals(mail, uint32((number + 2) * blocks))
        cuda.syncthreads()

    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail):
        arrive(shared, mail, -1)
        wait(shared, mail, -1)

    return Barriers(rank, begin, _nothing, arrive, wait, _nothing)


def _send(one: DeviceFunction, stride: int) -> Any:
    """A function of the number of entries in a tuple, which returns the device function that sends all of them."""

    def sending(count: int) -> DeviceFunction:
        if count == 0:

            @cuda.jit(device=True, forceinline=True)
            def nothing(shared, mail, number, buffer, position, valid, values):
                pass

            return nothing
        before, last = sending(count - 1), count - 1
        offset = last * stride

        @cuda.jit(device=True, forceinline=True)
        def send(shared, mail, number, buffer, position, valid, values):
            before(shared, mail, number, buffer, position, valid, values)
            one(shared, mail, number, buffer, position + offset, valid, values[last])

        return send

    return sending
