"""Which calls run on numba_cpu, and why others do not."""

from collections.abc import Sequence
from typing import Any

import torch

from rnnbench.torch.arrays import DTYPES

_PLAIN = (torch.Tensor, torch.nn.Parameter)

_interpreters = torch._C._functorch.peek_interpreter_stack
_modes = torch._C._len_torch_dispatch_stack
_tracing = torch._C._get_tracing_state


def surroundings() -> str | None:
    """Why torch has to see each of its operations here, or None."""
    if _modes():
        return "a dispatch mode sees torch's own operations alone"
    if _interpreters() is not None:
        return "torch.func transforms torch's own operations alone"
    if _tracing() is not None:
        return "torch.jit.trace records torch's own operations alone"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation needs torch's own operations"
    return None


def weights(tensors: Sequence[Any]) -> str | None:
    """Why a module with these weights does not run on numba_cpu, or None."""
    first = tensors[0]
    for tensor in tensors:
        if type(tensor) not in _PLAIN:
            return f"a weight is a {type(tensor).__module__}.{type(tensor).__qualname__}, not a plain tensor"
        if not tensor.is_cpu:
            return f"the weights are on {tensor.device}, not on the CPU"
        if tensor.dtype not in DTYPES or tensor.dtype is not first.dtype:
            return f"a weight has dtype {tensor.dtype}; numba_cpu runs {', '.join(DTYPES.values())}, one for all weights"
        if tensor.layout is not torch.strided:
            return f"a weight has layout {tensor.layout}, not torch.strided"
    return None


def argument(tensor: Any, dtype: torch.dtype, shape: tuple[int | None, ...]) -> str | None:
    """Why an input or a state does not run on numba_cpu, or None; torch may refuse it, too."""
    if type(tensor) not in _PLAIN:
        return f"an argument is a {type(tensor).__module__}.{type(tensor).__qualname__}, not a plain tensor"
    if tensor.dtype is not dtype or not tensor.is_cpu or tensor.layout is not torch.strided or tensor.is_neg():
        return f"an argument is {tensor.dtype} on {tensor.device}; expected dense {dtype} on the CPU"
    own = tensor.shape
    if len(own) != len(shape) or any(a != b for a, b in zip(own, shape, strict=True) if b is not None):
        return f"an argument has shape {tuple(own)}; expected {shape}"
    if not tensor.numel():
        return f"an argument of shape {tuple(own)} is empty"
    return None
