"""Conversion of parameters from and to keras.layers.SimpleRNN, LSTM and GRU."""

from collections.abc import Mapping, Sequence

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.arrays import numpy_errors
from rnnbench.networks.convert.gates import check_array, check_length, gate_order, layer_suffixes, reordered
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec

_KERAS_GATES = {"elman": ("h",), "lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n"), "gru_reset_before": ("z", "r", "n")}


def to_keras(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0, *, fold_bias: bool = False) -> list[np.ndarray]:
    """Return one layer's arrays for ``set_weights`` of its Keras counterpart.

    The list holds kernel (I, G*H), recurrent_kernel (H, G*H) and, unless bias=False, bias; for
    ``keras.layers.Bidirectional`` the arrays of the backward layer follow.  For gru, bias is (2, 3*H), input then recurrent.
    For the other cells it is (G*H,): Keras has one bias where torch has two.  It is then bias_ih, and every element of
    bias_hh must be +0.0, because their sum would be rounded and could not be split again.
    ``fold_bias``: store the rounded sum bias_ih + bias_hh instead; the network is the same up to that rounding.
    Raises ArgumentError.
    """
    gates = gate_order(spec, _KERAS_GATES, "Keras")
    params = check_params(spec, params)
    arrays = []
    for suffix in layer_suffixes(spec, layer):
        ours = {name: reordered(params[name + suffix], spec.kind.gates, gates) for name in spec.layer_shapes(layer)}
        arrays += [np.ascontiguousarray(ours["weight_ih"].T), np.ascontiguousarray(ours["weight_hh"].T)]
        if spec.bias and spec.cell == "gru":
            arrays.append(np.stack([ours["bias_ih"], ours["bias_hh"]]))
        elif spec.bias:
            recurrent = ours["bias_hh"]
            others = int(np.count_nonzero((recurrent != 0) | np.signbit(recurrent)))
            if others and not fold_bias:
                raise ArgumentError(
                    f"bias_hh{suffix} has {others} values other than +0.0; expected none: Keras has one bias for {spec.cell}, "
                    "and a sum of two would not be lossless (fold_bias=True allows it)"
                )
            with numpy_errors():
                arrays.append(ours["bias_ih"] + recurrent if others else ours["bias_ih"])
    return arrays


def from_keras(spec: Spec, layers: Sequence[Sequence[np.ndarray]]) -> Params:
    """Convert the arrays of ``get_weights`` of a Keras SimpleRNN, LSTM, GRU or Bidirectional layer, one list per layer.

    The arrays are those of ``to_keras``.  If Keras has one bias, it becomes bias_ih, and bias_hh is zero.
    Raises ArgumentError.
    """
    gates = gate_order(spec, _KERAS_GATES, "Keras")
    check_length(layers, spec.num_layers, "layers", "one get_weights() for each layer")
    rows = len(gates) * spec.hidden_size
    names = ("kernel", "recurrent_kernel", "bias") if spec.bias else ("kernel", "recurrent_kernel")
    params: Params = {}
    for layer, weights in enumerate(layers):
        allowed = f"{', '.join(names)} for each of {spec.directions} directions with bias={spec.bias}"
        check_length(weights, spec.directions * len(names), f"arrays in layer {layer}", allowed)
        shapes = ((spec.layer_input_size(layer), rows), (spec.hidden_size, rows), (2, rows) if spec.cell == "gru" else (rows,))
        for direction, suffix in enumerate(layer_suffixes(spec, layer)):
            given = dict(zip(names, weights[direction * len(names) :], strict=False))
            for (name, array), shape in zip(given.items(), shapes, strict=False):
                check_array(spec, f"{name} of layer {layer}", array, shape)
            ours = {"weight_ih": given["kernel"].T, "weight_hh": given["recurrent_kernel"].T}
            if spec.bias:
                bias = given["bias"]
                ours["bias_ih"], ours["bias_hh"] = bias if spec.cell == "gru" else (bias, np.zeros_like(bias))
            params |= {name + suffix: reordered(array, gates, spec.kind.gates) for name, array in ours.items()}
    return check_params(spec, params)
