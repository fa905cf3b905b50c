"""Shared by the PyTorch backends: conversion, the thread setting, and BPTT by autograd, on any device.

Both conversions copy, so changing a NumPy array never affects an autograd graph.  If a caller changes y, x or a state in
place with torch before using the tape, ``backward`` either is unaffected, because the graph did not keep the tensor, or raises
torch's RuntimeError.
"""

import contextlib
import functools
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from rnnbench.errors import ArgumentError
from rnnbench.networks.arrays import StandardArrays, check_plain
from rnnbench.networks.bfloat16 import bfloat16, is_bfloat16
from rnnbench.networks.checked import CheckedNetwork
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec
from rnnbench.networks.threads import Limits

CPU = torch.device("cpu")

_PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Tensor classes that carry nothing but their values."""


class Recorded(NamedTuple):
    """One forward pass as autograd sees it: its results, and the leaves to differentiate with respect to."""

    y: torch.Tensor
    final: State
    weights: dict[str, torch.Tensor]
    x: torch.Tensor
    state: State


class AutogradNetwork(CheckedNetwork):
    """A network of torch operations; subclasses implement ``_run``, and autograd computes the gradients.

    Takes tensors on ``device`` with any strides.  Results are plain tensors without history, even inside torch.no_grad or
    torch.inference_mode.  ``limits`` applies while a call runs.
    """

    array_type = torch.Tensor
    takes_lengths = True
    _weights: dict[str, torch.Tensor]

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], limits: Limits, device: torch.device = CPU) -> None:
        self._device = device
        self.arrays = _Arrays(torch.empty(0, dtype=getattr(torch, spec.dtype), device=device))
        super().__init__(spec, params, limits)

    def _set_params(self, params: Params) -> None:
        # new leaves, never changed in place: older tapes keep theirs
        with torch.inference_mode(False):
            self._set_weights({name: asarray(value, self._device) for name, value in params.items()})

    @abstractmethod
    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Store new tensors and set ``_weights``, the leaves that ``_run`` reads."""

    @abstractmethod
    def _run(self, x: torch.Tensor, state: State, lengths: np.ndarray | None = None) -> tuple[torch.Tensor, State]:
        """Compute y and the final state, which share no memory with x or state, with differentiable operations."""

    def _forward(self, x: torch.Tensor, state: State, *lengths: np.ndarray) -> tuple[torch.Tensor, State]:
        # not inference mode: the caller's autograd cannot use inference tensors
        with undisturbed(), torch.no_grad():
            return self._run(x, state, *lengths)

    def _record(self, x: torch.Tensor, state: State, *lengths: np.ndarray) -> tuple[torch.Tensor, State, Recorded]:
        with undisturbed():
            x, state = _leaf(x), tuple(_leaf(part) for part in state)
            y, final = self._run(x, state, *lengths)
            content = Recorded(y, final, self._weights, x, state)
            return y.detach(), tuple(part.detach() for part in final), content

    def _backward(self, content: Recorded, dy: torch.Tensor, dstate: State) -> Gradients:
        with undisturbed():
            leaves = (*content.weights.values(), content.x, *content.state)
            outputs = [(content.y, dy), *zip(content.final, dstate, strict=True)]
            # y depends on no leaf, and no output on the weights, where all rows have length 0
            results, cotangents = zip(*(pair for pair in outputs if pair[0].requires_grad), strict=True)
            grads = torch.autograd.grad(results, leaves, cotangents, materialize_grads=True)
        count = len(content.weights)
        return Gradients(dict(zip(content.weights, grads[:count], strict=True)), grads[count], grads[count + 1 :])

    def _check_place(self, name: str, array: torch.Tensor) -> None:
        if type(array) not in _PLAIN:
            kind = type(array)
            raise ArgumentError(f"{name} is a {kind.__module__}.{kind.__name__}; expected a plain torch.Tensor")
        if array.layout != torch.strided:
            raise ArgumentError(f"{name} has layout {array.layout}; expected torch.strided, a dense tensor")
        if array.device != self._device:
            raise ArgumentError(f"{name} is on device {array.device}; expected {self._device}")


_MKLDNN: Any = torch.backends.mkldnn
_PRECISIONS = [getattr(_MKLDNN, name) for name in ("matmul", "rnn") if hasattr(_MKLDNN, name)]
"""Settings of the float32 precision of products on the CPU; PyTorch before 2.9 has none."""


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Enable gradients, compute in the tensors' own dtype and turn off anomaly checks, whatever the caller has set."""
    with torch.inference_mode(False), contextlib.ExitStack() as changed:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                changed.enter_context(torch.autocast(device, enabled=False))
        if torch.is_anomaly_enabled():
            changed.enter_context(torch.autograd.set_detect_anomaly(False))
        for setting in _PRECISIONS:
            if setting.fp32_precision not in ("none", "ieee"):
                changed.callback(setattr, setting, "fp32_precision", setting.fp32_precision)
                setting.fp32_precision = "ieee"
        yield


class _Arrays(StandardArrays):
    """Array operations, shielded from the caller's settings too."""

    def zeros(self, shape: tuple[int, ...]) -> torch.Tensor:
        with undisturbed():
            return super().zeros(shape)

    def concat(self, arrays: Sequence[torch.Tensor], axis: int) -> torch.Tensor:
        with undisturbed():
            return super().concat(arrays, axis)

    def add(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        with undisturbed():
            return super().add(a, b)


def _leaf(array: torch.Tensor) -> torch.Tensor:
    """The same values as a leaf tensor; shares memory unless the tensor was made in inference mode."""
    return (array.clone() if array.is_inference() else array).detach().requires_grad_()


def thread_limits(threads: int | None) -> Limits:
    """A context that sets torch's intra-op threads; None leaves the process's setting."""
    return contextlib.nullcontext if threads is None else functools.partial(limited, threads)


@contextlib.contextmanager
def limited(threads: int) -> Iterator[None]:
    """Set torch's intra-op threads, then restore them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def asarray(array: np.ndarray, device: torch.device = CPU) -> torch.Tensor:
    """Copy a NumPy array of any strides, read-only or not, into a contiguous tensor of the same dtype."""
    check_plain("the array", array)
    copy = np.array(array, order="C")
    if is_bfloat16(copy.dtype):  # torch does not convert NumPy arrays of bfloat16
        return torch.from_numpy(copy.view(np.int16)).view(torch.bfloat16).to(device)
    return torch.from_numpy(copy).to(device)


def to_numpy(array: torch.Tensor) -> np.ndarray:
    """Copy a tensor into a NumPy array of the same dtype."""
    if array.dtype == torch.bfloat16:
        return array.detach().contiguous().view(torch.int16).numpy(force=True).copy().view(bfloat16())
    return array.numpy(force=True).copy()


def supports_lengths(spec: Spec) -> str | None:
    return None


def synchronize() -> None:
    """Does nothing: on the CPU torch returns when it is done."""


def info() -> dict[str, Any]:
    return {
        "torch": str(torch.__version__),  # JSON cannot encode a TorchVersion
        "onednn": torch.backends.mkldnn.is_available(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "device": str(CPU),
        "threads": torch.get_num_threads(),
    }
