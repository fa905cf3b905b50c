"""Lossless conversion of parameters between rnnbench's layout, which is torch.nn's, and torch, ONNX and Keras.

Every conversion copies, keeps the dtype and moves values without arithmetic, so that there and back is the same to the
bit, but where ``to_keras`` is told to add two biases and where ``from_torch`` meets normed weights.
Gate orders in storage, with this package's names (ONNX and Keras call g "c" and n "h"):

    cell                      torch, rnnbench   ONNX      Keras     ONNX operator, Keras layer
    elman                     h                 h         h         RNN, SimpleRNN
    lstm                      i f g o           i o f g   i f g o   LSTM, LSTM
    gru                       r z n             z r n     z r n     GRU linear_before_reset=1, GRU reset_after=True
    gru_reset_before          r z n             z r n     z r n     GRU linear_before_reset=0, GRU reset_after=False

All four take the new state as h = z h' + (1 - z) n, so no sign changes.  jordan has no counterpart anywhere;
torch.nn has no gru_reset_before and no sigmoid elman.
Sources: torch.nn.LSTM, torch.nn.GRU; ONNX operators RNN, LSTM, GRU; keras.layers.SimpleRNN, LSTM, GRU.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.arrays import numpy_errors
from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.params import Params, check_params
from rnnbench.spec import BFLOAT16, Spec, check_spec

_TORCH_CELLS = ("elman", "lstm", "gru")
_ONNX_GATES = {"elman": ("h",), "lstm": ("i", "o", "f", "g"), "gru": ("z", "r", "n"), "gru_reset_before": ("z", "r", "n")}
_KERAS_GATES = {"elman": ("h",), "lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n"), "gru_reset_before": ("z", "r", "n")}


class OnnxWeights(NamedTuple):
    """Inputs of one ONNX operator RNN, LSTM or GRU: W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) or None without bias.

    B holds all input biases of a direction, then all recurrent ones.
    """

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None


class OnnxOperator(NamedTuple):
    """An ONNX operator's type and the attributes that its weights alone do not tell."""

    op_type: str
    attributes: dict[str, Any]


def from_torch(spec: Spec, source: Any, prefix: str = "") -> Params:
    """Read a torch.nn.RNN, LSTM, GRU or one of their cells: the module, or its ``state_dict`` of tensors or NumPy arrays.

    ``prefix``: what the module's names start with inside a larger model, such as "encoder.rnn."; names that start
    otherwise are left out, all others must be parameters of ``spec`` in its dtype, on any device.  Weights under
    torch.nn.utils.weight_norm, old or new, are what v and g make, rounded as NumPy rounds them; those of another
    parametrization are read from the module, which computes them.  Raises SpecError or ArgumentError.
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
    """Make the dict of CPU tensors that torch.nn.RNN(...), LSTM(...) or GRU(...).load_state_dict takes.

    ``prefix`` is put before each name.  Raises ArgumentError, or BackendUnavailable where torch is not installed.
    """
    _check_torch(spec)
    params = check_params(spec, params)
    try:
        import torch
    except ImportError as error:
        raise BackendUnavailable(f"to_torch needs PyTorch: {how_to_install('torch')}") from error

    def tensor(value: np.ndarray) -> Any:  # check_params made copies
        if value.dtype == BFLOAT16:  # which torch takes from no NumPy array
            return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
        return torch.from_numpy(value)

    return {prefix + name: tensor(value) for name, value in params.items()}


def onnx_operator(spec: Spec) -> OnnxOperator:
    """Name the ONNX operator that runs one layer of ``spec``, with its attributes; raises ArgumentError."""
    _gates(spec, _ONNX_GATES, "ONNX")
    attributes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "direction": "bidirectional" if spec.bidirectional else "forward",
    }
    if spec.cell == "elman":
        attributes["activations"] = [spec.nonlinearity.capitalize()] * spec.directions
    elif spec.cell != "lstm":
        attributes["linear_before_reset"] = int(spec.cell == "gru")
    return OnnxOperator("RNN" if spec.cell == "elman" else "LSTM" if spec.cell == "lstm" else "GRU", attributes)


def to_onnx(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0) -> OnnxWeights:
    """Lay out one layer for the operator that ``onnx_operator`` names (ONNX stacks no layers); raises ArgumentError."""
    gates = _gates(spec, _ONNX_GATES, "ONNX")
    params = check_params(spec, params)

    def stacked(name: str) -> np.ndarray:
        return np.stack([_reordered(params[name + suffix], spec.kind.gates, gates) for suffix in _suffixes(spec, layer)])

    bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], 1) if spec.bias else None
    return OnnxWeights(stacked("weight_ih"), stacked("weight_hh"), bias)


def from_onnx(spec: Spec, layers: Sequence[Sequence[np.ndarray | None]]) -> Params:
    """Read the weights (W, R, B) or, without bias, (W, R) of one ONNX operator for each layer of ``spec``.

    The operator's ``direction="reverse"`` is a forward network that reads its input from the last time step to the first.
    Peepholes P, which no cell here has, are refused with any other fourth array.  Raises ArgumentError.
    """
    gates = _gates(spec, _ONNX_GATES, "ONNX")
    _check_length(layers, spec.num_layers, "operators", "one (W, R, B) for each layer")
    params: Params = {}
    for layer, weights in enumerate(layers):
        names = ("W", "R", "B") if spec.bias else ("W", "R")
        given = [array for array in weights if array is not None]
        _check_length(given, len(names), f"arrays in layer {layer}", f"{', '.join(names)} with bias={spec.bias}")
        rows, inputs = len(gates) * spec.hidden_size, spec.layer_input_size(layer)
        shapes = ((rows, inputs), (rows, spec.hidden_size), (2 * rows,))
        for name, array, shape in zip(names, given, shapes, strict=False):
            _check_array(spec, f"{name} of layer {layer}", array, (spec.directions, *shape))
        for direction, suffix in enumerate(_suffixes(spec, layer)):
            ours = {"weight_ih": given[0][direction], "weight_hh": given[1][direction]}
            if spec.bias:
                ours["bias_ih"], ours["bias_hh"] = np.split(given[2][direction], 2)
            params |= {name + suffix: _reordered(array, gates, spec.kind.gates) for name, array in ours.items()}
    return check_params(spec, params)


def to_keras(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0, *, fold_bias: bool = False) -> list[np.ndarray]:
    """List one layer's arrays as its Keras counterpart's ``set_weights`` takes them.

    [kernel (I, G*H), recurrent_kernel (H, G*H), bias], without the last for bias=False, and the same again for the
    backward layer of ``keras.layers.Bidirectional``.  bias is (2, 3*H), input then recurrent, for gru; elsewhere Keras
    has one bias (G*H,) where torch has two.  It takes bias_ih, and bias_hh must be +0.0 throughout: their sum would
    round, and could not be taken apart again.  With ``fold_bias`` it takes that sum, bias_ih + bias_hh rounded once,
    which is not lossless; the network is the same up to that rounding.  Raises ArgumentError.
    """
    gates = _gates(spec, _KERAS_GATES, "Keras")
    params = check_params(spec, params)
    arrays = []
    for suffix in _suffixes(spec, layer):
        ours = {name: _reordered(params[name + suffix], spec.kind.gates, gates) for name in spec.layer_shapes(layer)}
        arrays += [np.ascontiguousarray(ours["weight_ih"].T), np.ascontiguousarray(ours["weight_hh"].T)]
        if spec.bias and spec.cell == "gru":
            arrays.append(np.stack([ours["bias_ih"], ours["bias_hh"]]))
        elif spec.bias:
            recurrent = ours["bias_hh"]
            others = int(np.count_nonzero((recurrent != 0) | np.signbit(recurrent)))
            if others and not fold_bias:
                raise ArgumentError(
                    f"bias_hh{suffix} has {others} values other than +0.0; expected none: Keras has one bias for {spec.cell}, "
                    "and a sum of two would not be lossless (fold_bias=True takes it)"
                )
            with numpy_errors():
                arrays.append(ours["bias_ih"] + recurrent if others else ours["bias_ih"])
    return arrays


def from_keras(spec: Spec, layers: Sequence[Sequence[np.ndarray]]) -> Params:
    """Read what ``get_weights`` of a Keras SimpleRNN, LSTM or GRU, or of a Bidirectional one, gives for each layer.

    The arrays are those of ``to_keras``; where Keras has one bias it becomes bias_ih, and bias_hh is zero.
    Raises ArgumentError.
    """
    gates = _gates(spec, _KERAS_GATES, "Keras")
    _check_length(layers, spec.num_layers, "layers", "one get_weights() for each layer")
    rows = len(gates) * spec.hidden_size
    names = ("kernel", "recurrent_kernel", "bias") if spec.bias else ("kernel", "recurrent_kernel")
    params: Params = {}
    for layer, weights in enumerate(layers):
        allowed = f"{', '.join(names)} for each of {spec.directions} directions with bias={spec.bias}"
        _check_length(weights, spec.directions * len(names), f"arrays in layer {layer}", allowed)
        shapes = ((spec.layer_input_size(layer), rows), (spec.hidden_size, rows), (2, rows) if spec.cell == "gru" else (rows,))
        for direction, suffix in enumerate(_suffixes(spec, layer)):
            given = dict(zip(names, weights[direction * len(names) :], strict=False))
            for (name, array), shape in zip(given.items(), shapes, strict=False):
                _check_array(spec, f"{name} of layer {layer}", array, shape)
            ours = {"weight_ih": given["kernel"].T, "weight_hh": given["recurrent_kernel"].T}
            if spec.bias:
                bias = given["bias"]
                ours["bias_ih"], ours["bias_hh"] = bias if spec.cell == "gru" else (bias, np.zeros_like(bias))
            params |= {name + suffix: _reordered(array, gates, spec.kind.gates) for name, array in ours.items()}
    return check_params(spec, params)


def _check_torch(spec: Spec) -> None:
    check_spec(spec)
    if spec.cell not in _TORCH_CELLS:
        raise ArgumentError(f"cell is {spec.cell!r}; expected {', '.join(_TORCH_CELLS)}: torch.nn has no other")
    if spec.nonlinearity == "sigmoid":
        raise ArgumentError("nonlinearity is 'sigmoid'; expected 'tanh' or 'relu': torch.nn.RNN has no other")


def _of_module(module: Any, prefix: str) -> Mapping[str, Any]:
    """A module's ``state_dict``; in the place of what a parametrization keeps, the parameters that it makes."""
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
    """A cell's parameter by the name that it has in a layer: what weight_norm adds to a name comes after the layer's."""
    for whole in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        name = name.replace(whole, f"{whole}_l0")
    return name


def _from_tensor(spec: Spec, name: str, value: Any) -> Any:
    """A tensor's values as a NumPy array that may share its memory; anything else as it is, for check_params."""
    if not hasattr(value, "detach"):
        return value
    value = value.detach()
    dtype = str(value.dtype).removeprefix("torch.")
    if value.is_quantized or dtype != spec.dtype:  # before .numpy(), which knows no bfloat16
        raise ArgumentError(f"{name} has dtype {dtype}; expected {spec.dtype}")
    if str(value.layout) != "torch.strided":
        raise ArgumentError(f"{name} has layout {value.layout}; expected torch.strided, a dense tensor")
    if value.device.type == "meta":
        raise ArgumentError(f"{name} is on device meta, which holds no values; expected a device that does")
    value = value.resolve_neg().contiguous().cpu()
    if spec.dtype == "bfloat16":
        import torch

        return value.view(torch.int16).numpy().view(BFLOAT16)
    return value.numpy()


_NORMED = re.compile(r"(?:(?:parametrizations\.)(?P<new>\w+)\.original(?P<part>[01])|(?P<old>\w+)_(?P<letter>[gv]))")


def _normed(spec: Spec, arrays: dict[str, Any]) -> dict[str, Any]:
    """The weights that torch.nn.utils.weight_norm makes: v, each row or column as long as g says (Salimans and Kingma 2016)."""
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
            f"{', '.join(unread)} belong to a parametrization; expected weight_norm's or none: pass the module, which computes "
            "the weights, in the place of its state_dict"
        )
    for name, part in parts.items():
        if part.keys() != {"g", "v"} or not all(isinstance(value, np.ndarray) for value in part.values()):
            raise ArgumentError(f"of {name} there is {' and '.join(sorted(part))}; expected the g and v of weight_norm")
        g, v = part["g"], part["v"]
        axes = tuple(axis for axis in range(v.ndim) if g.ndim != v.ndim or g.shape[axis] == 1)
        with numpy_errors():
            length = np.sqrt(np.sum(np.square(v), axis=axes or None, keepdims=True, dtype=v.dtype))
            others[name] = (v * (g / length)).astype(v.dtype)
    return others


def _gates(spec: Spec, gates: Mapping[str, tuple[str, ...]], library: str) -> tuple[str, ...]:
    check_spec(spec)
    if spec.cell not in gates:
        raise ArgumentError(f"cell is {spec.cell!r}; expected {', '.join(gates)}: {library} has no other")
    return gates[spec.cell]


def _suffixes(spec: Spec, layer: int) -> list[str]:
    """The suffixes of one layer's directions."""
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer) or not 0 <= layer < spec.num_layers:
        raise ArgumentError(f"layer is {layer!r}; expected an integer from 0 to {spec.num_layers - 1}")
    return spec.suffixes()[layer * spec.directions : (layer + 1) * spec.directions]


def _reordered(array: np.ndarray, stored: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
    """A copy whose gates, along the first axis, are in the wanted order."""
    blocks = dict(zip(stored, np.split(array, len(stored)), strict=True))
    return np.concatenate([blocks[gate] for gate in wanted])


def _check_length(given: Sequence[Any], length: int, what: str, allowed: str) -> None:
    if len(given) != length:
        raise ArgumentError(f"there are {len(given)} {what}; expected {length}: {allowed}")


def _check_array(spec: Spec, name: str, array: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray):
        raise ArgumentError(f"{name} is a {type(array).__module__}.{type(array).__name__}; expected a numpy.ndarray")
    if array.shape != shape:
        raise ArgumentError(f"{name} has shape {array.shape}; expected {shape}")
    if array.dtype != spec.numpy_dtype:
        raise ArgumentError(f"{name} has dtype {array.dtype}; expected {spec.dtype}")
