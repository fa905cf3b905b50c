"""torch.nn.RNN, LSTM and GRU on a GPU, through cuDNN wherever PyTorch uses it for them.

Arrays are torch.Tensor on the first CUDA device, with any strides; ``asarray`` and ``to_numpy`` copy.  Gradients come from
autograd.  Work goes to PyTorch's current stream.  Products of float32 use float32: TF32 is off while a network runs, and is
restored afterwards.  The flag belongs to the process, so work that other threads submit meanwhile runs without TF32 too.
"""

import contextlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import DeviceTimer, Network
from rnnbench.networks.spec import Spec

try:
    import torch
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"torch_cuda needs PyTorch: {how_to_install('cuda-peers')}") from error

from rnnbench.impls import _torch
from rnnbench.impls._torch import to_numpy
from rnnbench.impls.torch_nn import ModuleNetwork, supports, supports_lengths

__all__ = [
    "asarray", "device_timer", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy", "unavailable",
]  # fmt: skip

DEVICE = torch.device("cuda", 0)


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Build the module with copies of ``params``; ``threads`` has no effect on a GPU.

    Raises ArgumentError for networks that ``supports`` rejects.
    """
    reason = supports(spec)
    if reason:
        raise ArgumentError(f"torch_cuda cannot run this network: {reason}")
    return ModuleNetwork(spec, params, without_tf32, DEVICE)


@contextlib.contextmanager
def without_tf32() -> Iterator[None]:
    """Turn off TF32 in cuDNN's networks and in cuBLAS, then restore it."""
    # not the older allow_tf32, which raises once a process has used both
    flags: tuple[Any, Any] = (torch.backends.cudnn.rnn, torch.backends.cuda.matmul)
    before = [flag.fp32_precision for flag in flags]
    for flag in flags:
        flag.fp32_precision = "ieee"
    try:
        yield
    finally:
        for flag, precision in zip(flags, before, strict=True):
            flag.fp32_precision = precision


def asarray(array: np.ndarray) -> torch.Tensor:
    """Copy a NumPy array of any strides into a contiguous tensor of the same dtype on the device."""
    return _torch.asarray(array, DEVICE)


def synchronize() -> None:
    """Wait for all streams of the device."""
    torch.cuda.synchronize(DEVICE)


def device_timer() -> DeviceTimer:
    """CUDA events on the current stream."""
    return EventTimer()


class EventTimer:
    """Two events, each recorded on PyTorch's current stream."""

    def __init__(self) -> None:
        self._begin, self._end = (torch.cuda.Event(enable_timing=True) for _ in range(2))

    def start(self) -> None:
        self._begin.record(torch.cuda.current_stream(DEVICE))

    def stop(self) -> None:
        self._end.record(torch.cuda.current_stream(DEVICE))

    def seconds(self) -> float:
        self._end.synchronize()
        return self._begin.elapsed_time(self._end) * 1e-3


def unavailable() -> str | None:
    """Why PyTorch cannot use CUDA here, in one sentence, or None."""
    if not torch.backends.cuda.is_built():
        return f"this PyTorch, {torch.__version__}, is built without CUDA: install one that has it"
    if not hasattr(torch.backends.cudnn.rnn, "fp32_precision"):
        return f"this PyTorch, {torch.__version__}, is too old: {how_to_install('cuda-peers')}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return None
    reason = f" ({' '.join(str(caught[-1].message).split())})" if caught else ""
    return f"PyTorch finds no CUDA device{reason}"


def info() -> dict[str, Any]:
    return {
        "torch": str(torch.__version__),  # JSON cannot encode a TorchVersion
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "tf32": "off",
        "device": torch.cuda.get_device_name(DEVICE),
        "threads": torch.get_num_threads(),
    }
