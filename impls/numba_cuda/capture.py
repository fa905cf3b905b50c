"""Whether a CUDA graph is being captured: what it needs is kept alive, and what it cannot hold is refused beforehand."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rnnbench.errors import ArgumentError, CaptureError
from rnnbench.impls.numba_cuda.device import simulated

_NEEDED: ContextVar[list[Any] | None] = ContextVar("needed", default=None)
"""What the graph that is being captured needs, by this thread."""


@contextmanager
def into(needed: list[Any]) -> Iterator[None]:
    """While it holds, this thread's work goes into a graph that is given ``needed`` to keep."""
    before = _NEEDED.set(needed)
    try:
        yield
    finally:
        _NEEDED.reset(before)


def underway() -> bool:
    return _NEEDED.get() is not None


def keep(*needed: Any) -> None:
    """Let the graph that is being captured, if one is, keep what its kernels read or are: it knows no more than addresses."""
    kept = _NEEDED.get()
    if kept is not None:
        kept.extend(needed)


def refuse(what: str) -> None:
    """Raise CaptureError where a graph is being captured, whose capture would end at once."""
    if underway():
        raise CaptureError(
            f"this call would {what} while a CUDA graph is being captured; "
            "expected only what the same function did in the calls before the capture"
        )


def refuse_others(stream: int) -> None:
    """Raise CaptureError where somebody else captures: their graph would write where later calls keep their results."""
    if not underway() and _captures(stream):
        raise CaptureError(
            "a CUDA graph is being captured that is not one of rnnbench.impls.numba_cuda.graphs.captured, "
            "and a network's memory would not stay the graph's; capture the function with it"
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
    torch = sys.modules.get("torch")  # its capture does not see the default stream: kernels there would run at once
    return torch is not None and torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()
