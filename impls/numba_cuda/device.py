"""Checks whether kernels can run here, on a GPU or in the simulator, and says what is missing."""

import functools
import importlib.util
import os
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Any

from rnnbench.errors import BackendUnavailable
from rnnbench.installing import how_to_install

INSTALL = how_to_install("cuda")
SIMULATE = "rnnbench check --device simulator"

BOUNDED = ("numba-cuda", "cuda-core", "cuda-bindings", "numpy")
"""Packages whose unsupported versions fail only late; the extra ``cuda`` gives their bounds."""

UNTRIED = "its kernels have not run on a GPU yet"

SIMULATION = "RNNBENCH_SIMULATE_CUDA"
"""Environment variable; set to 1, kernels run in the simulator, without a GPU."""


def unavailable() -> str | None:
    """Why kernels cannot run here, in one sentence, or None."""
    missing = _missing_package()
    if missing:
        return missing
    return _missing_simulator() if asked_to_simulate() else _missing_gpu() or missing_compiler()


@functools.cache  # caches success only; ``synchronize`` calls it around timed code
def require() -> Any:
    """Return the module ``numba.cuda``; raises BackendUnavailable with the reason where kernels cannot run."""
    reason = unavailable()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot run here: {reason}")
    from numba import cuda

    return cuda


def asked_to_simulate() -> bool:
    """Whether the environment asks for the simulator."""
    return os.environ.get(SIMULATION) == "1"


@functools.cache  # reading the environment is slow, and every launch asks
def simulated() -> bool:
    """Whether kernels run in the simulator; decided on the first call."""
    return asked_to_simulate()


def missing_compiler() -> str | None:
    """Why kernels cannot be compiled, or None; compiling needs numba-cuda, but neither GPU nor driver."""
    missing = _missing_package()
    if missing:
        return missing
    from cuda import pathfinder

    for library in ("nvvm", "nvrtc", "nvJitLink"):
        try:
            pathfinder.load_nvidia_dynamic_lib(library)
        except pathfinder.DynamicLibNotFoundError:
            return f"the CUDA compiler library {library} was not found: {INSTALL}"
    return None


def _missing_package() -> str | None:
    # importing numba.cuda proves nothing: numba itself may contain an old one
    if importlib.util.find_spec("numba_cuda") is None:
        return f"numba-cuda is missing: {INSTALL}"
    if unfit := _unfit_package():
        return unfit
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        return f"NUMBA_ENABLE_CUDASIM is 1, and Numba's own simulator knows no clusters: unset it, or {SIMULATE}"
    try:
        importlib.import_module("numba.cuda")
    except ImportError as error:
        return f"numba.cuda cannot be imported ({_one_line(error)}): {INSTALL}"
    return None


def _unfit_package() -> str | None:
    """Why a package does not fit the extra ``cuda``, or None; with wrong versions numba-cuda fails only when it compiles."""
    from packaging.requirements import Requirement  # numba-cuda needs it too

    for needed in map(Requirement, requires("rnnbench") or ()):
        if needed.name in BOUNDED and needed.marker and needed.marker.evaluate({"extra": "cuda"}):
            try:
                found = version(needed.name)
            except PackageNotFoundError:
                return f"{needed.name} is missing: {INSTALL}"
            if not needed.specifier.contains(found, prereleases=True):
                return f"{needed.name} {found} is installed; expected {needed.specifier}: {INSTALL}"
    return None


def _missing_simulator() -> str | None:
    if importlib.util.find_spec("greenlet") is None:
        return f"the simulator needs greenlet: {how_to_install('cuda-offline')}"
    return None


def _missing_gpu() -> str | None:
    from numba import cuda
    from numba.cuda.cudadrv.driver import driver

    if not driver.is_available:
        why = _one_line(cuda.cuda_error())
        if "driver library cannot be found" in why:
            return f"no CUDA driver was found; a GPU is needed, or {SIMULATE} ({UNTRIED})"
        return f"the CUDA driver does not start ({why}); a GPU is needed, or {SIMULATE}"
    return None if driver.get_device_count() else f"the CUDA driver finds no GPU; one is needed, or {SIMULATE}"


def _one_line(message: object) -> str:
    return " ".join(str(message).split())
