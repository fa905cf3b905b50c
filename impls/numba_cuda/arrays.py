"""Operations on device arrays that layers, directions and truncation need (``rnnbench.arrays.Arrays``)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import cuda

from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import simulated
from rnnbench.impls.numba_cuda.kernels import copy, copy_elements, fill, plus
from rnnbench.impls.numba_cuda.launching import launch, numba_stream, wait_for_stream
from rnnbench.impls.numba_cuda.memory import leased
from rnnbench.spec import BFLOAT16

Allocate = Callable[[tuple[int, ...]], Any]


def allocate(shape: tuple[int, ...], dtype: np.dtype) -> Any:
    """A new array on the device, in the pool in use (``memory``) if one is, whatever is in it; NaN in the simulator."""
    lease = leased(math.prod(shape) * dtype.itemsize)
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_machine import allocate as simulated_allocate

        return simulated_allocate(shape, dtype, lease)
    if lease is None:
        return cuda.device_array(shape, dtype)  # pyright: ignore[reportArgumentType]  # any dtype will do
    return cuda.as_cuda_array(lease, sync=False).view(dtype).reshape(shape)


def on_device(array: np.ndarray) -> Any:
    """A copy of an array in C order, complete when this returns."""
    capture.refuse("copy from the host")
    if simulated():
        copied = allocate(array.shape, array.dtype)
        copied[...] = array
        wait_for_stream()
        return copied
    # NumPy has no buffer of ml_dtypes' types
    copied = cuda.to_device(array.view(np.int16) if array.dtype == BFLOAT16 else array, stream=numba_stream())
    wait_for_stream()
    return copied.view(array.dtype)


def on_host(array: Any) -> np.ndarray:
    """A copy of a device array, once what this thread has launched on its stream is done."""
    capture.refuse("copy to the host")
    plain = contiguous(array)
    if simulated():
        return plain.copy_to_host()
    copied = plain.copy_to_host(stream=numba_stream())
    wait_for_stream()
    return copied


def contiguous(array: Any) -> Any:
    """The array itself if it lies in C order, else a copy that does; a strided array has three axes."""
    if array.is_c_contiguous():
        return array
    flat = allocate((array.size,), array.dtype)
    place(flat, array)
    return flat.reshape(tuple(array.shape))


def converted(array: Any, dtype: np.dtype) -> Any:
    """An array in C order itself if it has the dtype, else a new one, every element rounded to it."""
    if array.dtype == dtype:
        return array
    out = allocate((array.size,), dtype)
    launch(copy_elements, array.size, out, array.reshape(array.size))
    return out.reshape(tuple(array.shape))


def place(out: Any, source: Any, first: int = 0, row_stride: int | None = None) -> None:
    """Copy source (P, Q, R) into the flat ``out``, its rows p ``row_stride`` elements apart, from element ``first`` on."""
    launch(copy, source.size, out, source, first, math.prod(source.shape[1:]) if row_stride is None else row_stride)


class DeviceArrays:
    """Device arrays in C order: new ones have ``dtype``, sums and joined ones the dtype of what they are made of."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def empty(self, shape: tuple[int, ...]) -> Any:
        return allocate(shape, self.dtype)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self.filled(shape, 0)

    def filled(self, shape: tuple[int, ...], value: float) -> Any:
        out = self.empty(shape)
        if out.size:
            launch(fill, out.size, out.reshape(out.size), np.float32(value))
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
                place(out.reshape(out.size), contiguous(array).reshape((outer, 1, width)), first, row)
            first += width
        return out

    def add(self, a: Any, b: Any) -> Any:
        out = allocate(tuple(a.shape), a.dtype)
        if out.size:
            launch(plus, out.size, *(contiguous(array).reshape(out.size) for array in (out, a, b)))
        return out
