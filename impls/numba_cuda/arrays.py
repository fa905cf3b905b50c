"""Operations on device arrays for layers, directions and truncation (``rnnbench.networks.arrays.Arrays``)."""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import cuda

from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import simulated
from rnnbench.impls.numba_cuda.kernels import Cube, Matrix, copy, matrix, plus_in
from rnnbench.impls.numba_cuda.launching import clear, launch, numba_stream, wait_for_stream
from rnnbench.impls.numba_cuda.memory import Piece, device_array, leased
from rnnbench.networks.bfloat16 import is_bfloat16

ALIGNED = 128
"""Alignment of the parts of one block of memory, in elements."""


def allocate(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A new, uninitialised array on the device (NaN in the simulator), from the pool in use (``memory``) if there is one."""
    lease = leased(math.prod(shape) * dtype.itemsize)
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_machine import allocate as simulated_allocate

        return simulated_allocate(shape, dtype, lease)
    if lease is None:
        return cuda.device_array(shape, dtype)  # pyright: ignore[reportArgumentType]  # any dtype will do
    return device_array(lease, shape, dtype)


def scratch(dtype: np.dtype, *sizes: int) -> list[Any]:
    """Flat arrays of the given sizes in one block of memory, for kernels only; None for a size of 0."""
    firsts, end = [], 0
    for size in sizes:
        firsts.append(end)
        end += -(-size // ALIGNED) * ALIGNED
    if simulated():
        whole = allocate((end,), dtype)
        return [whole[first : first + size] if size else None for first, size in zip(firsts, sizes, strict=True)]
    lease = leased(end * dtype.itemsize)
    assert lease is not None
    return [
        Piece(lease, lease.address + first * dtype.itemsize, size, dtype) if size else None
        for first, size in zip(firsts, sizes, strict=True)
    ]


def flat(array: Any) -> Any:
    """An array in C order as kernels take it; on a GPU they take only its address."""
    return array.reshape(-1) if simulated() else array


def on_device(array: np.ndarray) -> Any:
    """Copy an array to the device, in C order; the copy is complete on return."""
    capture.refuse("copy from the host")
    if simulated():
        copied = allocate(array.shape, array.dtype)
        copied[...] = array
        wait_for_stream()
        return copied
    # NumPy cannot export buffers of ml_dtypes' types
    copied = cuda.to_device(array.view(np.int16) if is_bfloat16(array.dtype) else array, stream=numba_stream())
    wait_for_stream()
    return copied.view(array.dtype)


def on_host(array: Any) -> np.ndarray:
    """Wait for this thread's work on its stream, and copy a device array to the host."""
    capture.refuse("copy to the host")
    plain = contiguous(array)
    if simulated():
        return plain.copy_to_host()
    copied = plain.copy_to_host(stream=numba_stream())
    wait_for_stream()
    return copied


def contiguous(array: Any) -> Any:
    """The array itself if it is in C order, else a copy in C order; a strided array must have three axes."""
    if array.is_c_contiguous():
        return array
    out = allocate(tuple(array.shape), array.dtype)
    if array.size:
        _, q, r = array.shape
        launch(copy, array.size, Cube(flat(out), 0, q * r, r, 1), _strided(array), *array.shape)
    return out


def copied(out: Matrix, source: Matrix) -> None:
    """Copy a matrix to ``out``, rounding to its dtype."""
    cubes = (Cube(part.array, part.first, 0, part.row_stride, part.column_stride) for part in (out, source))
    launch(copy, source.rows * source.columns, *cubes, 1, source.rows, source.columns)


def add(out: Matrix, a: Matrix, b: Matrix) -> None:
    """out = a + b; ``out`` may be a or b."""
    launch(plus_in(computing(out.array.dtype)), out.rows * out.columns, out, a, b)


def _strided(array: Any) -> Cube:
    """A view of an array with three axes and any strides, also negative ones."""
    strides = [stride // array.dtype.itemsize for stride in array.strides]
    if not simulated():
        return Cube(array, 0, *strides)
    # simulated memory has checked bounds, so the view spans from the first element in memory to the last
    lowest = array[tuple(slice(-1, None) if stride < 0 else slice(1) for stride in strides)]
    spans = [stride * (size - 1) for stride, size in zip(strides, array.shape, strict=True)]
    whole = np.lib.stride_tricks.as_strided(lowest, (sum(map(abs, spans)) + 1,), (array.dtype.itemsize,))
    return Cube(whole, -sum(min(0, span) for span in spans), *strides)


class DeviceArrays:
    """Operations that return device arrays in C order; ``zeros`` has ``dtype``, the others the dtype of their arguments."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def zeros(self, shape: tuple[int, ...]) -> Any:
        out = allocate(shape, self.dtype)
        clear(out)
        return out

    def concat(self, arrays: Sequence[Any], axis: int) -> Any:
        shape = list(arrays[0].shape)
        shape[axis] = sum(array.shape[axis] for array in arrays)
        out = allocate(tuple(shape), arrays[0].dtype)
        outer, row = math.prod(shape[:axis]), math.prod(shape[axis:])
        first = 0
        for array in arrays:
            width = math.prod(array.shape[axis:])
            if array.size:
                copied(
                    Matrix(flat(out), first, outer, width, row, 1), Matrix(flat(contiguous(array)), 0, outer, width, width, 1)
                )
            first += width
        return out

    def add(self, a: Any, b: Any) -> Any:
        out = allocate(tuple(a.shape), a.dtype)
        if out.size:
            add(*(matrix(flat(contiguous(array)), 1, out.size) for array in (out, a, b)))
        return out


def computing(dtype: np.dtype) -> np.dtype:
    """The dtype in which kernels compute on arrays of ``dtype``."""
    return dtype if dtype == np.float64 else np.dtype(np.float32)
