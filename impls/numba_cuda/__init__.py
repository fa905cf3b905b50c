"""Numba CUDA kernels, not yet run on a GPU: one launch for all time steps where weights fit on the chip, else a few per step.

Arrays are ``numba.cuda`` device arrays.  Without a GPU everything runs in the simulator (``simulator``) if
``RNNBENCH_SIMULATE_CUDA=1`` is set before the first call.  Importing this package needs neither GPU nor numba-cuda:
``unavailable`` says what is missing, and functions that need it raise BackendUnavailable.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.impls.numba_cuda.cells import why_not
from rnnbench.impls.numba_cuda.current_device import info, synchronize
from rnnbench.impls.numba_cuda.device import require, simulated, unavailable
from rnnbench.networks.arrays import check_plain
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import DeviceTimer, Network
from rnnbench.networks.spec import Spec

__all__ = ["asarray", "device_timer", "info", "load", "supports", "synchronize", "to_numpy", "unavailable"]


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Put the weights on the device; ``threads`` has no effect on a GPU."""
    require()
    from rnnbench.impls.numba_cuda.network import CudaNetwork

    return CudaNetwork(spec, params)


def asarray(array: np.ndarray) -> Any:
    """Copy to the device, in C order."""
    require()
    from rnnbench.impls.numba_cuda.arrays import on_device

    check_plain("the array", array)
    return on_device(np.ascontiguousarray(array))


def to_numpy(array: Any) -> np.ndarray:
    """Wait for the array, and copy it to the host."""
    require()
    from rnnbench.impls.numba_cuda.arrays import on_host

    return on_host(array)


def device_timer() -> DeviceTimer | None:
    """CUDA events on the stream of the kernels; None in the simulator, which has no clock."""
    require()
    if simulated():
        return None
    from rnnbench.impls.numba_cuda.event_timer import EventTimer

    return EventTimer()


def supports(spec: Spec) -> str | None:
    if spec.projection_size is not None:
        return "numba_cuda has no projection yet."
    return why_not(spec.kind)
