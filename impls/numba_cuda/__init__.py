"""Kernels in Numba CUDA, launched time step by time step on device arrays; right for every cell and shape.

Arrays are ``numba.cuda`` device arrays.  On a machine without a GPU everything runs in Numba's simulator if
``NUMBA_ENABLE_CUDASIM=1`` is set before Numba is imported.  Importing this package needs neither GPU nor numba-cuda:
``unavailable`` tells what is missing, and the functions that need it raise BackendUnavailable.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.backend import Network
from rnnbench.impls.numba_cuda.device import info, require, synchronize, unavailable
from rnnbench.spec import Spec
from rnnbench.threads import check_threads

__all__ = ["asarray", "info", "load", "supports", "synchronize", "to_numpy", "unavailable"]


def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Put the weights on the device; ``threads`` is about the host and changes nothing here."""
    check_threads(threads)
    require()
    from rnnbench.impls.numba_cuda.network import CudaNetwork

    return CudaNetwork(spec, params)


def asarray(array: np.ndarray) -> Any:
    """Copy to the device, in C order."""
    cuda = require()
    return cuda.to_device(np.ascontiguousarray(array))


def to_numpy(array: Any) -> np.ndarray:
    """Copy to the host, once the work that computes the array is done."""
    require()
    from rnnbench.impls.numba_cuda.arrays import contiguous

    return contiguous(array).copy_to_host()


def supports(spec: Spec) -> str | None:
    return "numba_cuda's kernels compute in float32 and float64." if spec.dtype == "bfloat16" else None
