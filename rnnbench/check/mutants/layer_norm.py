# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in layer normalisation: in its statistics, its gains and biases, what is normalised, and its derivative."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.gradients import overwritten, scaled, with_results
from rnnbench.check.mutants.hooks import Mutant, Planted, in_arithmetic, in_layer, in_weights, reference, wrapped
from rnnbench.networks.cells import CELLS
from rnnbench.networks.layer_norm import EPSILON
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

LSTM, GRU = "lstm_layer_norm", "gru_layer_norm"
NORMALISED = (LSTM, GRU)

Statistics = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""The mean and the scale of the rows of v."""


def statistics(wrong: Statistics) -> Planted:
    """Normalise with wrong statistics, forward and in the derivative."""

    def normalised(right: Any, arithmetic: Any, v: np.ndarray, gain: np.ndarray, bias: Any) -> Any:
        mean, scale = wrong(v)
        x = (v - mean) * scale
        return gain * x + bias, (x, scale)

    return in_arithmetic(normalised=normalised)


def mean_of(v: np.ndarray) -> np.ndarray:
    return v.mean(1, keepdims=True)


def variance_of(v: np.ndarray) -> np.ndarray:
    return v.var(1, keepdims=True)


def scale_of(v: np.ndarray) -> np.ndarray:
    return 1 / np.sqrt(variance_of(v) + EPSILON)


def unbiased(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    squares = variance_of(v) * v.shape[1] / max(1, v.shape[1] - 1)
    return mean_of(v), 1 / np.sqrt(squares + EPSILON)


def of_other_rows(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.roll(mean_of(v), 1, 0), np.roll(scale_of(v), 1, 0)


def of_the_batch(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return v.mean(0), 1 / np.sqrt(v.var(0) + EPSILON)


class PerGate(reference.Layer):
    """Normalise each gate by itself."""

    def __init__(self, spec: Spec, arithmetic: Any) -> None:
        def normalised(right: Any, _: Any, v: np.ndarray, gain: np.ndarray, bias: Any) -> Any:
            gates = v.reshape(-1, spec.hidden_size)
            scale = np.repeat(scale_of(gates).reshape(len(v), -1), spec.hidden_size, 1)
            x = (v - np.repeat(mean_of(gates).reshape(len(v), -1), spec.hidden_size, 1)) * scale
            return gain * x + bias, (x, scale)

        super().__init__(spec, wrapped(type(arithmetic), normalised=normalised)())


def affine(wrong: Callable[[np.ndarray, np.ndarray, Any], np.ndarray]) -> Planted:
    """``wrong(x, gain, bias)`` returns the result for standardised x."""

    def normalised(right: Any, arithmetic: Any, v: np.ndarray, gain: np.ndarray, bias: Any) -> Any:
        _, kept = right(v, gain, bias)
        return wrong(kept[0], gain, bias), kept

    return in_arithmetic(normalised=normalised)


def bias_before(right: Any, arithmetic: Any, v: np.ndarray, gain: np.ndarray, bias: Any) -> Any:
    return right(v + bias, gain, 0.0)


def after_the_sum(right: Any, layer: Any, w: Params, name: str, gates: slice, v: np.ndarray, normalised: Any) -> np.ndarray:
    """Normalise W x + U h, not each by itself."""
    right(w, name, gates, v, normalised)
    product = layer._arithmetic.product(v, w[f"weight_{name}"])
    if name == "ih":
        layer._of_x = product
        return product
    bias = w["bias_ih"] + w["bias_hh"] if "bias_ih" in w else 0.0
    return layer._arithmetic.normalised(layer._of_x + product, w["gain_ih"], bias)[0] - layer._of_x


def carried_c_normalised(right: Any, layer: Any, w: Params, *arguments: Any) -> Any:
    (h, c), step = right(w, *arguments)
    n, _ = layer._arithmetic.normalised(c, w["gain_c"], w.get("bias_c", 0.0))
    return (h, n), step


def h_of_plain_c(right: Any, layer: Any, w: Params, *arguments: Any) -> Any:
    (_, c), step = right(w, *arguments)
    return (step.saved[3] * np.tanh(c), c), step


def only_of_c(right: Any, layer: Any, w: Params, name: str, gates: slice, v: np.ndarray, normalised: Any) -> np.ndarray:
    """Leave W x and U h as they are."""
    right(w, name, gates, v, normalised)
    return layer._arithmetic.product(v, w[f"weight_{name}"][gates], w.get(f"bias_{name}"))


def weights(change: Callable[[Params, str], Params]) -> Planted:
    """``change(params, suffix)`` returns, by name without suffix, what the layer of this suffix reads instead."""

    def changed(spec: Spec, params: Params) -> Params:
        return {name + suffix: value for suffix in spec.suffixes() for name, value in change(params, suffix).items()}

    return in_weights(changed)


def gains_of(place: Callable[[str], str]) -> Planted:
    """Read the gains of the layer and direction of another suffix."""
    return weights(lambda params, s: {name: params[name + place(s)] for name in ("gain_ih", "gain_hh")})


def derivative(wrong: Callable[..., np.ndarray]) -> Planted:
    """``wrong(g, x, scale)`` returns the cotangent of v; g is the cotangent of x."""

    def backward(right: Any, arithmetic: Any, dy: np.ndarray, kept: Any, gain: np.ndarray) -> Any:
        return wrong(gain * dy, *kept), right(dy, kept, gain)[1]

    return in_arithmetic(normalised_backward=backward)


def without_gain(right: Any, arithmetic: Any, dy: np.ndarray, kept: Any, gain: np.ndarray) -> Any:
    return right(dy, kept, np.ones_like(gain))


def terms(wrong: Callable[..., np.ndarray]) -> Planted:
    """``wrong(dy, x, scale)`` returns the terms of the gain's gradient."""

    def backward(right: Any, arithmetic: Any, dy: np.ndarray, kept: Any, gain: np.ndarray) -> Any:
        return right(dy, kept, gain)[0], wrong(dy, *kept)

    return in_arithmetic(normalised_backward=backward)


def c_passed_through(right: Any, layer: Any, w: Params, name: str, dy: np.ndarray, step: Any, sums: Any) -> np.ndarray:
    """BPTT takes the normalisation of c for the identity."""
    dv = right(w, name, dy, step, sums)
    return dy if name == "c" else dv


def bias_after(right: Any, layer: Any, w: Params, name: str, dy: np.ndarray, step: Any, sums: Any) -> np.ndarray:
    """The gradient of a bias is the sum of the cotangents of what is normalised."""
    dv = right(w, name, dy, step, sums)
    sums.add_sum(f"bias_{name}", slice(None), dv - dy)
    return dv


def of_results(name: str, change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Planted:
    """``change(gradient, dx)`` returns a wrong gradient of a parameter of one layer."""
    return with_results(
        lambda grads, dx, initial: (grads | ({name: change(grads[name], dx)} if name in grads else {}), dx, initial)
    )


_FORWARD = {
    "epsilon forgotten": statistics(lambda v: (mean_of(v), 1 / np.sqrt(np.maximum(variance_of(v), 1e-30)))),
    "epsilon added to the standard deviation": statistics(lambda v: (mean_of(v), 1 / (np.sqrt(variance_of(v)) + EPSILON))),
    "epsilon of 1e-6": statistics(lambda v: (mean_of(v), 1 / np.sqrt(variance_of(v) + 1e-6))),
    "variance unbiased": statistics(unbiased),
    "scale of the variance without its root": statistics(lambda v: (mean_of(v), 1 / (variance_of(v) + EPSILON))),
    "mean not subtracted": statistics(lambda v: (0 * mean_of(v), scale_of(v))),
    "statistics of another row": statistics(of_other_rows),
    "statistics over the batch": statistics(of_the_batch),
    "statistics of each gate": Planted(layer=PerGate),
    "gain left out": affine(lambda x, gain, bias: x + bias),
    "gain on the bias too": affine(lambda x, gain, bias: gain * (x + bias)),
    "bias added before": in_arithmetic(normalised=bias_before),
    "gain of W x for U h": weights(lambda params, s: {"gain_hh": params[f"gain_ih{s}"]}),
    "W x and U h not normalised": in_layer(_affine=only_of_c),
}

_LSTM_FORWARD = {
    "normalised after the sum of W x and U h": in_layer(_affine=after_the_sum),
    "carried c normalised": in_layer(_step=carried_c_normalised),
    "h reads c as it is": in_layer(_step=h_of_plain_c),
    "bias of c left out": in_weights(lambda spec, params: {n: 0 * w for n, w in params.items() if n.startswith("bias_c")}),
}

_BPTT = {
    "derivative without the mean": derivative(lambda g, x, scale: scale * (g - x * mean_of(g * x))),
    "derivative without the variance": derivative(lambda g, x, scale: scale * (g - mean_of(g))),
    "statistics taken for constants": derivative(lambda g, x, scale: scale * g),
    "derivative without the scale": derivative(lambda g, x, scale: g - mean_of(g) - x * mean_of(g * x)),
    "derivative without the gain": in_arithmetic(normalised_backward=without_gain),
    "sums in the place of means": derivative(lambda g, x, scale: scale * (g - g.sum(1, keepdims=True) - x * mean_of(g * x))),
    "gain's gradient reads v, not x": terms(lambda dy, x, scale: dy * x / scale),
    "gain's gradient without x": terms(lambda dy, x, scale: dy),
    "gain's gradient missing": of_results("gain_hh", lambda gradient, dx: 0 * gradient),
    "gain's gradient is the mean over the batch": of_results(
        "gain_ih", lambda gradient, dx: gradient / gradient.dtype.type(dx.shape[1])
    ),
    "gain's gradient overwritten at every step": overwritten("gain_ih"),
    "gradients of both gains swapped": with_results(
        lambda grads, dx, initial: (grads | {"gain_ih": grads["gain_hh"], "gain_hh": grads["gain_ih"]}, dx, initial)
    ),
    "bias's gradient sums what is normalised": in_layer(_normalised_backward=bias_after),
}

_LSTM_BPTT = {
    "normalisation of c passed through": in_layer(_normalised_backward=c_passed_through),
    "gradient of the bias of c missing": of_results("bias_c", lambda gradient, dx: 0 * gradient),
}

_DIRECTIONS = {"gains of the forward direction for both": gains_of(lambda suffix: suffix.removesuffix("_reverse"))}
_LAYERS = {"gains of the first layer for all": gains_of(lambda suffix: re.sub(r"\d+", "0", suffix))}

MUTANTS = [
    Mutant(f"{cell}: {name}", area, (cell,), backend)
    for area, cells, backends in (
        ("forward", NORMALISED, _FORWARD),
        ("forward", (LSTM,), _LSTM_FORWARD),
        ("bptt", NORMALISED, _BPTT),
        ("bptt", (LSTM,), _LSTM_BPTT),
        ("directions", NORMALISED, _DIRECTIONS),
        ("layers", NORMALISED, _LAYERS),
    )
    for name, backend in backends.items()
    for cell in cells
]

MUTANTS += [
    Mutant(f"{cell}: gradient of {tensor} scaled by 1.001 in gate {gate}", "bptt", (cell,), scaled(tensor, place, len(gates)))
    for cell, gates in {cell: CELLS[cell].gates for cell in NORMALISED}.items()
    for place, gate in enumerate(gates)
    for tensor in ("gain_ih", "gain_hh")
]
