"""Matrix products over a whole sequence: cuBLAS through PyTorch where it has CUDA, else our own kernels.

cuBLAS follows PyTorch's settings: with ``torch.backends.cuda.matmul.allow_tf32``, float32 products use TF32.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false, reportIndexIssue=false, reportOptionalSubscript=false

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.types import float32, int64

from rnnbench.impls.numba_cuda.arrays import computing
from rnnbench.impls.numba_cuda.device import simulated
from rnnbench.impls.numba_cuda.kernels import Matrix, product_in
from rnnbench.impls.numba_cuda.launching import STREAM, Kernel, address, launch

Multiply = Callable[[Matrix, Matrix, Matrix, Matrix], None]
"""``multiply(out, start, a, b)``: out = start + a b; ``start`` may be ``out``."""

TILE, DEPTH, SIDE = 64, 16, 4
"""A block computes TILE x TILE elements, DEPTH terms at a time; a thread computes SIDE x SIDE of them."""

THREADS = (TILE // SIDE) ** 2
_ROW = TILE + 4  # row of a tile in shared memory, padded so that adjacent rows start in different banks
_B = DEPTH * _ROW
SHARED = 2 * _B
_LOADS = TILE * DEPTH // THREADS
_OWN = SIDE * SIDE


def own(out: Matrix, start: Matrix, a: Matrix, b: Matrix) -> None:
    """Our own kernels: shared tiles in float32 where there is enough work for one, else one thread per element."""
    if out.array.dtype != np.float64 and out.rows * out.columns >= TILE * TILE:
        tiled(out, start, a, b)
    else:
        _check(out, start, a, b)
        launch(product_in(computing(out.array.dtype)), out.rows * out.columns, out, start, a, b)


def tiled(out: Matrix, start: Matrix, a: Matrix, b: Matrix) -> None:
    """One block per tile of ``out``, computed in float32; operands may have any dtype."""
    _check(out, start, a, b)
    blocks = -(-out.rows // TILE) * -(-out.columns // TILE)
    TILED.launch(blocks, THREADS, SHARED, out, start, a, b)


def through_torch(out: Matrix, start: Matrix, a: Matrix, b: Matrix) -> None:
    """cuBLAS on the stream of our kernels, in the widest dtype of the matrices; ``out`` is rounded once."""
    import torch

    _check(out, start, a, b)
    views = [_view(part) for part in (out, start, a, b)]
    with _stream_of_kernels():
        if len({view.dtype for view in views}) == 1:
            torch.addmm(*views[1:], out=views[0])
        else:
            widest = functools.reduce(torch.promote_types, (view.dtype for view in views))
            views[0].copy_(torch.addmm(*(view.to(widest) for view in views[1:])))


def fastest() -> Multiply:
    """The fastest product on this machine."""
    return through_torch if not simulated() and torch_has_cuda() else own


@functools.cache
def torch_has_cuda() -> bool:
    """Whether cuBLAS is available through PyTorch."""
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def _view(part: Matrix) -> Any:
    """A tensor that shares a matrix's memory."""
    from rnnbench.impls.numba_cuda.interop import to_torch

    shape = (part.rows, part.columns), (part.row_stride, part.column_stride)
    if simulated():
        return to_torch(part.array).as_strided(*shape, part.first)
    return _tensor(address(part.array) + part.first * part.array.dtype.itemsize, part.array.dtype, *shape)


@functools.lru_cache(maxsize=1024)
def _tensor(where: int, dtype: np.dtype, shape: tuple[int, int], strides: tuple[int, int]) -> Any:
    """A tensor that does not own its memory.

    Cached, because creating one takes PyTorch longer than multiplying, and a network's next call has its arrays at the same
    addresses.
    """
    import torch

    extent = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    plain = _Memory(where, extent * dtype.itemsize)
    whole = torch.as_tensor(plain, device="cuda").view(getattr(torch, dtype.name))
    return whole.as_strided(shape, strides)


class _Memory:
    """Bytes on the device that another object owns."""

    def __init__(self, where: int, size: int) -> None:
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "data": (where, False), "version": 3}


@functools.lru_cache
def _torch_stream(handle: int) -> Any:
    import torch

    return torch.cuda.ExternalStream(handle) if handle else torch.cuda.default_stream()


def _stream_of_kernels() -> Any:
    import torch

    return torch.no_grad() if simulated() else torch.cuda.stream(_torch_stream(STREAM.get()))


def _check(out: Matrix, start: Matrix, a: Matrix, b: Matrix) -> None:
    assert (start.rows, start.columns) == (out.rows, out.columns)
    assert (a.rows, a.columns, b.columns) == (out.rows, b.rows, out.columns)


@cuda.jit(device=True, forceinline=True)
def _copy_tile(shared, where, matrix, first_row, first_column, by_rows):
    """shared[k, i] = matrix[i, k], or matrix[k, i] unless ``by_rows``; zero outside.  Loads are coalesced."""
    tid = int64(cuda.threadIdx.x)
    contiguous = matrix.column_stride == 1
    for load in range(_LOADS):
        index = load * THREADS + tid
        if contiguous == by_rows:
            k = index % DEPTH
            i = index // DEPTH
        else:
            k = index // TILE
            i = index % TILE
        row = first_row + i if by_rows else first_row + k
        column = first_column + k if by_rows else first_column + i
        value = float32(0)
        if row < matrix.rows and column < matrix.columns:
            value = float32(matrix.array[matrix.first + row * matrix.row_stride + column * matrix.column_stride])
        shared[where + k * _ROW + i] = value


def tiled_product(out, start, a, b):
    """out = start + a b in float32, with tiles of a and b in shared memory; each thread reads SIDE elements of each."""
    shared = cuda.shared.array(0, float32, 16)
    sums = cuda.local.array(_OWN, float32)
    tid = int64(cuda.threadIdx.x)
    tiles_across = (out.columns + TILE - 1) // TILE
    top = cuda.blockIdx.x // tiles_across * TILE
    left = cuda.blockIdx.x % tiles_across * TILE
    row, column = tid // (TILE // SIDE) * SIDE, tid % (TILE // SIDE) * SIDE
    for i in range(_OWN):
        sums[i] = float32(0)
    for first in range(0, a.columns, DEPTH):
        _copy_tile(shared, 0, a, top, first, True)
        _copy_tile(shared, _B, b, first, left, False)
        cuda.syncthreads()
        for k in range(DEPTH):
            for i in range(SIDE):
                for j in range(SIDE):
                    sums[SIDE * i + j] += shared[k * _ROW + row + i] * shared[_B + k * _ROW + column + j]
        cuda.syncthreads()
    for i in range(SIDE):
        for j in range(SIDE):
            r = top + row + i
            c = left + column + j
            if r < out.rows and c < out.columns:
                begun = float32(start.array[start.first + r * start.row_stride + c * start.column_stride])
                out.array[out.first + r * out.row_stride + c * out.column_stride] = begun + sums[SIDE * i + j]


TILED = Kernel(tiled_product, THREADS)
