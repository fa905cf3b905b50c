"""CUDA kernels run in Python, to be tested without a GPU: all blocks of the grid are on the machine at the same time.

Every CUDA thread is a greenlet that runs until it has to wait.  Barriers of block, cluster and grid, shuffles and the
shared memory of peers behave as on a GPU, in one process and at any order of threads that is asked for.  Shared memory
holds NaN until it is written; uses of shared memory without a barrier between them, an index out of bounds, a store to a
block that has ended, and a deadlock are errors that name thread and line.  What it cannot find are faults of the order of
global memory and of alignment: compute-sanitizer on a GPU does.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import functools
import math
import random
import sys
import traceback
import types
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import greenlet
import numpy as np
from numba import cuda
from numba.cuda.dispatcher import CUDADispatcher

from rnnbench.impls.numba_cuda import intrinsics

WARP = 32

_MACHINERY = (__file__, intrinsics.__file__)
"""Files whose lines no message names: what waits there was called by a kernel."""


class SimulationError(Exception):
    """A kernel did what would be wrong on a GPU; the message names the thread, the line and what it did."""


class Deadlock(SimulationError):
    """All threads that have not ended wait for each other; the message says which wait where."""


class SimulatedArray(np.ndarray):
    """An array of the simulated device, which behaves like Numba's device arrays; strided, it cannot be reshaped."""

    def copy_to_host(self) -> np.ndarray:
        return np.array(self)

    def is_c_contiguous(self) -> bool:
        return self.flags.c_contiguous

    def reshape(self, *shape: Any, **options: Any) -> Any:
        if not self.is_c_contiguous():
            raise NotImplementedError("a strided device array cannot be reshaped")
        return super().reshape(*shape, **options)


def allocate(shape: tuple[int, ...], dtype: np.dtype) -> SimulatedArray:
    """Memory that nothing has been written to: NaN."""
    return np.full(shape, np.nan, dtype).view(SimulatedArray)


class Index(NamedTuple):
    """``cuda.threadIdx`` and its like."""

    x: int
    y: int = 0
    z: int = 0


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


class Warp:
    """Up to 32 threads and what they exchange."""

    def __init__(self, threads: int) -> None:
        self.barrier = Barrier("warp", "shuffle of the warp", threads)
        self.values = ([math.nan] * WARP, [math.nan] * WARP)


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
        return SimulationError(f"{self.shown} {what} ({_line(sys._getframe(1))})")


def running() -> Thread:
    """The simulated thread that calls."""
    current = greenlet.getcurrent()
    assert isinstance(current, Thread)
    return current


def run(
    kernel: Any,
    arguments: tuple[Any, ...],
    *,
    blocks: int,
    threads: int,
    cluster: int = 1,
    shared: int = 0,
    order: str | int = "ascending",
) -> None:
    """Run a kernel, decorated or not, on ``blocks`` blocks of ``threads`` threads; it changes the arrays in ``arguments``.

    ``cluster`` blocks each form a cluster; ``shared`` is the number of float32 of dynamic shared memory of a block.
    ``order`` says who goes first where several can: "ascending" and "descending" are orders of the blocks and their threads,
    and each block goes as far as it can before the next one does; a number is the seed of a random order of all threads.
    One-dimensional arrays have no negative index.  Raises SimulationError, Deadlock.
    """
    function = simulated(getattr(kernel, "py_func", kernel))
    given = tuple(_argument(value, number) for number, value in enumerate(arguments))
    by_block: list[list[Thread]] = []
    for number in range(blocks):
        group = by_block[-1][0].block.cluster if number % cluster else Cluster(cluster, threads)
        block = Block(number, blocks, threads, group, shared)
        by_block.append([Thread(function, given, thread, block) for thread in range(threads)])
    if order == "ascending":
        _schedule(by_block, None)
    elif order == "descending":
        _schedule([group[::-1] for group in reversed(by_block)], None)
    else:
        _schedule([[thread for group in by_block for thread in group]], random.Random(order))


def _schedule(groups: list[list[Thread]], shuffled_by: random.Random | None) -> None:
    everyone = [thread for group in groups for thread in group]
    living = groups
    while living:
        moved = [_go_on_until_stuck(group, shuffled_by) for group in living]
        living = [alive for group in living if (alive := [thread for thread in group if not thread.dead])]
        if living and not any(moved):
            raise Deadlock(_standstill(everyone))


def _go_on_until_stuck(threads: list[Thread], shuffled_by: random.Random | None) -> bool:
    """Whether any of them could."""
    ever = False
    while True:
        if shuffled_by:
            shuffled_by.shuffle(threads)
        able = False
        for thread in threads:
            if not thread.dead and (thread.held is None or not thread.held()):
                able = True
                _go_on(thread)
        if not able:
            return ever
        ever = True


def _go_on(thread: Thread) -> None:
    try:
        thread.switch()
    except SimulationError:
        raise
    except Exception as error:  # whatever a kernel raises is its fault
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        what = f"{thread.shown} raised {type(error).__name__}: {error} ({where})"
        raise SimulationError(what) from error


def _standstill(everyone: list[Thread]) -> str:
    """Which threads wait where, those of a block that do the same together."""

    def state(thread: Thread) -> tuple[int, str]:
        waits = "have ended" if thread.dead else f"wait at the {thread.waits_at} ({_line(thread.gr_frame)})"
        return thread.block.number, waits

    ordered = sorted(everyone, key=lambda thread: (thread.block.number, thread.number))
    said = [f"block {block}: threads {_ranges(list(group))} {waits}" for (block, waits), group in _grouped(ordered, state)]
    return "no thread can go on: " + "; ".join(said)


def _grouped(threads: list[Thread], key: Callable[[Thread], Any]) -> list[tuple[Any, list[Thread]]]:
    found: dict[Any, list[Thread]] = {}
    for thread in threads:
        found.setdefault(key(thread), []).append(thread)
    return list(found.items())


def _ranges(threads: list[Thread]) -> str:
    """Ascending numbers, those in a row as first-last."""
    rows: list[list[int]] = []
    for thread in threads:
        if rows and rows[-1][1] == thread.number - 1:
            rows[-1][1] = thread.number
        else:
            rows.append([thread.number, thread.number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in rows)


def _line(frame: types.FrameType | None) -> str:
    """The line of the kernel, or of a device function, that brought a thread where it is."""
    while frame is not None and frame.f_code.co_filename in _MACHINERY:
        frame = frame.f_back
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}" if frame else "line unknown"


class _Math:
    """The module ``math``, rounded to the dtype of its argument as on a GPU."""

    def __getattr__(self, name: str) -> Callable[[Any], Any]:
        exact = getattr(np, name)

        def rounded(value: Any) -> Any:
            return type(value)(exact(value))

        return rounded


class _Shared:
    def array(self, shape: int, dtype: Any, alignment: int | None = None) -> Memory:
        thread = running()
        if shape != 0 or dtype != cuda.types.float32:
            raise thread.fault(f"asks for a shared array of {shape} {dtype}; expected dynamic float32, of 0")
        return thread.block.shared


class _Local:
    def array(self, shape: int, dtype: Any) -> Memory:
        return Memory(np.full(shape, np.nan, np.dtype(dtype.name)), "local memory")


class _Cuda:
    """What of ``numba.cuda`` kernels may use."""

    shared, local = _Shared(), _Local()

    @property
    def threadIdx(self) -> Index:  # noqa: N802  # as CUDA calls it
        return Index(running().number)

    @property
    def blockIdx(self) -> Index:  # noqa: N802
        return Index(running().block.number)

    @property
    def blockDim(self) -> Index:  # noqa: N802
        return Index(running().block.threads, 1, 1)

    @property
    def gridDim(self) -> Index:  # noqa: N802
        return Index(running().block.blocks, 1, 1)

    @property
    def laneid(self) -> int:
        return running().lane

    def grid(self, dimensions: int) -> int:
        thread = running()
        return thread.block.number * thread.block.threads + thread.number

    def syncthreads(self) -> None:
        thread = running()
        thread.meet(thread.block.barrier)

    def shfl_sync(self, mask: int, value: Any, lane: int) -> Any:
        return self._whole(mask).shuffle(value, lane)

    def shfl_xor_sync(self, mask: int, value: Any, distance: int) -> Any:
        thread = self._whole(mask)
        return thread.shuffle(value, thread.lane ^ distance)

    def _whole(self, mask: int) -> Thread:
        if mask != 0xFFFFFFFF:
            raise running().fault(f"shuffles with mask {mask:#x}; expected a whole warp, 0xffffffff")
        return running()


_CUDA, _MATH = _Cuda(), _Math()


@functools.cache
def simulated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function with simulated CUDA in place of the names that it finds in its module and around it."""
    replaced = {name: _replaced(value) for name, value in function.__globals__.items()}
    cells = tuple(types.CellType(_replaced(cell.cell_contents)) for cell in function.__closure__ or ())
    return types.FunctionType(function.__code__, replaced, function.__name__, function.__defaults__, cells)


def _replaced(value: Any) -> Any:
    if value is cuda:
        return _CUDA
    if value is math:
        return _MATH
    if isinstance(value, CUDADispatcher):
        return _Later(value)
    if type(value) is intrinsics.Intrinsic and value in intrinsics.TWINS:
        twin = intrinsics.TWINS[value]
        return lambda *arguments: twin(running(), *arguments)
    return value


class _Later:
    """A device function that is replaced when it is first called: it may call itself, or others in a ring."""

    def __init__(self, dispatcher: CUDADispatcher) -> None:
        self._dispatcher = dispatcher

    def __call__(self, *arguments: Any) -> Any:
        return simulated(self._dispatcher.py_func)(*arguments)


def _argument(value: Any, number: int) -> Any:
    """Arrays with checked indices, in tuples too."""
    if isinstance(value, np.ndarray):
        plain = value.view(np.ndarray)
        return Memory(plain, f"argument {number}") if value.ndim == 1 else plain
    if isinstance(value, tuple):
        parts = [_argument(part, number) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
