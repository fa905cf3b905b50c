"""Conversion of parameters from and to the ONNX operators RNN, LSTM and GRU."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.networks.convert.gates import check_array, check_length, gate_order, layer_suffixes, reordered
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec

_ONNX_GATES = {"elman": ("h",), "lstm": ("i", "o", "f", "g"), "gru": ("z", "r", "n"), "gru_reset_before": ("z", "r", "n")}


class OnnxWeights(NamedTuple):
    """Weight inputs of an ONNX operator RNN, LSTM or GRU: W (D, G*H, I), R (D, G*H, H) and B (D, 2*G*H).

    B holds the input biases of a direction, then the recurrent ones; it is None without bias.
    """

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None


class OnnxOperator(NamedTuple):
    """The type and attributes of an ONNX operator."""

    op_type: str
    attributes: dict[str, Any]


def onnx_operator(spec: Spec) -> OnnxOperator:
    """Return the ONNX operator for one layer of ``spec``; raises ArgumentError."""
    gate_order(spec, _ONNX_GATES, "ONNX")
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
    """Return the weights of one layer for the operator of ``onnx_operator``; raises ArgumentError.

    ONNX operators have a single layer.
    """
    gates = gate_order(spec, _ONNX_GATES, "ONNX")
    params = check_params(spec, params)

    def stacked(name: str) -> np.ndarray:
        return np.stack([reordered(params[name + suffix], spec.kind.gates, gates) for suffix in layer_suffixes(spec, layer)])

    bias = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], 1) if spec.bias else None
    return OnnxWeights(stacked("weight_ih"), stacked("weight_hh"), bias)


def from_onnx(spec: Spec, layers: Sequence[Sequence[np.ndarray | None]]) -> Params:
    """Convert the weights (W, R, B), or (W, R) without bias, of one ONNX operator for each layer of ``spec``.

    An operator with ``direction="reverse"`` is a forward network on time-reversed input.  Peephole weights P, or any other
    fourth array, are refused.  Raises ArgumentError.
    """
    gates = gate_order(spec, _ONNX_GATES, "ONNX")
    check_length(layers, spec.num_layers, "operators", "one (W, R, B) for each layer")
    params: Params = {}
    for layer, weights in enumerate(layers):
        names = ("W", "R", "B") if spec.bias else ("W", "R")
        given = [array for array in weights if array is not None]
        check_length(given, len(names), f"arrays in layer {layer}", f"{', '.join(names)} with bias={spec.bias}")
        rows, inputs = len(gates) * spec.hidden_size, spec.layer_input_size(layer)
        shapes = ((rows, inputs), (rows, spec.hidden_size), (2 * rows,))
        for name, array, shape in zip(names, given, shapes, strict=False):
            check_array(spec, f"{name} of layer {layer}", array, (spec.directions, *shape))
        for direction, suffix in enumerate(layer_suffixes(spec, layer)):
            ours = {"weight_ih": given[0][direction], "weight_hh": given[1][direction]}
            if spec.bias:
                ours["bias_ih"], ours["bias_hh"] = np.split(given[2][direction], 2)
            params |= {name + suffix: reordered(array, gates, spec.kind.gates) for name, array in ours.items()}
    return check_params(spec, params)
