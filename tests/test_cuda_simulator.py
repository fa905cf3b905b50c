"""The simulator of CUDA kernels: it does what a GPU does with barriers, shuffles and clusters, and finds planted faults.

Each promise is kept at every order of the threads.  About 2 s, for imports.
"""

import math
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from numba import cuda
from numba.cuda.types import float32, uint32

from rnnbench.impls.numba_cuda import simulator
from rnnbench.impls.numba_cuda.exchange_intrinsics import (
    cluster_arrive,
    cluster_rank,
    cluster_wait,
    peer_address,
    shared_address,
    store_peer,
    store_quad,
)
from rnnbench.impls.numba_cuda.intrinsics import load_quads, read_values, rows_product
from rnnbench.impls.numba_cuda.simulated_faults import Deadlock, SimulationError

ORDERS = ("ascending", "descending", 1, 2)
WHOLE_WARP = 0xFFFFFFFF

any_order = pytest.mark.parametrize("order", ORDERS)


def simulate(kernel: Callable[..., None], *arguments: Any, **options: Any) -> None:
    simulator.run(kernel, arguments, **{"blocks": 1, "threads": 64, "shared": 64} | options)


def reversed_through_shared_memory(x, y):
    shared = cuda.shared.array(0, float32, 16)
    tid = cuda.threadIdx.x
    shared[tid] = x[tid]
    cuda.syncthreads()
    y[tid] = shared[cuda.blockDim.x - 1 - tid]


def reversed_without_barrier(x, y):
    shared = cuda.shared.array(0, float32, 16)
    tid = cuda.threadIdx.x
    shared[tid] = x[tid]
    y[tid] = shared[cuda.blockDim.x - 1 - tid]


def read_then_written(x, y):
    shared = cuda.shared.array(0, float32, 16)
    tid = cuda.threadIdx.x
    shared[tid] = x[tid]
    cuda.syncthreads()
    y[tid] = shared[tid ^ 1]
    shared[tid] = y[tid]


def written_twice(x, y):
    cuda.shared.array(0, float32, 16)[cuda.threadIdx.x // 2] = x[0]


def stored_without_cluster_barrier(x, y):
    """A barrier of the block says nothing of the other blocks."""
    shared = cuda.shared.array(0, float32, 16)
    if cluster_rank() == 0:
        store_peer(peer_address(shared_address(shared, cuda.threadIdx.x), uint32(1)), x[0])
    cuda.syncthreads()
    if cluster_rank() == 1:
        y[cuda.threadIdx.x] = shared[cuda.threadIdx.x]
    cluster_arrive()
    cluster_wait()


@any_order
def test_a_barrier_separates_writes_from_reads(order: str | int) -> None:
    x, y = np.arange(64, dtype="float32"), np.full(64, np.nan, "float32")
    simulate(reversed_through_shared_memory, x, y, order=order)
    np.testing.assert_array_equal(y, x[::-1])


@any_order
@pytest.mark.parametrize("kernel", [reversed_without_barrier, read_then_written, written_twice, stored_without_cluster_barrier])
def test_without_the_barrier_a_race_is_seen(kernel: Callable[..., None], order: str | int) -> None:
    """... at every order, whether or not it does harm there."""
    x, y = np.arange(64, dtype="float32"), np.full(64, np.nan, "float32")
    with pytest.raises(SimulationError, match=r"(reads|writes) element \d+ of the shared memory of block \d while thread"):
        simulate(kernel, x, y, blocks=2, cluster=2, order=order)


@any_order
def test_shuffles_exchange_within_a_warp(order: str | int) -> None:
    def kernel(y):
        tid = cuda.threadIdx.x
        turned = cuda.shfl_sync(WHOLE_WARP, tid, cuda.laneid + 1)
        for _ in range(3):  # more shuffles than the warp has buffers
            turned = cuda.shfl_xor_sync(WHOLE_WARP, turned, 1)
        y[tid] = turned

    y = np.zeros(64, "int64")
    simulate(kernel, y, order=order)
    lane, warp = np.arange(64) % 32, np.arange(64) // 32
    np.testing.assert_array_equal(y, 32 * warp + ((lane ^ 1) + 1) % 32)


def ring(y, distance):
    """Each block of a cluster gives its number to the block ``distance`` further on."""
    shared = cuda.shared.array(0, float32, 16)
    tid, rank, size = cuda.threadIdx.x, cluster_rank(), y.shape[1]
    cluster_arrive()
    cluster_wait()
    if tid == 0:
        there = peer_address(shared_address(shared, 3), uint32((rank + distance) % size))
        store_peer(there, float32(cuda.blockIdx.x))
    cluster_arrive()
    cluster_wait()
    y[cuda.blockIdx.x // size, rank, tid] = shared[3]


@any_order
def test_blocks_of_a_cluster_store_in_each_others_memory(order: str | int) -> None:
    y = np.full((2, 3, 4), np.nan, "float32")
    simulate(ring, y, 1, blocks=6, cluster=3, threads=4, order=order)
    np.testing.assert_array_equal(y[..., 0], [[2, 0, 1], [5, 3, 4]])
    np.testing.assert_array_equal(y, np.broadcast_to(y[..., :1], y.shape))


def test_intrinsics_read_what_they_should() -> None:
    load, read = load_quads(2, 8), read_values(3)

    def kernel(x, y):
        for i, value in enumerate(load(x, 4) + read(x, 1, 5)):
            y[i] = value

    y = np.zeros(11, "float32")
    simulate(kernel, np.arange(16, dtype="float32"), y, threads=1)
    np.testing.assert_array_equal(y, [4, 5, 6, 7, 12, 13, 14, 15, 1, 6, 11])


@pytest.mark.parametrize("lanes", [1, 2, 4, 8, 32])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_each_lane_gets_the_sums_of_its_row(rows: int, lanes: int) -> None:
    """Two gates, three quads to a lane of which one is in shared memory; small integers: no bit is lost."""
    if rows > lanes:
        pytest.skip("a group has no more rows than lanes")
    gates, quads, resident = 2, 3, 2
    length, groups = 4 * lanes * quads, 64 // lanes
    rng = np.random.default_rng(rows)
    operand = rng.integers(-4, 5, (rows, length)).astype("float32")
    weights = rng.integers(-4, 5, (groups, gates, length)).astype("float32")
    packed = weights.reshape(groups, gates, quads, lanes, 4).transpose(2, 1, 0, 3, 4).reshape(-1)
    load, product = load_quads(resident * gates, 256), rows_product(gates, quads, resident, lanes, 256, rows, length)
    more = rows * length

    def kernel(operand, packed, y):
        shared = cuda.shared.array(0, float32, 16)
        tid = cuda.threadIdx.x
        for i in range(tid, more, 64):
            shared[i] = operand[i]
        for i in range(tid, 256 * gates, 64):
            shared[more + i] = packed[256 * gates * resident + i]
        cuda.syncthreads()
        sums = product(load(packed, 4 * tid), shared, 4 * (tid % lanes), more + 4 * tid, tid % lanes)
        for g in range(gates):
            y[tid, g] = sums[g]

    y = np.full((64, gates), np.nan, "float32")
    simulate(kernel, operand.reshape(-1), packed, y, shared=more + 256 * gates)
    exact = np.einsum("ugk,bk->ubg", weights, operand)
    lane = np.arange(64)
    np.testing.assert_array_equal(y, exact[lane // lanes, lane % lanes % rows])


def test_mathematics_is_rounded_to_float32() -> None:
    """... or errors would be smaller here than on a GPU."""

    def kernel(x, y):
        y[0] = math.exp(x[0]) == np.exp(x[0])

    y = np.zeros(1, "int64")
    simulate(kernel, np.full(1, 0.3, "float32"), y, threads=1)
    assert y[0] == 1


# Faults, and what is said of them.


def half_waits(y):
    tid = cuda.threadIdx.x
    if tid < 32:
        cuda.syncthreads()
    else:
        cluster_arrive()
        cluster_wait()


@any_order
def test_a_deadlock_names_who_waits_where(order: str | int) -> None:
    first = half_waits.__code__.co_firstlineno
    with pytest.raises(Deadlock) as caught:
        simulate(half_waits, None, blocks=2, cluster=2, order=order)
    name = "test_cuda_simulator.py"
    expected = [
        f"block {block}: threads {threads} wait at the {where} ({name}:{first + line})"
        for block in (0, 1)
        for threads, where, line in (("0-31", "barrier of the block", 3), ("32-63", "cluster barrier", 6))
    ]
    assert str(caught.value) == "no thread can go on: " + "; ".join(expected)


def test_threads_that_have_ended_are_waited_for_no_longer() -> None:
    """As on a GPU since Volta; the barrier of those that are left works."""

    def kernel(y):
        tid = cuda.threadIdx.x
        if tid % 2:
            cuda.syncthreads()
            y[tid] = 1

    y = np.zeros(64, "float32")
    simulate(kernel, y)
    np.testing.assert_array_equal(y, np.arange(64) % 2)


def wrong_peer(y):
    shared = cuda.shared.array(0, float32, 16)
    store_peer(peer_address(shared_address(shared, 0), uint32(2)), float32(1))


def between_elements(y):
    shared = cuda.shared.array(0, float32, 16)
    store_peer(peer_address(shared_address(shared, 0) + uint32(2), uint32(0)), float32(1))


def beyond_the_end(y):
    cuda.shared.array(0, float32, 16)[64] = y[0]


def before_the_beginning(y):
    y[cuda.threadIdx.x - 1] = 0


one_quad = load_quads(1, 4)


def uneven_quads(y):
    one_quad(y, 2)


def uneven_store(y):
    store_quad(cuda.shared.array(0, float32, 16), 2, (float32(1),) * 4)


def arrives_twice(y):
    cluster_arrive()
    cluster_arrive()


def never_arrives(y):
    cluster_wait()


def divides_by_zero(y):
    y[0] = 1 // int(y[0])


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (wrong_peer, "asks for the shared memory of block 2 of a cluster of 2"),
        (between_elements, "stores at byte 2 of the shared memory of block 0, between two elements"),
        (beyond_the_end, "uses element 64 of the shared memory of block 0, which has 64"),
        (before_the_beginning, "uses element -1 of argument 0, which has 4"),
        (uneven_quads, "reads four elements from 2 on; expected a multiple of 4"),
        (uneven_store, "writes four elements from 2 on; expected a multiple of 4"),
        (arrives_twice, "arrives at the cluster barrier again before it has waited"),
        (never_arrives, "waits at the cluster barrier without having arrived"),
        (divides_by_zero, "raised ZeroDivisionError"),
    ],
)
def test_a_fault_names_thread_and_line(kernel: Callable[..., None], words: str) -> None:
    with pytest.raises(SimulationError) as caught:
        simulate(kernel, np.zeros(4, "float32"), blocks=2, cluster=2, threads=32)
    assert words in str(caught.value)
    assert re.match(r"thread \d+ of block 0 ", str(caught.value))
    lines = {line for _, _, line in kernel.__code__.co_lines()}
    place = re.search(r"\(test_cuda_simulator\.py:(\d+)\)$", str(caught.value))
    assert place, caught.value
    assert int(place[1]) in lines


def test_a_store_to_a_block_that_has_ended_is_a_fault() -> None:
    """Its shared memory may be another block's by then."""

    def kernel():
        if cluster_rank() == 0:
            shared = cuda.shared.array(0, float32, 16)
            store_peer(peer_address(shared_address(shared, cuda.threadIdx.x), uint32(1)), float32(1))

    with pytest.raises(SimulationError, match="thread 31 of block 0 stores in the shared memory of block 1, which has ended"):
        simulate(kernel, blocks=2, cluster=2, threads=32, order="descending")
