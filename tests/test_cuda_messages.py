"""Messages between the blocks of a cluster, simulated: they arrive late and in any order, an mbarrier orders what they bring,
and wrong uses are faults.  What they become in machine code, too.  About 5 s, for imports.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install 'rnnbench[cuda-offline]'")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")

from numba import cuda
from numba.cuda.types import float32, uint32

from rnnbench.impls.numba_cuda import offline, simulator
from rnnbench.impls.numba_cuda.exchange_intrinsics import (
    cluster_arrive,
    cluster_rank,
    cluster_wait,
    peer_address,
    shared_address,
)
from rnnbench.impls.numba_cuda.messages import await_phase, expect_bytes, make_mbarrier, send_message
from rnnbench.impls.numba_cuda.simulated_faults import Deadlock, SimulationError

ORDERS = ("ascending", "descending", 1, 2)
THREADS = 4

any_order = pytest.mark.parametrize("order", ORDERS)


def simulate(kernel: Callable[..., None], *arguments: Any, order: str | int = "ascending") -> None:
    simulator.run(kernel, arguments, blocks=6, cluster=3, threads=THREADS, shared=64, order=order)


def made():
    """An mbarrier at the beginning of each block's shared memory, and the memory."""
    shared = cuda.shared.array(0, float32, 16)
    if cuda.threadIdx.x == 0:
        make_mbarrier(shared_address(shared, 0))
    met()
    return shared


def met():
    cluster_arrive()
    cluster_wait()


def send(shared, value, element, rank):
    there, counter = shared_address(shared, element), shared_address(shared, 0)
    send_message(peer_address(there, uint32(rank)), value, peer_address(counter, uint32(rank)))


def expect(shared, count):
    if cuda.threadIdx.x == 0:
        expect_bytes(shared_address(shared, 0), uint32(count))


def wait(shared, phase):
    await_phase(shared_address(shared, 0), uint32(phase % 2))


made, met, send, expect, wait = (cuda.jit(device=True)(function) for function in (made, met, send, expect, wait))


def ring(y, phases):
    """In every phase each thread sends its block's number to the next block, which expects it before or after."""
    shared = made()
    tid, rank = cuda.threadIdx.x, cluster_rank()
    for phase in range(phases):
        if rank == 1:
            expect(shared, 4 * THREADS)
        send(shared, float32(cuda.blockIdx.x + 10 * phase), 4 + phase % 2 * THREADS + tid, (rank + 1) % 3)
        if rank != 1:
            expect(shared, 4 * THREADS)
        wait(shared, phase)
        y[cuda.blockIdx.x, phase, tid] = shared[4 + phase % 2 * THREADS + (tid + 1) % THREADS]
        met()


@any_order
def test_messages_bring_values_phase_after_phase(order: str | int) -> None:
    y = np.full((6, 3, THREADS), np.nan, "float32")
    simulate(ring, y, 3, order=order)
    sender = np.array([2, 0, 1, 5, 3, 4])[:, None, None]
    np.testing.assert_array_equal(y, np.broadcast_to(sender + 10 * np.arange(3)[:, None], y.shape))


def read_at_once(y):
    """A barrier of the cluster says nothing of messages."""
    shared = made()
    expect(shared, 4 * THREADS)
    send(shared, y[0], 4 + cuda.threadIdx.x, (cluster_rank() + 1) % 3)
    met()
    y[0] = shared[4 + cuda.threadIdx.x]


def something_else_is_read(y):
    """A message makes itself visible, not what its sender stored before."""
    shared = made()
    tid, rank = cuda.threadIdx.x, cluster_rank()
    if rank == 0:
        shared[20 + tid] = y[0]
        send(shared, y[0], 4 + tid, 0)
        expect(shared, 4 * THREADS)
        wait(shared, 0)
        y[0] = shared[20 + (tid + 1) % THREADS]


def overwritten_while_read(y):
    shared = made()
    tid = cuda.threadIdx.x
    shared[4 + tid] = y[0]
    cuda.syncthreads()
    y[0] = shared[4 + (tid + 1) % THREADS]
    send(shared, y[0], 4 + tid, cluster_rank())
    met()


def expected_twice(y):
    expect_bytes(shared_address(made(), 0), uint32(4))


def expected_too_much(y):
    expect(made(), 2**20)


def not_made(y):
    send(cuda.shared.array(0, float32, 16), y[0], 4, 0)


def made_between_words(y):
    shared = cuda.shared.array(0, float32, 16)
    make_mbarrier(shared_address(shared, 1))


def made_twice(y):
    make_mbarrier(shared_address(made(), 0))


def counted_elsewhere(y):
    shared = made()
    here = shared_address(shared, 4)
    send_message(peer_address(here, uint32(1)), y[0], peer_address(shared_address(shared, 0), uint32(2)))


def more_than_expected(y):
    shared = made()
    expect(shared, 6)
    send(shared, y[0], 4 + cuda.threadIdx.x, cluster_rank())
    wait(shared, 0)


def never_expected(y):
    shared = made()
    if cluster_rank() == 0:
        send(shared, y[0], 4 + cuda.threadIdx.x, 1)
    for _ in range(50):
        met()


def a_phase_is_left_out(y):
    shared = made()
    for phase in range(2):
        expect(shared, 0)
        if cuda.threadIdx.x == 0 or phase == 1:
            wait(shared, phase)
        met()


def ended_before_it_arrived(y):
    shared = made()
    if cluster_rank() == 0:
        send(shared, y[0], 4 + cuda.threadIdx.x, 1)
    else:
        met()


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (read_at_once, r"thread \d+ of block \d uses element \d+ .* while a message of thread \d+ of block \d is under way"),
        (something_else_is_read, r"reads element \d+ of the shared memory of block \d while thread \d of block \d writes it"),
        (overwritten_while_read, r"(writes|uses) element \d+ of the shared memory of block \d while"),
        (expected_twice, r"arrives at the mbarrier at byte 0 of block \d twice in a phase"),
        (expected_too_much, r"expects 1048576 bytes at the mbarrier at byte 0 of block \d; expected at most 1048575"),
        (not_made, "uses byte 0 of block 0 as an mbarrier, which is none"),
        (made_between_words, "makes the mbarrier at byte 4 of block 0; expected a multiple of 8, in its own block"),
        (made_twice, r"makes the mbarrier at byte 0 of block \d, of 1; expected each once, and 4 at most"),
        (counted_elsewhere, "sends to block 1 and counts in block 2"),
        (more_than_expected, r"8 bytes have come to the mbarrier at byte 0 of block \d; it expects 6"),
        (never_expected, "has ended while a message of its own is under way"),
        (a_phase_is_left_out, r"waits at the mbarrier at byte 0 of block \d for a phase of parity 1; its next one has 0"),
        (ended_before_it_arrived, "has ended while a message of its own is under way"),
    ],
)
def test_a_wrong_use_is_a_fault(kernel: Callable[..., None], words: str) -> None:
    with pytest.raises(SimulationError, match=words):
        simulate(kernel, np.zeros(4, "float32"))


def waits_for_more(y):
    shared = made()
    expect(shared, 8 * THREADS)
    send(shared, y[0], 4 + cuda.threadIdx.x, cluster_rank())
    wait(shared, 0)


@any_order
def test_who_waits_for_more_than_comes_is_named(order: str | int) -> None:
    with pytest.raises(Deadlock, match="block 5: threads 0-3 wait at the mbarrier at byte 0 of block 5"):
        simulate(waits_for_more, np.zeros(4, "float32"), order=order)


@pytest.mark.skipif(bool(offline.missing_toolchain()), reason=str(offline.missing_toolchain()))
def test_messages_become_the_instructions_that_are_meant() -> None:
    """No fence waits for earlier stores between sending and waiting."""
    from numba.cuda.types import CPointer, void

    def kernel(x, y):
        shared = cuda.shared.array(0, float32, 16)
        for i in range(4):
            y[i] = x[i]
            here = shared_address(shared, 4 + i)
            send_message(peer_address(here, uint32(1)), x[i], peer_address(shared_address(shared, 0), uint32(1)))
            expect_bytes(shared_address(shared, 0), uint32(4))
            await_phase(shared_address(shared, 0), uint32(i % 2))

    found = offline.instructions(offline.compile_kernel(kernel, void(*[CPointer(float32)] * 2), 128))
    assert offline.of_family(found, "STAS")
    assert found["SYNCS.ARRIVE.TRANS64"]
    assert found["SYNCS.PHASECHK.TRANS64.TRYWAIT"]
    assert not offline.of_family(found, "MEMBAR")
