"""Zero-copy conversion between PyTorch's CUDA tensors and device arrays, and kernels on the caller's stream.

Not yet tried on a GPU; the simulator shares tensors on the host.  The ``__cuda_array_interface__`` cannot describe bfloat16, so
such arrays are passed as int16.  Nothing here waits: the streams named in that interface are not synchronised.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.impls.numba_cuda import launching
from rnnbench.impls.numba_cuda.device import require, simulated
from rnnbench.installing import how_to_install
from rnnbench.networks.bfloat16 import bfloat16, is_bfloat16
from rnnbench.networks.spec import DTYPES


def from_torch(tensor: Any) -> Any:
    """A device array that shares the tensor's memory, with its shape and strides, without its gradient history.

    The tensor must be on the current GPU, or on the host in the simulator; raises ArgumentError otherwise.
    """
    cuda, torch = require(), pytorch()
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentError(f"tensor is a {type(tensor).__module__}.{type(tensor).__name__}; expected a torch.Tensor")
    dtype, expected = str(tensor.dtype).removeprefix("torch."), "cpu" if simulated() else "cuda"
    if tensor.device.type != expected:
        raise ArgumentError(f"tensor is on {tensor.device}; expected {expected}")
    if dtype not in DTYPES:
        raise ArgumentError(f"tensor has dtype {dtype}; expected one of {', '.join(DTYPES)}")
    plain = tensor.detach()
    passed = plain.view(torch.int16) if dtype == "bfloat16" else plain
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_machine import SimulatedArray

        array = passed.numpy().view(SimulatedArray)
    else:
        array = cuda.as_cuda_array(passed, sync=False)
    return array.view(bfloat16()) if dtype == "bfloat16" else array


def to_torch(array: Any) -> Any:
    """A tensor that shares a device array's memory."""
    require()
    torch = pytorch()
    passed = array.view(np.int16) if is_bfloat16(array.dtype) else array
    tensor = torch.from_numpy(passed.view(np.ndarray)) if simulated() else torch.as_tensor(passed, device="cuda")
    return tensor.view(torch.bfloat16) if is_bfloat16(array.dtype) else tensor


@contextmanager
def on_stream(handle: int) -> Iterator[None]:
    """Send this thread's kernels to a stream, for example ``torch.cuda.current_stream().cuda_stream``."""
    before = launching.STREAM.set(handle)
    try:
        yield
    finally:
        launching.STREAM.reset(before)


def pytorch() -> Any:
    try:
        import torch
    except ModuleNotFoundError as error:
        raise MissingLibrary(f"sharing tensors needs PyTorch: {how_to_install('torch')}") from error
    return torch
