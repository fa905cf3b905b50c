"""The networks of ``jax_scan`` on a GPU, compiled by XLA for CUDA.

Arrays are jax.Array on the first CUDA device; ``asarray`` and ``to_numpy`` copy.  Calls return before XLA is done;
``synchronize`` waits.  The first call with a new shape, dtype or phase compiles.  Products of float32 use float32, not
TF32: JAX's matmul precision is set to the highest in the calling thread while a network runs.
"""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np

from rnnbench.errors import BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network
from rnnbench.networks.spec import Spec

try:
    import jax
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"jax_cuda needs JAX: {how_to_install('cuda-peers')}") from error

from rnnbench.impls.jax_scan import (
    THREADS,
    Device,
    ScanNetwork,
    as_it_is,
    placed,
    supports,
    supports_lengths,
    synchronize,
    to_numpy,
)  # fmt: skip

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy", "unavailable"]


@functools.cache
def device() -> Device:
    """The first CUDA device; raises RuntimeError where JAX has none."""
    return jax.devices("cuda")[0]


@contextlib.contextmanager
def highest_precision(dtype: Any) -> Iterator[None]:
    """Keep arrays and products in their dtype, for this thread only."""
    with as_it_is(dtype), jax.default_matmul_precision("highest"):
        yield


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Put the weights on the device; ``threads`` has no effect on a GPU."""
    return ScanNetwork(spec, params, device(), highest_precision)


def asarray(array: np.ndarray) -> jax.Array:
    """Copy a NumPy array to the device, in the same dtype."""
    return placed(array, device())


def unavailable() -> str | None:
    """Why JAX cannot use CUDA here, in one sentence, or None."""
    try:
        device()
    except RuntimeError as error:
        message = " ".join(str(error).split())
        return f"JAX finds no CUDA device ({message}); one is needed, and {how_to_install('cuda-peers')}"
    return None


def info() -> dict[str, Any]:
    """Versions and device; ``threads`` is the size of XLA's thread pool on the host."""
    facts = {"jax": jax.__version__, "jaxlib": version("jaxlib"), "tf32": "off"}
    return facts | {"device": device().device_kind, "threads": THREADS}
