"""Numba on the CPU: loops over time compiled to machine code around BLAS products.

Arrays are numpy.ndarray; ones that are not C-contiguous are copied.  Products use the BLAS that SciPy brings, with the
process's number of threads unless ``load`` is given another.  The first call of a cell compiles its loops (seconds);
later processes load them from Numba's cache.
"""

from collections.abc import Mapping
from typing import Any

import numba
import numpy as np
import threadpoolctl

from rnnbench.arrays import NumpyArrays
from rnnbench.backend import Network, State
from rnnbench.impls.numba_cpu.layer import Layer
from rnnbench.spec import Spec
from rnnbench.stack import StackedNetwork


class NumbaNetwork(StackedNetwork):
    """The stack of compiled layers."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray]) -> None:
        super().__init__(spec, params, Layer(spec), NumpyArrays(spec.numpy_dtype), np.ndarray)


class _Limited(NumbaNetwork):
    """The same with its own number of BLAS threads, set while it runs."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], threads: int) -> None:
        self._threads, self._pools = threads, threadpoolctl.ThreadpoolController()
        super().__init__(spec, params)

    def _forward(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        with self._pools.limit(limits=self._threads, user_api="blas"):
            return super()._forward(x, state)

    def _record(self, x: np.ndarray, state: State) -> tuple[np.ndarray, State, Any]:
        with self._pools.limit(limits=self._threads, user_api="blas"):
            return super()._record(x, state)

    def _backward(self, content: Any, dy: np.ndarray, dstate: State) -> Any:
        with self._pools.limit(limits=self._threads, user_api="blas"):
            return super()._backward(content, dy, dstate)


def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    return NumbaNetwork(spec, params) if threads is None else _Limited(spec, params, threads)


def asarray(array: np.ndarray) -> np.ndarray:
    return np.asarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Calls return when they are done."""


def supports(spec: Spec) -> str | None:
    return None


def info() -> dict[str, Any]:
    blas = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    return {
        "numba": numba.__version__,
        "blas": ", ".join(f"{pool['internal_api']} {pool['version']}" for pool in blas),
        "device": "cpu",
        "threads": max((pool["num_threads"] for pool in blas), default=1),
    }
