"""Device functions with which the threads of a team share a product, and meet: in a cluster, or in the whole grid."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.types import int64, uint32

from rnnbench.impls.numba_cuda.intrinsics import (
    await_arrivals,
    cluster_arrive,
    cluster_rank,
    cluster_wait,
    count_arrival,
    load_mail,
    load_quads,
    peer_address,
    rows_product,
    shared_address,
    store_peer,
    store_quad,
)
from rnnbench.impls.numba_cuda.layout import WARP, Place, Shape, Tiles
from rnnbench.impls.numba_cuda.messages import await_phase, expect_bytes, make_mbarrier, send_message
from rnnbench.impls.numba_cuda.tensor_cores import multiplying, through_mail

DeviceFunction = Any

_WHOLE_WARP = 0xFFFFFFFF

FLOAT_BYTES = 4

TOGETHER = 4
"""So many rows of the batch are multiplied at a time: weights in shared memory are read once for them."""


class Meeting(NamedTuple):
    """How the blocks of a team meet, for the n-th time at the n-th exchange of operands, n counted from 0.

    ``rank()``: this block's number in its team.  ``begin(shared, mail)``: before the first exchange, all threads have come
    here.  In an exchange, ``ready()``: all threads of the block have read what they had to before it sends; ``arrive(shared,
    mail, n)``: what it sends is sent; ``wait(shared, mail, n)``: until that of all blocks is there.  ``end()``: after the last.
    """

    rank: DeviceFunction
    begin: DeviceFunction
    ready: DeviceFunction
    arrive: DeviceFunction
    wait: DeviceFunction
    end: DeviceFunction


class Sharing(NamedTuple):
    """What threads do for one product.

    ``fetch(packed, rank, shared)``: the weights that this thread keeps; ``multiply(weights, shared, mail, buffer)``: the
    sums of the batch row that is this lane's own, lane b having row b; ``send(n)``: by how many entries there are, a
    function ``(shared, mail, number, buffer, position, valid, values)`` that brings every row's values to the operand of
    every block, entry g at ``position + g * stride``; ``collect(shared, mail, buffer)``: after the meeting, take in what was
    sent.
    """

    fetch: DeviceFunction
    multiply: DeviceFunction
    send: Any
    collect: DeviceFunction


def meeting(shape: Shape, *places: Place | Tiles) -> Meeting:
    """How the blocks of a team meet; of each step's exchanges, ``places`` has the operands in their order."""
    if shape.grid:
        return _meeting_of_grid(shape.blocks)
    if shape.blocks == 1:
        return _meeting_of_block()
    return _meeting_by_messages(shape, places) if shape.sends_messages else _meeting_of_cluster()


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
    """The first of a thread's quads of weights go to registers, the others to shared memory."""
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
    """The buffers of the operand begin ``rows * padded`` elements apart."""
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
    """``clear(shared)``: a product's operand zero, also where it is shorter than the quads that read it; mail is zero."""
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
    """Each lane stores its own row; nothing is left to collect."""
    operand, padded, lanes, rows = place.operand, place.padded, shape.lanes, shape.rows

    @cuda.jit(device=True, forceinline=True)
    def send(shared, mail, number, buffer, position, valid, value):
        lane = cuda.threadIdx.x % lanes
        if valid and lane < rows:
            shared[operand + (buffer * rows + lane) * padded + position] = value

    return send, _nothing_to_collect


def _to_peers(place: Place, shape: Shape) -> tuple[DeviceFunction, DeviceFunction]:
    """Each lane of a group stores in other blocks of the cluster; nothing is left to collect."""
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
    """The same by messages, which count at the mbarrier of the meeting in the block that they go to."""
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
    """Each lane posts its own row; every block copies all rows to its shared memory."""
    operand, padded, lanes, rows, threads, box = place.operand, place.padded, shape.lanes, shape.rows, shape.threads, place.mail
    copied = rows * padded
    rounds = copied // (4 * threads)  # a number that the compiler knows, so that all loads are under way at once

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


def _meeting_of_block() -> Meeting:
    """One barrier: operands have two buffers, or a meeting of the other product lies between two uses."""

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

    return Meeting(rank, begin, _nothing, arrive, wait, _nothing)


def _meeting_of_cluster() -> Meeting:
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

    return Meeting(_rank_in_cluster, begin, _nothing, arrive, wait, _nothing)


def _meeting_by_messages(shape: Shape, places: Any) -> Meeting:
    """Two mbarriers in each block, for even and odd meetings, count what comes for this block and the next meeting.

    Why nothing is overwritten or counted too early.  A block sends for meeting n + 1 only when all its threads have read what
    meeting n brought (``ready``), for which they waited until its phase was over.  A block that sends for n + 2 has had the
    messages of all blocks for n + 1: so all of them have read what n brought, and are done with its phase; what n + 1 brought
    they may be reading still.  Hence messages for n + 2 may go to the mbarrier of n, whose next phase it is, and to a place
    that n + 1 did not fill: the other buffer of a single product, or the other product.  With one mbarrier, or one buffer, a
    fast block's messages for n + 1 would meet a slow one's for n, or its reads.

    Messages may come before the thread that expects them has said so: until it arrives the phase is not over.
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
        # all blocks stay until the last messages are there
        cluster_arrive()
        cluster_wait()

    return Meeting(_rank_in_cluster, begin, ready, arrive, wait, end)


def _meeting_of_grid(blocks: int) -> Meeting:
    """One thread counts its block as arrived and waits for the others: their stores come before the count, and the reads
    of its own block after the barrier that lets its other threads go on.  ``begin`` is a meeting of its own."""

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

    return Meeting(rank, begin, _nothing, arrive, wait, _nothing)


def _send(one: DeviceFunction, stride: int) -> Any:
    """By how many entries a tuple has: a device function that sends them all."""

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
