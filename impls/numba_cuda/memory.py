"""Device memory that is used again: what nothing refers to any longer serves the next arrays of its size on its stream.

A call's operands, a tape and results differ only in how long something refers to them, so that one rule serves all: live
arrays never share memory, and from the second call of a shape on the driver is asked for nothing.  As with PyTorch's own
memory, an array belongs to the stream that it was made on: to use it on another is the caller's to order.
"""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from threading import RLock
from typing import Any, NamedTuple

import numpy as np
from cuda.bindings.driver import CUdeviceptr
from numba.cuda.cudadrv.devicearray import DeviceNDArray
from numba.cuda.cudadrv.driver import CudaAPIError, MemoryPointer

from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import require, simulated
from rnnbench.impls.numba_cuda.launching import STREAM

GRAIN = 512
"""Sizes are multiples of as many bytes, so that arrays of nearly one size share."""

_SHAPES_KEPT = 2
"""Truncated BPTT meets two, its window and what is left at the end."""


class Kind(NamedTuple):
    """Blocks that can stand in for each other: of one stream and size."""

    stream: int
    size: int


class Block(NamedTuple):
    """Memory of the driver's, an array of bytes, and its address."""

    memory: Any
    address: int


class Lease:
    """A block in the hands of one array and its views, which refer to it; it goes back when nothing does."""

    __slots__ = ("__weakref__", "_block", "_kind", "_pool", "_size")

    def __init__(self, pool: "Pool", kind: Kind, block: Block, size: int) -> None:
        self._pool, self._kind, self._block, self._size = pool, kind, block, size

    @property
    def memory(self) -> Any:
        return self._block.memory

    @property
    def address(self) -> int:
        return self._block.address

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {"shape": (self._size,), "typestr": "|u1", "data": (self.address, False), "version": 3}

    def __del__(self) -> None:
        self._pool.take_back(self._kind, self._block)


class Pool:
    """Blocks of device memory, used again.  It holds at most twice as much as ever was in use at once: other shapes push out
    what lay idle longest.  Several threads may use it.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a lease may end, and come back, while its thread is in here
        self._free: OrderedDict[Kind, list[Block]] = OrderedDict()
        self._held = self._used = self._most = 0

    @property
    def held(self) -> int:
        """Bytes, in use or not."""
        return self._held

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """While it holds, this thread's arrays lie here, unless they already have another place: a graph's."""
        before = _POOL.set(_POOL.get() or self)
        try:
            yield
        finally:
            _POOL.reset(before)

    def lease(self, size: int) -> Lease:
        """Memory of so many bytes, whatever is in it, for what this thread launches on its stream."""
        kind = Kind(STREAM.get(), -(-size // GRAIN) * GRAIN)
        with self._lock:
            block = self._found(kind) if kind in self._free else self._new(kind)
            self._used += kind.size
            self._most = max(self._most, self._used)
        return Lease(self, kind, block, size)

    def take_back(self, kind: Kind, block: Block) -> None:
        with self._lock:
            self._used -= kind.size
            self._free.setdefault(kind, []).append(block)
            self._free.move_to_end(kind)

    def _found(self, kind: Kind) -> Block:
        block = self._free[kind].pop()
        if not self._free[kind]:
            del self._free[kind]
        return block

    def _new(self, kind: Kind) -> Block:
        capture.refuse(f"allocate {kind.size} bytes")
        most = max(self._most, self._used + kind.size)
        while self._free and self._held + kind.size > _SHAPES_KEPT * most:
            self._give_up(next(iter(self._free)))
        try:
            memory = _of_driver(kind.size)
        except CudaAPIError:
            if not self._free:
                raise
            while self._free:  # perhaps what lies idle here is what is missing
                self._give_up(next(iter(self._free)))
            memory = _of_driver(kind.size)
        self._held += kind.size
        return Block(memory, memory.ctypes.data if simulated() else memory.device_ctypes_pointer.value)

    def _give_up(self, kind: Kind) -> None:
        self._found(kind)
        self._held -= kind.size


_POOL: ContextVar[Pool | None] = ContextVar("pool", default=None)


def leased(size: int) -> Lease | None:
    """Memory of the pool in use; None where none is, or for no bytes."""
    pool = _POOL.get()
    return pool.lease(size) if pool and size else None


class Piece:
    """Flat device memory as kernels take it, which refers to whom it belongs to: an array that no caller sees."""

    __slots__ = ("_owner", "address", "dtype", "size")

    def __init__(self, owner: Any, address: int, size: int, dtype: np.dtype) -> None:
        self._owner, self.address, self.size, self.dtype = owner, address, size, dtype


def device_array(lease: Lease, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """Numba's array in C order of the memory that a lease holds.

    Made by hand: Numba's own way, through the ``__cuda_array_interface__``, a view and a shape, takes ten times as long.
    """
    strides, step = [], dtype.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= size
    pointer = MemoryPointer(lease.memory.gpu_data.context, CUdeviceptr(lease.address), step, owner=lease)
    return DeviceNDArray(shape, strides[::-1], dtype, gpu_data=pointer)


def _of_driver(size: int) -> Any:
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        return DRIVER.memory(size)
    return require().device_array(size, np.uint8)
