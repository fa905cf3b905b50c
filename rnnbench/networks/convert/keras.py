"""Parameters from and to keras.layers.SimpleRNN, LSTM and GRU."""

from collections.abc import Mapping, Sequence

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.arrays import numpy_errors
from rnnbench.networks.convert.gates import check_array, check_length, gate_order, layer_suffixes, reordered
from rnnbench.networks.params import Params, check_params
from rnnbench.networks.spec import Spec

_KERAS_GATES = {"elman": ("h",), "lstm": ("i", "f", "g", "o"), "gru": ("z", "r", "n"), "gru_reset_before": ("z", "r", "n")}


def to_keras(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0, *, fold_bias: bool = False) -> list[np.ndarray]:
    """List one layer's arrays as its Keras counterpart's ``set_weights`` takes them.

    [kernel (I, G*H), recurrent_kernel (H, G*H), bias], without the last for bias=False, and the same again for the
    backward layer of ``keras.layers.Bidirectional``.  bias is (2, 3*H), input then recurrent, for gru; elsewhere Keras
    has one bias (G*H,) where torch has two.  It takes bias_ih, and bias_hh must be +0.0 throughout: their sum would
    round, and could not be taken apart again.  With ``fold_bias`` it takes that sum, bias_ih + bias_hh rounded once,
    which is not lossless; the network is the same up to that rounding.  Raises ArgumentError.
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
