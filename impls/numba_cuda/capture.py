"""State of CUDA graph capture: keeps alive what a graph needs, and refuses work that a graph cannot hold."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rnnbench.errors import ArgumentError, CaptureError
from rnnbench.impls.numba_cuda.device import simulated

_NEEDED: ContextVar[list[Any] | None] = ContextVar("needed", default=None)
"""Objects needed by the graph that this thread is capturing."""


@contextmanager
def into(needed: list[Any]) -> Iterator[None]:
    """Mark this thread's work as captured into a graph; what it needs is appended to ``needed``."""
    before = _NEEDED.set(needed)
    try:
        yield
    finally:
        _NEEDED.reset(before)


def underway() -> bool:
    return _NEEDED.get() is not None


def keep(*needed: Any) -> None:
    """Keep objects alive for the graph being captured, if any: the graph itself only holds addresses."""
    kept = _NEEDED.get()
    if kept is not None:
        kept.extend(needed)


def refuse(what: str) -> None:
    """Raise CaptureError during a capture, which the work described by ``what`` would end."""
    if underway():
        raise CaptureError(
            f"this call would {what} while a CUDA graph is being captured; "
            "expected only what the same function did in the calls before the capture"
        )


def refuse_others(stream: int) -> None:
    """Raise CaptureError if other code captures: its graph would write to memory that later calls reuse."""
    if not underway() and _captures(stream):
        raise CaptureError(
            "a CUDA graph is being captured that is not one of rnnbench.impls.numba_cuda.graphs.captured, "
            "so later calls would reuse its memory; expected the function to be captured with that one"
        )


def _captures(stream: int) -> bool:
    if simulated():
        from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

        return DRIVER.capturing
    if stream:
        from cuda.bindings import driver  # pyright: ignore[reportAttributeAccessIssue]  # a compiled module

        error, status = driver.cuStreamIsCapturing(stream)
        if error != driver.CUresult.CUDA_SUCCESS:
            raise ArgumentError(f"stream {stream:#x} is refused by the driver ({error.name}); expected the handle of a stream")
        return status != driver.CUstreamCaptureStatus.CU_STREAM_CAPTURE_STATUS_NONE
    torch = sys.modules.get("torch")  # torch's capture does not see the default stream: kernels there would run at once
    return torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
