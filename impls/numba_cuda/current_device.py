"""The current device, or the simulator: its limits, facts about it, and synchronisation."""

import functools
from importlib.metadata import version
from typing import Any

from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.device import UNTRIED, require, simulated
from rnnbench.impls.numba_cuda.regimes import HOPPER, SIMULATED, Limits
from rnnbench.networks.spec import Spec


@functools.cache
def device_limits() -> Limits:
    """Limits of the current device."""
    cuda = require()
    if simulated():
        return SIMULATED
    from rnnbench.impls.numba_cuda.launching import clusters_at_once
    from rnnbench.impls.numba_cuda.products import torch_has_cuda

    device = cuda.get_current_device()
    cluster = HOPPER.cluster if device.compute_capability >= (9, 0) else 0
    shared = device.MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    multiprocessors = device.MULTIPROCESSOR_COUNT
    several = [2**power for power in range(1, cluster.bit_length())]
    return HOPPER._replace(
        cluster=cluster,
        multiprocessors=multiprocessors if device.compute_capability >= (7, 0) else 0,
        shared=shared,
        tensor_cores=device.compute_capability >= (8, 0),
        at_once=(multiprocessors, *(clusters_at_once(blocks, shared) for blocks in several)),
        cublas=torch_has_cuda(),
    )


def info(spec: Spec | None = None, batch: int = 1) -> dict[str, Any]:
    """Versions, the name of the device (or "simulator"), a note on the kernels and, for a spec, the regime for a batch."""
    cuda = require()
    if simulated():
        device = "simulator"
    else:
        name = cuda.get_current_device().name
        device = name.decode() if isinstance(name, bytes) else name
    facts = {"numba": version("numba"), "numba_cuda": version("numba-cuda"), "device": device, "note": UNTRIED}
    if spec is None:
        return facts
    return facts | {"regime": choose(spec, device_limits(), batch).name}


def synchronize() -> None:
    cuda = require()
    capture.refuse("wait for the device")
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        DRIVER.synchronise()
    else:
        cuda.synchronize()
