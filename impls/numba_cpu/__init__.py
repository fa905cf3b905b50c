"""Numba on the CPU: loops over time and matrix products, all compiled from Python.

Arrays are numpy.ndarray; arrays that are not C-contiguous are copied.  ``load`` sets the number of threads, by default
NUMBA_NUM_THREADS or all cores; they divide the batch.  The first call of a cell compiles its loops for seconds; later
processes load them from Numba's cache (in NUMBA_CACHE_DIR where that is set).

float16 layers compute in float32: their arrays are converted on the way in and out.
"""

import functools
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numba
import numpy as np

from rnnbench.impls._host import InFloat32, asarray, supports, supports_lengths, synchronize, to_numpy
from rnnbench.impls.numba_cpu.layer import Layer
from rnnbench.impls.numba_cpu.parts import CompiledParts
from rnnbench.impls.numba_cpu.stream import CompiledNetwork
from rnnbench.impls.numba_cpu.workers import Workers
from rnnbench.jit.compiler import require_jit, unavailable
from rnnbench.jit.target import current_target
from rnnbench.networks.arrays import NumpyArrays, numpy_errors
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network
from rnnbench.networks.spec import Spec

__all__ = ["asarray", "info", "load", "parts", "supports", "supports_lengths", "synchronize", "to_numpy", "unavailable"]


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    require_jit()
    workers = Workers(threads)
    runner = functools.partial(workers.run_directions, spec)
    in_float32 = spec.dtype == "float16"
    layer = InFloat32(Layer(replace(spec, dtype="float32"), workers), spec.numpy_dtype) if in_float32 else Layer(spec, workers)
    return CompiledNetwork(spec, params, layer, NumpyArrays(spec.numpy_dtype), np.ndarray, numpy_errors, runner)


def parts(dtype: str, *, threads: int | None = None) -> CompiledParts:
    """Return the parts of models of float32 or float64."""
    require_jit()
    return CompiledParts(dtype, threads)


def info() -> dict[str, Any]:
    return {"numba": numba.__version__, "device": "cpu", "kernels": current_target().name, "threads": numba.get_num_threads()}
