"""Conversion of parameters from and to torch.nn.RNN, LSTM, GRU and their cells."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.arrays import numpy_errors
from rnnbench.networks.bfloat16 import bfloat16, is_bfloat16
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec, check_spec

_TORCH_CELLS = ("elman", "lstm", "gru")


def from_torch(spec: Spec, source: Any, prefix: str = "") -> Params:
    """Convert a torch.nn.RNN, LSTM, GRU or one of their cells.

    ``source``: the module, or its ``state_dict`` of tensors or NumPy arrays, on any device.
    ``prefix``: the prefix of the module's names inside a larger model, such as "encoder.rnn."; other names are ignored.
    All names with the prefix must be parameters of ``spec`` in its dtype.

    Weights under torch.nn.utils.weight_norm, old or new, are computed from g and v with NumPy's rounding.  Weights of other
    parametrizations need the module, which computes them.  Raises SpecError or ArgumentError.
    """
    _check_torch(spec)
    state_dict = source if isinstance(source, Mapping) else _of_module(source, prefix)
    found = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
    if prefix and not found:
        raise ArgumentError(f"no name starts with the prefix {prefix!r}; the names are {', '.join(state_dict)}")
    if spec.suffixes() == ["_l0"] and not any("_l0" in name for name in found):  # torch.nn.RNNCell, LSTMCell, GRUCell
        found = {_with_layer(name): value for name, value in found.items()}
    arrays = {name: _from_tensor(spec, prefix + name, value) for name, value in found.items()}
    return check_params(spec, _normed(spec, arrays))


def to_torch(spec: Spec, params: Mapping[str, np.ndarray], prefix: str = "") -> dict[str, Any]:
    """Return a dict of CPU tensors for ``load_state_dict`` of torch.nn.RNN, LSTM or GRU.

    ``prefix``: a prefix for each name.  Raises ArgumentError, or BackendUnavailable if torch is not installed.
    """
    _check_torch(spec)
    params = check_params(spec, params)
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(f"to_torch needs PyTorch: {how_to_install('torch')}") from error

    def tensor(value: np.ndarray) -> Any:  # check_params made copies
        if is_bfloat16(value.dtype):  # torch.from_numpy does not accept it
            return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(value)

    return {prefix + name: tensor(value) for name, value in params.items()}


def _check_torch(spec: Spec) -> None:
    check_spec(spec)
    if spec.cell not in _TORCH_CELLS:
        raise ArgumentError(f"cell is {spec.cell!r}; expected {', '.join(_TORCH_CELLS)}: torch.nn has no other")
    if spec.nonlinearity == "sigmoid":
        raise ArgumentError("nonlinearity is 'sigmoid'; expected 'tanh' or 'relu': torch.nn.RNN has no other")


def _of_module(module: Any, prefix: str) -> Mapping[str, Any]:
    """A module's ``state_dict``, with the computed parameters in place of the tensors that a parametrization stores."""
    if not callable(getattr(module, "state_dict", None)):
        raise ArgumentError(f"source is a {type(module).__name__}; expected a torch.nn.Module or its state_dict()")
    found = dict(module.state_dict())
    for name in [name for name in found if ".parametrizations." in f".{name}"]:
        owner, _, parameter = f".{name}".partition(".parametrizations.")
        owner, parameter = owner.removeprefix("."), parameter.split(".")[0]
        whole = f"{owner}.{parameter}".removeprefix(".")
        if whole.startswith(prefix):
            found[whole] = getattr(module.get_submodule(owner), parameter)
        del found[name]
    return found


def _with_layer(name: str) -> str:
    """The name in a layer of a cell's parameter; suffixes of weight_norm follow ``_l0``."""
    for whole in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        name = name.replace(whole, f"{whole}_l0")
    return name


def _from_tensor(spec: Spec, name: str, value: Any) -> Any:
    """A tensor's values as a NumPy array, which may share its memory; other objects unchanged, for check_params."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach()
    dtype = str(value.dtype).removeprefix("torch.")
    if value.is_quantized or dtype != spec.dtype:  # before .numpy(), which knows no bfloat16
        raise ArgumentError(f"{name} has dtype {dtype}; expected {spec.dtype}")
    if str(value.layout) != "torch.strided":
        raise ArgumentError(f"{name} has layout {value.layout}; expected torch.strided, a dense tensor")
    if value.device.type == "meta":
        raise ArgumentError(f"{name} is on device meta, which holds no values; expected any other device")
    value = value.resolve_neg().contiguous().cpu()
    if spec.dtype == "bfloat16":
        import torch

        return value.view(torch.int16).numpy().view(bfloat16())
    return value.numpy()


_NORMED = re.compile(r"(?:(?:parametrizations\.)(?P<new>\w+)\.original(?P<part>[01])|(?P<old>\w+)_(?P<letter>[gv]))")


def _normed(spec: Spec, arrays: dict[str, Any]) -> dict[str, Any]:
    """Compute the weights under torch.nn.utils.weight_norm: v with its rows or columns scaled to length g.

    Salimans and Kingma 2016, "Weight normalization".
    """
    shapes, parts, others = spec.param_shapes(), {}, {}
    for name, value in arrays.items():
        match = None if name in shapes else _NORMED.fullmatch(name)
        if match is None:
            others[name] = value
        else:
            letter = match["letter"] or "gv"[int(match["part"])]
            parts.setdefault(match["new"] or match["old"], {})[letter] = value
    if unread := [name for name in others if name.startswith("parametrizations.")]:
        raise ArgumentError(
            f"{', '.join(unread)} belong to a parametrization; expected weight_norm or none: pass the module instead of its "
            "state_dict, so that it computes the weights"
        )
    for name, part in parts.items():
        if part.keys() != {"g", "v"} or not all(isinstance(value, np.ndarray) for value in part.values()):
            raise ArgumentError(f"{name} has {' and '.join(sorted(part))}; expected arrays g and v of weight_norm")
        g, v = part["g"], part["v"]
        axes = tuple(axis for axis in range(v.ndim) if g.ndim != v.ndim or g.shape[axis] == 1)
        with numpy_errors():
            length = np.sqrt(np.sum(np.square(v), axis=axes or None, keepdims=True, dtype=v.dtype))
            others[name] = (v * (g / length)).astype(v.dtype)
    return others
