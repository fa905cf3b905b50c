"""Simulator: runs CUDA kernels in Python, for tests without a GPU, with all blocks of the grid resident at the same time.

Every CUDA thread is a greenlet that runs until it must wait.  Barriers of block, cluster and grid, shuffles and the shared
memory of peers behave as on a GPU, in one process and in any requested order of threads.  Shared memory holds NaN until it is
written.  Unordered accesses to shared memory, an index out of bounds, a store to a block that has ended, and a deadlock are
errors that name thread and line.  The simulator does not find errors in memory order of global memory, nor in alignment;
compute-sanitizer on a GPU does.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import functools
import math
import random
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numba import cuda
from numba.cuda.dispatcher import CUDADispatcher

from rnnbench.impls.numba_cuda import intrinsics
from rnnbench.impls.numba_cuda.simulated_faults import Deadlock, SimulationError, line_of
from rnnbench.impls.numba_cuda.simulated_machine import (
    Block,
    Cluster,
    Memory,
    Thread,
    running,
)
from rnnbench.impls.numba_cuda.simulated_messages import Post


class Index(NamedTuple):
    """``cuda.threadIdx``, ``cuda.blockIdx`` and so on."""

    x: int
    y: int = 0
    z: int = 0


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

    ``cluster``: blocks per cluster.  ``shared``: float32 of dynamic shared memory per block.  ``order``: "ascending" and
    "descending" run the blocks, and their threads, in that order, each block as far as possible before the next; a number is
    the seed of a random order of all threads.  Messages arrive when no thread can continue, first those to the first or the
    last block; in random order they may also arrive earlier.  One-dimensional arrays reject negative indices.

    Raises SimulationError and Deadlock.
    """
    function = simulated(getattr(kernel, "py_func", kernel))
    given = tuple(_argument(value, number) for number, value in enumerate(arguments))
    by_block: list[list[Thread]] = []
    for number in range(blocks):
        group = by_block[-1][0].block.cluster if number % cluster else Cluster(cluster, threads)
        block = Block(number, blocks, threads, group, shared)
        by_block.append([Thread(function, given, thread, block) for thread in range(threads)])
    chance = None if isinstance(order, str) else random.Random(order)
    post = Post([group[0].block.cluster for group in by_block[::cluster]], order == "ascending", chance)
    if order == "ascending":
        _schedule(by_block, post)
    elif order == "descending":
        _schedule([group[::-1] for group in reversed(by_block)], post)
    else:
        _schedule([[thread for group in by_block for thread in group]], post)


def _schedule(groups: list[list[Thread]], post: Post) -> None:
    everyone = [thread for group in groups for thread in group]
    living = groups
    while living:
        moved = [_run_until_blocked(group, post) for group in living]
        living = [alive for group in living if (alive := [thread for thread in group if not thread.dead])]
        if living and not any(moved) and not post.deliver():
            raise Deadlock(_standstill(everyone))


def _run_until_blocked(threads: list[Thread], post: Post) -> bool:
    """Run threads until all wait or have ended; returns whether any could run."""
    ever = False
    while True:
        if post.chance:
            post.chance.shuffle(threads)
            post.deliver_by_chance()
        able = False
        for thread in threads:
            if not thread.dead and (thread.held is None or not thread.held()):
                able = True
                _resume(thread)
        if not able:
            return ever
        ever = True


def _resume(thread: Thread) -> None:
    try:
        thread.switch()
    except SimulationError:
        raise
    except Exception as error:  # anything a kernel raises is reported as its error
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        what = f"{thread.shown} raised {type(error).__name__}: {error} ({where})"
        raise SimulationError(what) from error


def _standstill(everyone: list[Thread]) -> str:
    """Description of which threads wait where, grouped by block and state."""

    def state(thread: Thread) -> tuple[int, str]:
        waits = "have ended" if thread.dead else f"wait at the {thread.waits_at} ({line_of(thread.gr_frame)})"
        return thread.block.number, waits

    ordered = sorted(everyone, key=lambda thread: (thread.block.number, thread.number))
    states = [f"block {block}: threads {_ranges(list(group))} {waits}" for (block, waits), group in _grouped(ordered, state)]
    return "no thread can go on: " + "; ".join(states)


def _grouped(threads: list[Thread], key: Callable[[Thread], Any]) -> list[tuple[Any, list[Thread]]]:
    found: dict[Any, list[Thread]] = {}
    for thread in threads:
        found.setdefault(key(thread), []).append(thread)
    return list(found.items())


def _ranges(threads: list[Thread]) -> str:
    """Thread numbers as text, with runs as first-last."""
    rows: list[list[int]] = []
    for thread in threads:
        if rows and rows[-1][1] == thread.number - 1:
            rows[-1][1] = thread.number
        else:
            rows.append([thread.number, thread.number])
    return ", ".join(f"{first}-{last}" if last > first else str(first) for first, last in rows)


class _Math:
    """Stands in for the module ``math``; rounds to the dtype of the argument, as on a GPU."""

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
    """The part of ``numba.cuda`` that kernels may use."""

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
    """The function with simulated CUDA in its globals and closure."""
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
    """A device function that is replaced on its first call, because functions may be recursive."""

    def __init__(self, dispatcher: CUDADispatcher) -> None:
        self._dispatcher = dispatcher

    def __call__(self, *arguments: Any) -> Any:
        return simulated(self._dispatcher.py_func)(*arguments)


def _argument(value: Any, number: int) -> Any:
    """An argument with index checks on its arrays, also within tuples."""
    if isinstance(value, np.ndarray):
        plain = value.view(np.ndarray)
        return Memory(plain, f"argument {number}") if value.ndim == 1 else plain
    if isinstance(value, tuple):
        parts = [_argument(part, number) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value
