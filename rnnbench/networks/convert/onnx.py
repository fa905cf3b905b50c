"""Conversion of parameters from and to the ONNX operators RNN, LSTM and GRU."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.networks.convert.gates import check_array, check_length, gate_order, layer_suffixes, reordered
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec

_ONNX_GATES = {
    "elman": ("h",),
    "lstm": ("i", "o", "f", "g"),
    "lstm_peephole": ("i", "o", "f", "g"),
    "gru": ("z", "r", "n"),
    "gru_reset_before": ("z", "r", "n"),
}

_OPERATORS = {"elman": "RNN", "lstm": "LSTM", "lstm_peephole": "LSTM", "gru": "GRU", "gru_reset_before": "GRU"}


class OnnxWeights(NamedTuple):
    """Weight inputs of an ONNX operator RNN, LSTM or GRU: W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) and P (D, 3*H).

    B holds the input biases of a direction, then the recurrent ones; it is None without bias.  P holds the peephole weights of
    the gates i, o and f; it is None for cells without.
    """

    W: np.ndarray
    R: np.ndarray
    B: np.ndarray | None = None
    P: np.ndarray | None = None


class OnnxOperator(NamedTuple):
    """The type and attributes of an ONNX operator."""

    op_type: str
    attributes: dict[str, Any]


def onnx_operator(spec: Spec) -> OnnxOperator:
    """Return the ONNX operator for one layer of ``spec``; raises ArgumentError."""
    gate_order(spec, _ONNX_GATES, "ONNX")
    op_type = _OPERATORS[spec.cell]
    attributes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "direction": "bidirectional" if spec.bidirectional else "forward",
    }
    if op_type == "RNN":
        attributes["activations"] = [spec.nonlinearity.capitalize()] * spec.directions
    elif op_type == "GRU":
        attributes["linear_before_reset"] = int(spec.cell == "gru")
    return OnnxOperator(op_type, attributes)


def to_onnx(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0) -> OnnxWeights:
    """Return the weights of one layer for the operator of ``onnx_operator``; raises ArgumentError.

    ONNX operators have a single layer.
    """
    gates = gate_order(spec, _ONNX_GATES, "ONNX")
    params = check_params(spec, params)

    def stacked(name: str, stored: tuple[str, ...], wanted: tuple[str, ...]) -> np.ndarray:
        return np.stack([reordered(params[name + suffix], stored, wanted) for suffix in layer_suffixes(spec, layer)])

    w, r, *biases = (stacked(name, spec.kind.gates, gates) for name in _names(spec))
    peepholes = stacked("weight_ch", spec.kind.peepholes, _with_peepholes(spec, gates)) if spec.kind.peepholes else None
    return OnnxWeights(w, r, np.concatenate(biases, 1) if biases else None, peepholes)


def from_onnx(spec: Spec, layers: Sequence[Sequence[np.ndarray | None]]) -> Params:
    """Convert the weights of one ONNX operator for each layer of ``spec``: (W, R, B), or (W, R) without bias, then P if the
    operator has it, which makes it an lstm_peephole.

    An operator with ``direction="reverse"`` is a forward network on time-reversed input.  Raises ArgumentError.
    """
    gates = gate_order(spec, _ONNX_GATES, "ONNX")
    peepholes, size = spec.kind.peepholes, spec.hidden_size
    check_length(layers, spec.num_layers, "operators", "one (W, R, B) for each layer")
    params: Params = {}
    for layer, weights in enumerate(layers):
        rows, inputs = len(gates) * size, spec.layer_input_size(layer)
        shapes: dict[str, tuple[int, ...]] = {"W": (rows, inputs), "R": (rows, size)}
        shapes |= {"B": (2 * rows,)} if spec.bias else {}
        shapes |= {"P": (len(peepholes) * size,)} if peepholes else {}
        arrays = [array for array in weights if array is not None]
        allowed = f"{', '.join(shapes)} of {spec.cell} with bias={spec.bias}"
        check_length(arrays, len(shapes), f"arrays in layer {layer}", allowed)
        given = dict(zip(shapes, arrays, strict=True))
        for name, array in given.items():
            check_array(spec, f"{name} of layer {layer}", array, (spec.directions, *shapes[name]))
        for direction, suffix in enumerate(layer_suffixes(spec, layer)):
            of_direction = {name: array[direction] for name, array in given.items()}
            gated = [of_direction["W"], of_direction["R"], *np.split(of_direction.get("B", np.zeros(0)), 2)]
            for name, array in zip(_names(spec), gated, strict=False):
                params[name + suffix] = reordered(array, gates, spec.kind.gates)
            if peepholes:
                params["weight_ch" + suffix] = reordered(of_direction["P"], _with_peepholes(spec, gates), peepholes)
    return check_params(spec, params)


def _names(spec: Spec) -> tuple[str, ...]:
    """Names of the parameters of all gates, without suffix."""
    return ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[: 4 if spec.bias else 2]


def _with_peepholes(spec: Spec, gates: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(gate for gate in gates if gate in spec.kind.peepholes)
