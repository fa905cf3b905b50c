"""Which calls run on numba_cpu, and why others do not.  Each function returns None, or the reason as ``runs_on`` gives it."""

from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from rnnbench.torch.arrays import DTYPES

_PLAIN = (torch.Tensor, torch.nn.Parameter)
"""Tensor classes that carry nothing but their values."""

_CASTS = (torch.float32, torch.bfloat16)
"""dtypes that autocast converts."""

_torch: Any = torch._C
_interpreters = _torch._functorch.peek_interpreter_stack
_modes = _torch._len_torch_dispatch_stack
_tracing = _torch._get_tracing_state


def surroundings() -> str | None:
    """Whether somebody watches torch's operations here, who would not see what numba_cpu does."""
    if _modes():
        return "a dispatch mode is active, which sees only torch's operations"
    if _interpreters() is not None:
        return "torch.func transforms only torch's operations"
    if _tracing() is not None:
        return "torch.jit.trace records only torch's operations"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation needs torch's operations"
    return None


def weights(tensors: Sequence[Any]) -> str | None:
    """Whether all weights are plain dense tensors of one dtype on the CPU."""
    dtype = getattr(tensors[0], "dtype", None)
    for tensor in tensors:
        if not (
            type(tensor) in _PLAIN and tensor.is_cpu and tensor.dtype is dtype in DTYPES and tensor.layout is torch.strided
        ):
            return _fault_of_weight(tensor)
    return None


def _fault_of_weight(tensor: Any) -> str:
    if type(tensor) not in _PLAIN:
        return f"a weight is a {type(tensor).__module__}.{type(tensor).__qualname__}, not a plain tensor"
    if not tensor.is_cpu:
        return f"a weight is on {tensor.device}, not on the CPU"
    if tensor.layout is not torch.strided:
        return f"a weight has layout {tensor.layout}, not torch.strided"
    return f"a weight is {tensor.dtype}; all have to be one of {', '.join(DTYPES.values())}"


def dtypes(of_weights: torch.dtype) -> tuple[torch.dtype, Collection[torch.dtype]]:
    """The dtype in which a call computes, and those of its arguments; autocast's in the place of the weights'."""
    if not torch.is_autocast_enabled("cpu") or of_weights not in _CASTS:
        return of_weights, (of_weights,)
    return torch.get_autocast_dtype("cpu"), _CASTS


def computed(dtype: torch.dtype) -> str | None:
    return None if dtype in DTYPES else f"autocast computes in {dtype}; numba_cpu in {', '.join(DTYPES.values())}"


def arguments(module: torch.nn.RNNBase, given: Any, hx: Any, allowed: Collection[torch.dtype]) -> str | None:
    """Whether an input and a state fit the module; those that do not are torch's to refuse or to compute."""
    is_packed = isinstance(given, PackedSequence)
    x = given.data if is_packed else given
    if reason := _tensor("the input", x, allowed):
        return reason
    axes, shape = len(x.shape), x.shape
    if axes not in ((2,) if is_packed else (2, 3)) or shape[-1] != module.input_size:
        return f"the input has shape {tuple(shape)}; expected {module.input_size} features last"
    if hx is None:
        return None
    widths = (module.proj_size or module.hidden_size, module.hidden_size)[: 1 + (module.mode == "LSTM")]
    state = hx if module.mode == "LSTM" else (hx,)
    if not isinstance(state, tuple | list) or len(state) != len(widths):
        return f"hx is a {type(hx).__name__}; expected {len(widths)} tensors"
    batch = (int(given.batch_sizes[0]),) if is_packed else () if axes == 2 else (shape[0 if module.batch_first else 1],)
    count = module.num_layers * (1 + module.bidirectional)
    for part, width in zip(state, widths, strict=True):
        if reason := _tensor("hx", part, allowed):
            return reason
        if part.shape != (count, *batch, width):
            return f"hx has shape {tuple(part.shape)}; expected {(count, *batch, width)}"
    return None


def _tensor(name: str, tensor: Any, allowed: Collection[torch.dtype]) -> str | None:
    if type(tensor) not in _PLAIN:
        return f"{name} is a {type(tensor).__module__}.{type(tensor).__qualname__}, not a plain tensor"
    if not tensor.is_cpu:
        return f"{name} is on {tensor.device}, not on the CPU"
    if tensor.dtype not in allowed:
        return f"{name} is {tensor.dtype}; expected {' or '.join(map(str, allowed))}"
    if tensor.layout is not torch.strided or tensor.is_neg():
        return f"{name} has layout {tensor.layout} or a pending negation; expected a dense tensor"
    return None if tensor.numel() else f"{name} of shape {tuple(tensor.shape)} is empty"


def fits_a_graph(module: torch.nn.RNNBase, given: Any) -> bool:
    """Whether a graph can have operators of numba_cpu in the place of the module."""
    weights = [getattr(module, name) for name in module._flat_weights_names]
    dtype = weights[0].dtype
    return (
        isinstance(given, torch.Tensor)
        and given.dim() in (2, 3)
        and dtype in DTYPES
        and all(tensor.is_cpu and tensor.dtype is dtype for tensor in (given, *weights))
        and not torch.is_autocast_enabled("cpu")
    )
