"""Numba on the CPU: loops over time compiled to machine code around BLAS products.

Arrays are numpy.ndarray; ones that are not C-contiguous are copied.  Products use the BLAS that SciPy brings, with the
process's number of threads unless ``load`` is given another.  The first call of a cell compiles its loops (seconds);
later processes load them from Numba's cache.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import scipy.linalg.cython_blas  # noqa: F401  # the BLAS that compiled code calls: loaded now, so that its threads can be set

from rnnbench.arrays import NumpyArrays
from rnnbench.backend import Network
from rnnbench.impls._host import asarray, supports, synchronize, to_numpy
from rnnbench.impls.numba_cpu.layer import Layer
from rnnbench.spec import Spec
from rnnbench.stack import StackedNetwork
from rnnbench.threads import blas_info, blas_limits

__all__ = ["asarray", "info", "load", "supports", "synchronize", "to_numpy"]


def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    return StackedNetwork(spec, params, Layer(spec), NumpyArrays(spec.numpy_dtype), np.ndarray, blas_limits(threads))


def info() -> dict[str, Any]:
    return {"numba": numba.__version__, "device": "cpu"} | blas_info()
