"""Pool of device memory: memory that nothing refers to any longer is reused for arrays of the same size on the same stream.

One rule serves operands of a call, tapes and results alike: live arrays never share memory, and from the second call of a shape
on nothing is allocated from the driver.  As in PyTorch, an array belongs to the stream that it was created on; a caller that
uses it on another stream must synchronise the two.
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
"""Granularity of block sizes in bytes, so that arrays of similar sizes can reuse each other's blocks."""

_SHAPES_KEPT = 2
"""Number of sequence shapes whose memory may be held: truncated BPTT needs two, its window and the shorter last one."""


class Kind(NamedTuple):
    """Stream and size of interchangeable blocks."""

    stream: int
    size: int


class Block(NamedTuple):
    """Memory from the driver, an array of bytes, and its address."""

    memory: Any
    address: int


class Lease:
    """A block in use by one array and its views; it returns to the pool when nothing refers to it."""

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
    """Reusable blocks of device memory; thread-safe.

    Holds at most twice the memory that was ever in use at once; new shapes evict the blocks idle for longest.
    """

    def __init__(self) -> None:
        self._lock = RLock()  # a lease may end while its own thread is in here
        self._free: OrderedDict[Kind, list[Block]] = OrderedDict()
        self._held = self._used = self._most = 0

    @property
    def held(self) -> int:
        """Bytes held, in use or free."""
        return self._held

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Allocate this thread's arrays from this pool, unless another pool (a graph's) is already in use."""
        before = _POOL.set(_POOL.get() or self)
        try:
            yield
        finally:
            _POOL.reset(before)

    def lease(self, size: int) -> Lease:
        """Lease ``size`` bytes of uninitialised memory, for work on this thread's stream."""
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
            while self._free:  # free memory held here may be what is missing
                self._give_up(next(iter(self._free)))
            memory = _of_driver(kind.size)
        self._held += kind.size
        return Block(memory, memory.ctypes.data if simulated() else memory.device_ctypes_pointer.value)

    def _give_up(self, kind: Kind) -> None:
        self._found(kind)
        self._held -= kind.size


_POOL: ContextVar[Pool | None] = ContextVar("pool", default=None)


def leased(size: int) -> Lease | None:
    """Lease memory from the pool in use; None without a pool, or for a size of 0."""
    pool = _POOL.get()
    return pool.lease(size) if pool and size else None


class Piece:
    """A flat device array for kernels only, which keeps its owner alive; callers never see it."""

    __slots__ = ("_owner", "address", "dtype", "size")

    def __init__(self, owner: Any, address: int, size: int, dtype: np.dtype) -> None:
        self._owner, self.address, self.size, self.dtype = owner, address, size, dtype


def device_array(lease: Lease, shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A Numba device array in C order on the memory of a lease.

    Built directly, because Numba's own way (``__cuda_array_interface__``, a view and a reshape) takes ten times as long.
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
