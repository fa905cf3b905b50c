"""The simulated machine: threads, blocks, clusters, barriers, and memory that knows who used it."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import math
import sys
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import greenlet
import numpy as np

from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

WARP = 32

_MACHINERY = [
    str(Path(__file__).with_name(f"{name}.py"))
    for name in ("intrinsics", "matrix_intrinsics", "simulated_machine", "simulator")
]
"""Files whose lines no message names: what waits there was called by a kernel."""


class SimulationError(Exception):
    """A kernel did what would be wrong on a GPU; the message names the thread, the line and what it did."""


class Deadlock(SimulationError):
    """All threads that have not ended wait for each other; the message says which wait where."""


class SimulatedArray(np.ndarray):
    """An array of the simulated device, which behaves like Numba's device arrays; strided, it cannot be reshaped."""

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
    """Memory that nothing has been written to, NaN: of a lease (``memory.Lease``), or of the driver."""
    given = DRIVER.memory(math.prod(shape) * dtype.itemsize) if lease is None else np.asarray(lease)
    array = given.view(dtype).reshape(shape).view(SimulatedArray)
    array[...] = np.nan
    return array


class Barrier:
    """Lets its threads go on when all that have not ended have arrived."""

    def __init__(self, scope: str, name: str, threads: int) -> None:
        self.scope, self.name, self._present, self._generation = scope, name, threads, 0
        self._tickets: dict[Thread, int] = {}
        self._arrived = 0

    def arrive(self, thread: "Thread") -> None:
        if thread in self._tickets:
            raise thread.fault(f"arrives at the {self.name} again before it has waited")
        self._tickets[thread] = self._generation
        thread.arrived[self.scope] += 1
        self._arrived += 1
        self._open()

    def wait(self, thread: "Thread") -> None:
        if thread not in self._tickets:
            raise thread.fault(f"waits at the {self.name} without having arrived")
        ticket = self._tickets[thread]
        thread.wait_while(lambda: self._generation == ticket, self.name)
        del self._tickets[thread]
        thread.waited[self.scope] += 1

    def leave(self, thread: "Thread") -> None:
        """A thread that has ended is waited for no longer."""
        self._present -= 1
        self._arrived -= self._tickets.pop(thread, -1) == self._generation
        self._open()

    def _open(self) -> None:
        if self._present and self._arrived == self._present:
            self._arrived = 0
            self._generation += 1


class Memory:
    """A flat array whose elements have no negative index; ``name`` is for messages."""

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
    """Who used an element, and at how many barriers of its block and its cluster it had arrived before."""

    thread: "Thread"
    block: int
    cluster: int

    @classmethod
    def by(cls, thread: "Thread") -> "Access":
        return cls(thread, thread.arrived["block"], thread.arrived["cluster"])

    def precedes(self, thread: "Thread") -> bool:
        """Whether a barrier, or the order of its own program, puts the access before what a thread does now."""
        together = thread.block is self.thread.block and thread.waited["block"] > self.block
        return thread is self.thread or together or thread.waited["cluster"] > self.cluster


class SharedMemory(Memory):
    """A block's shared memory, NaN at first; uses of an element that no barrier puts in an order are an error."""

    def __init__(self, size: int, block: int) -> None:
        super().__init__(np.full(size, np.nan, np.float32), f"the shared memory of block {block}")
        self._written: list[Access | None] = [None] * size
        self._read: list[list[Access]] = [[] for _ in range(size)]

    def __getitem__(self, index: int) -> Any:
        value = super().__getitem__(index)
        thread, written, reads = running(), self._written[index], self._read[index]
        if written and not written.precedes(thread):
            raise thread.fault(f"reads element {index} of {self.name} while {written.thread.shown} writes it")
        access = Access.by(thread)
        if access not in reads:
            reads.append(access)
        return value

    def __setitem__(self, index: int, value: Any) -> None:
        super().__setitem__(index, value)
        thread = running()
        for other in (self._written[index], *self._read[index]):
            if other and not other.precedes(thread):
                raise thread.fault(f"writes element {index} of {self.name} while {other.thread.shown} uses it")
        self._written[index], self._read[index] = Access.by(thread), []


class Address(NamedTuple):
    """A place in the shared memory of a block."""

    block: "Block"
    memory: Memory
    offset: int

    def __add__(self, offset: Any) -> "Address":
        return self._replace(offset=self.offset + int(offset))

    def store(self, thread: "Thread", value: Any) -> None:
        if self.offset % self.memory.dtype.itemsize:
            raise thread.fault(f"stores at byte {self.offset} of {self.memory.name}, between two elements")
        if not self.block.running:
            raise thread.fault(f"stores in the shared memory of block {self.block.number}, which has ended")
        self.memory[self.offset // self.memory.dtype.itemsize] = value


class Brought(NamedTuple):
    """What a lane brings to the ``number``-th exchange of its warp, an instruction of all lanes."""

    instruction: str
    number: int
    value: Any


class Warp:
    """Up to 32 threads and what they exchange; ``made`` is what the last instruction of all lanes made, by its number."""

    def __init__(self, threads: int) -> None:
        self.barrier = Barrier("warp", "shuffle of the warp", threads)
        self.values: tuple[list[Any], list[Any]] = ([math.nan] * WARP, [math.nan] * WARP)
        self.made: tuple[int, Any] = (0, None)


class Cluster:
    """Blocks that reach each other's shared memory."""

    def __init__(self, size: int, threads: int) -> None:
        self.blocks: list[Block] = []
        self.barrier = Barrier("cluster", "cluster barrier", size * threads)


class Block:
    """Block ``number`` of ``blocks``, and the ``rank``-th of its cluster; ``running`` counts threads that have not ended."""

    def __init__(self, number: int, blocks: int, threads: int, cluster: Cluster, shared: int) -> None:
        self.number, self.blocks, self.threads, self.running = number, blocks, threads, threads
        self.cluster, self.rank = cluster, len(cluster.blocks)
        self.barrier = Barrier("block", "barrier of the block", threads)
        self.warps = [Warp(min(WARP, threads - first)) for first in range(0, threads, WARP)]
        self.shared = SharedMemory(shared, number)
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
        self.arrived, self.waited = Counter(), Counter()

    @property
    def shown(self) -> str:
        return f"thread {self.number} of block {self.block.number}"

    def _execute(self) -> None:
        with np.errstate(all="ignore"):  # as on a GPU: infinity and NaN are results
            self._kernel(*self._arguments)
        self.block.running -= 1
        for barrier in (self.block.barrier, self.block.cluster.barrier, self.warp.barrier):
            barrier.leave(self)

    def arrive(self, barrier: Barrier) -> None:
        barrier.arrive(self)

    def wait(self, barrier: Barrier) -> None:
        barrier.wait(self)

    def meet(self, barrier: Barrier) -> None:
        barrier.arrive(self)
        barrier.wait(self)

    def wait_while(self, held: Callable[[], bool], where: str) -> None:
        """Let others run until ``held()`` is false."""
        if held():
            self.held, self.waits_at = held, where
            assert self.parent is not None
            self.parent.switch()
            self.held = None

    def shuffle(self, value: Any, lane: int) -> Any:
        """The value that another lane of the warp brings; undefined where there is no such lane."""
        self.shuffles += 1
        values = self.warp.values[self.shuffles % 2]  # of two: no lane is further ahead than the next shuffle
        values[self.lane] = value
        self.meet(self.warp.barrier)
        return values[lane % WARP]

    def together(self, instruction: str, value: Any, compute: Callable[[list[Any]], Any]) -> Any:
        """This lane's part of what ``compute`` makes of the values of all 32 lanes, which it does once for all."""
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
        return Address(self.block, memory, int(index) * memory.dtype.itemsize)

    def peer(self, address: Address, rank: int) -> Address:
        """The same place in a block of the cluster."""
        blocks = self.block.cluster.blocks
        if not 0 <= rank < len(blocks):
            raise self.fault(f"asks for the shared memory of block {rank} of a cluster of {len(blocks)}")
        return Address(blocks[rank], blocks[rank].shared, address.offset)

    def fault(self, what: str) -> SimulationError:
        return SimulationError(f"{self.shown} {what} ({line_of(sys._getframe(1))})")


def _same(brought: Any, instruction: str, number: int) -> bool:
    return isinstance(brought, Brought) and brought[:2] == (instruction, number)


def running() -> Thread:
    """The simulated thread that calls."""
    current = greenlet.getcurrent()
    assert isinstance(current, Thread)
    return current


def line_of(frame: types.FrameType | None) -> str:
    """The line of the kernel, or of a device function, that brought a thread where it is."""
    while frame is not None and frame.f_code.co_filename in _MACHINERY:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "line unknown"
