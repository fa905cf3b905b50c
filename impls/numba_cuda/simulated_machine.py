"""The simulated machine: threads, blocks, clusters, barriers, and memory that tracks its accesses."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import math
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import greenlet
import numpy as np

from rnnbench.impls.numba_cuda.simulated_driver import DRIVER
from rnnbench.impls.numba_cuda.simulated_faults import SimulationError, line_of
from rnnbench.impls.numba_cuda.simulated_messages import Mbarrier, Message

WARP = 32

MBARRIERS = 4
"""Maximum number of mbarriers per block."""


class SimulatedArray(np.ndarray):
    """An array of the simulated device; like Numba's device arrays, it cannot be reshaped if it is strided."""

    def copy_to_host(self) -> np.ndarray:
        DRIVER.synchronise()
        return np.array(self)

    def is_c_contiguous(self) -> bool:
        return self.flags.c_contiguous

    def reshape(self, *shape: Any, **options: Any) -> Any:
        if not self.is_c_contiguous():
            raise NotImplementedError("a strided device array cannot be reshaped")
        return super().reshape(*shape, **options)


def allocate(shape: tuple[int, ...], dtype: np.dtype, lease: Any = None) -> SimulatedArray:
    """Uninitialised memory, filled with NaN, from a lease (``memory.Lease``) or the driver."""
    given = DRIVER.memory(math.prod(shape) * dtype.itemsize) if lease is None else np.asarray(lease)
    array = given.view(dtype).reshape(shape).view(SimulatedArray)
    array[...] = np.nan
    return array


class Barrier:
    """A barrier that opens when all threads that have not ended have arrived."""

    def __init__(self, scope: str, name: str, threads: int) -> None:
        self.scope, self.name, self._present, self._generation = scope, name, threads, 0
        self._tickets: dict[Thread, int] = {}
        self._arrived = 0
        self._clock: np.ndarray | None = None
        self._published: np.ndarray | None = None

    def arrive(self, thread: "Thread") -> None:
        if thread in self._tickets:
            raise thread.fault(f"arrives at the {self.name} again before it has waited")
        self._tickets[thread] = self._generation
        if self.scope != "warp":  # shuffles do not order memory
            clock = thread.release()
            self._clock = clock if self._clock is None else np.maximum(self._clock, clock)
        self._arrived += 1
        self._open()

    def wait(self, thread: "Thread") -> None:
        if thread not in self._tickets:
            raise thread.fault(f"waits at the {self.name} without having arrived")
        ticket = self._tickets[thread]
        thread.wait_while(lambda: self._generation == ticket, self.name)
        del self._tickets[thread]
        if self._published is not None:
            thread.learn(self._published)

    def leave(self, thread: "Thread") -> None:
        """Stop waiting for a thread that has ended."""
        self._present -= 1
        self._arrived -= self._tickets.pop(thread, -1) == self._generation
        self._open()

    def _open(self) -> None:
        if self._present and self._arrived == self._present:
            self._arrived = 0
            self._generation += 1
            self._published, self._clock = self._clock, None


class Memory:
    """A flat array with checked indices; ``name`` is for messages."""

    def __init__(self, values: np.ndarray, name: str) -> None:
        self.values, self.name = values, name

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> Any:
        self._check(index)
        return self.values[index]

    def __setitem__(self, index: int, value: Any) -> None:
        self._check(index)
        self.values[index] = value

    def _check(self, index: int) -> None:
        if not 0 <= index < len(self.values):
            raise running().fault(f"uses element {index} of {self.name}, which has {len(self.values)}")


class Access(NamedTuple):
    """An access to an element, by entry ``number`` of the cluster's clocks at ``time``."""

    number: int
    time: int
    who: str

    def known_to(self, thread: "Thread", row: int) -> bool:
        """Whether program order, barriers and messages order it before a thread's current action."""
        return thread.clock.item(row, self.number) >= self.time


class SharedMemory(Memory):
    """A block's shared memory, initially NaN; unordered accesses to an element are errors.

    While a message to an element is in flight, the element is NaN and must not be accessed.
    """

    def __init__(self, size: int, block: int) -> None:
        super().__init__(np.full(size, np.nan, np.float32), f"the shared memory of block {block}")
        self._written: list[Access | None] = [None] * size
        self._read: list[list[Access]] = [[] for _ in range(size)]
        self._awaited: dict[int, str] = {}

    def __getitem__(self, index: int) -> Any:
        value = super().__getitem__(index)
        thread, written, reads = running(), self._written[index], self._read[index]
        self._check_arrived(thread, index)
        if written and not written.known_to(thread, SEEN):
            raise thread.fault(f"reads element {index} of {self.name} while {written.who} writes it")
        if thread.now not in reads:
            reads.append(thread.now)
        return value

    def __setitem__(self, index: int, value: Any) -> None:
        super().__setitem__(index, value)
        thread = running()
        self._check_unused(thread, index)
        self._written[index], self._read[index] = thread.now, []

    def announce(self, thread: "Thread", index: int) -> None:
        """Record that a message to an element has been sent."""
        super().__setitem__(index, np.float32(np.nan))
        self._check_unused(thread, index)
        self._awaited[index], self._read[index] = thread.shown, []

    def deliver(self, index: int, value: Any, written: Access) -> None:
        self.values[index] = value
        self._written[index] = written
        del self._awaited[index]

    def _check_arrived(self, thread: "Thread", index: int) -> None:
        if index in self._awaited:
            who = self._awaited[index]
            raise thread.fault(f"uses element {index} of {self.name} while a message of {who} is under way to it")

    def _check_unused(self, thread: "Thread", index: int) -> None:
        self._check_arrived(thread, index)
        for other in (self._written[index], *self._read[index]):
            if other and not other.known_to(thread, AFTER):
                raise thread.fault(f"writes element {index} of {self.name} while {other.who} uses it")


class Address(NamedTuple):
    """An address in the shared memory of a block."""

    block: "Block"
    memory: "SharedMemory"
    offset: int

    def __add__(self, offset: Any) -> "Address":
        return self._replace(offset=self.offset + int(offset))

    def store(self, thread: "Thread", value: Any) -> None:
        self.memory[self.element(thread)] = value

    def element(self, thread: "Thread") -> int:
        """Index of the element at this address, which a thread is about to store."""
        if self.offset % self.memory.dtype.itemsize:
            raise thread.fault(f"stores at byte {self.offset} of {self.memory.name}, between two elements")
        if not self.block.running:
            raise thread.fault(f"stores in the shared memory of block {self.block.number}, which has ended")
        return self.offset // self.memory.dtype.itemsize


class Brought(NamedTuple):
    """The value that a lane contributes to exchange ``number`` of its warp, with the instruction."""

    instruction: str
    number: int
    value: Any


class Warp:
    """Up to 32 threads and their exchanged values; ``made`` is the number and result of the last warp-wide instruction."""

    def __init__(self, threads: int) -> None:
        self.barrier = Barrier("warp", "shuffle of the warp", threads)
        self.values: tuple[list[Any], list[Any]] = ([math.nan] * WARP, [math.nan] * WARP)
        self.made: tuple[int, Any] = (0, None)


SEEN, AFTER = 0, 1
"""Rows of a clock: actions whose results a thread can see, and actions (including reads) that come before.  A message carries
only the second: it comes after its sender's earlier actions, but makes only itself visible."""


class Cluster:
    """Blocks that can access each other's shared memory, and the messages in flight between them.

    A vector clock has an entry for each thread and mbarrier: the time up to which its actions are known.
    """

    def __init__(self, size: int, threads: int) -> None:
        self.blocks: list[Block] = []
        self.under_way: list[Message] = []
        self.entries = size * (threads + MBARRIERS)
        self.barrier = Barrier("cluster", "cluster barrier", size * threads)


class Block:
    """Block ``number`` of ``blocks``, with ``rank`` in its cluster; ``running`` counts threads that have not ended."""

    def __init__(self, number: int, blocks: int, threads: int, cluster: Cluster, shared: int) -> None:
        self.number, self.blocks, self.threads, self.running = number, blocks, threads, threads
        self.cluster, self.rank = cluster, len(cluster.blocks)
        self.barrier = Barrier("block", "barrier of the block", threads)
        self.warps = [Warp(min(WARP, threads - first)) for first in range(0, threads, WARP)]
        self.shared = SharedMemory(shared, number)
        self.mbarriers: dict[int, Mbarrier] = {}
        cluster.blocks.append(self)


class Thread(greenlet.greenlet):
    """One CUDA thread."""

    def __init__(self, kernel: Callable[..., None], arguments: tuple[Any, ...], number: int, block: Block) -> None:
        super().__init__(self._execute)
        self._kernel, self._arguments = kernel, arguments
        self.number, self.block, self.lane, self.warp = number, block, number % WARP, block.warps[number // WARP]
        self.held: Callable[[], bool] | None = None
        self.waits_at = ""
        self.shuffles = 0
        self._number = block.rank * (block.threads + MBARRIERS) + number
        self.clock = np.zeros((2, block.cluster.entries), np.int64)
        self.clock[:, self._number] = 1
        self.now = Access(self._number, 1, self.shown)

    @property
    def shown(self) -> str:
        return f"thread {self.number} of block {self.block.number}"

    def _execute(self) -> None:
        with np.errstate(all="ignore"):  # as on a GPU: infinity and NaN are results
            self._kernel(*self._arguments)
        if any(message.sender is self for message in self.block.cluster.under_way):
            raise self.fault("has ended while a message of its own is under way")
        self.block.running -= 1
        if not self.block.running:
            for mbarrier in self.block.mbarriers.values():
                mbarrier.check_idle()
        for barrier in (self.block.barrier, self.block.cluster.barrier, self.warp.barrier):
            barrier.leave(self)

    def release(self) -> np.ndarray:
        """Return the clock for others to learn, and start a new time for later actions."""
        clock = self.clock.copy()
        self.clock[:, self._number] += 1
        self.now = self.now._replace(time=self.now.time + 1)
        return clock

    def learn(self, clock: np.ndarray) -> None:
        np.maximum(self.clock, clock, out=self.clock)

    def arrive(self, barrier: Barrier) -> None:
        barrier.arrive(self)

    def wait(self, barrier: Barrier) -> None:
        barrier.wait(self)

    def meet(self, barrier: Barrier) -> None:
        barrier.arrive(self)
        barrier.wait(self)

    def wait_while(self, held: Callable[[], bool], where: str) -> None:
        """Let other threads run until ``held()`` is false."""
        if held():
            self.held, self.waits_at = held, where
            assert self.parent is not None
            self.parent.switch()
            self.held = None

    def shuffle(self, value: Any, lane: int) -> Any:
        """The value of another lane of the warp; undefined if the lane does not exist."""
        self.shuffles += 1
        values = self.warp.values[self.shuffles % 2]  # two suffice: no lane is more than one shuffle ahead
        values[self.lane] = value
        self.meet(self.warp.barrier)
        return values[lane % WARP]

    def together(self, instruction: str, value: Any, compute: Callable[[list[Any]], Any]) -> Any:
        """This lane's part of ``compute``'s result for the values of all 32 lanes, computed once for all."""
        self.shuffles += 1
        number, values = self.shuffles, self.warp.values[self.shuffles % 2]
        values[self.lane] = Brought(instruction, number, value)
        self.meet(self.warp.barrier)
        absent = [lane for lane, brought in enumerate(values) if not _same(brought, instruction, number)]
        if absent:
            raise self.fault(f"takes part in an {instruction} without lanes {absent}; expected the whole warp")
        if self.warp.made[0] != number:
            self.warp.made = number, compute([brought.value for brought in values])
        return self.warp.made[1][self.lane]

    def address(self, memory: Memory, index: int) -> Address:
        if memory is not self.block.shared:
            raise self.fault(f"asks for an address in {memory.name}; expected its own shared memory")
        return Address(self.block, self.block.shared, int(index) * memory.dtype.itemsize)

    def make_mbarrier(self, address: Address) -> None:
        block, name = address.block, f"the mbarrier at byte {address.offset} of block {address.block.number}"
        if address.offset % 8 or block is not self.block:
            raise self.fault(f"makes {name}; expected a multiple of 8, in its own block")
        if address.offset in block.mbarriers or len(block.mbarriers) == MBARRIERS:
            raise self.fault(f"makes {name}, of {len(block.mbarriers)}; expected each once, and {MBARRIERS} at most")
        number = block.rank * (block.threads + MBARRIERS) + block.threads + len(block.mbarriers)
        block.mbarriers[address.offset] = Mbarrier(self, number, name)

    def mbarrier(self, address: Address) -> Mbarrier:
        """The mbarrier at an address, for a thread that may know of it."""
        if address.offset not in address.block.mbarriers:
            raise self.fault(f"uses byte {address.offset} of block {address.block.number} as an mbarrier, which is none")
        found = address.block.mbarriers[address.offset]
        found.check_made(self)
        return found

    def send(self, address: Address, value: Any, mbarrier: Address) -> None:
        """Send a message to an address; an mbarrier of the same block counts it."""
        if address.block is not mbarrier.block:
            raise self.fault(f"sends to block {address.block.number} and counts in block {mbarrier.block.number}")
        element = address.element(self)
        address.memory.announce(self, element)
        message = Message(self, address.block.number, address.memory, element, value, self.mbarrier(mbarrier), self.release())
        self.block.cluster.under_way.append(message)

    def peer(self, address: Address, rank: int) -> Address:
        """The corresponding address in another block of the cluster."""
        blocks = self.block.cluster.blocks
        if not 0 <= rank < len(blocks):
            raise self.fault(f"asks for the shared memory of block {rank} of a cluster of {len(blocks)}")
        return Address(blocks[rank], blocks[rank].shared, address.offset)

    def fault(self, what: str) -> SimulationError:
        return SimulationError(f"{self.shown} {what} ({line_of(sys._getframe(1))})")


def _same(brought: Any, instruction: str, number: int) -> bool:
    return isinstance(brought, Brought) and brought[:2] == (instruction, number)


def running() -> Thread:
    """The calling simulated thread."""
    current = greenlet.getcurrent()
    assert isinstance(current, Thread)
    return current
