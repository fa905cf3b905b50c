"""Peak resident memory of a call, as the kernel counts it; Linux with glibc only."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RESET_PEAK = "5"


def measurable() -> bool:
    """Return whether the kernel's peak can be reset and the allocator returns freed memory to the system."""
    return _CLEAR_REFS.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")


def peak_above(call: Callable[[], object]) -> int:
    """Return the peak rise of this process's resident memory during ``call``, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR_REFS.write_text(_RESET_PEAK)
    before = _resident("VmRSS")
    call()
    return _resident("VmHWM") - before


def _resident(field: str) -> int:
    return int(_STATUS.read_text().split(f"{field}:")[1].split()[0]) * 1024
