# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in the forward pass: in the equations of the cells, in reading their weights, and in the arithmetic."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import (
    Mutant,
    Planted,
    each_gate,
    in_arithmetic,
    in_forward_equation,
    in_layer,
    in_weights,
    reference,
    replaced,
)
from rnnbench.networks.cells import CELLS
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

sigmoid = reference.Arithmetic().sigmoid


def hard_sigmoid(z: np.ndarray) -> np.ndarray:
    return np.clip(z / 6 + np.asarray(0.5, z.dtype), 0, 1)


def lstm(equation: Callable[..., tuple[np.ndarray, np.ndarray]]) -> Planted:
    """``equation(i, f, g, o, c, new_c, z)`` returns wrong h and c; z holds the four gates' pre-activations."""

    def change(a: Any, b: Any, carried: Any, new: Any, saved: Any) -> tuple[np.ndarray, np.ndarray]:
        i, f, g, o, _ = saved
        return equation(i, f, g, o, carried[0], new[1], [of_x + of_h for of_x, of_h in zip(a, b, strict=True)])

    return in_forward_equation(change)


def lstm_cell(equation: Callable[..., np.ndarray]) -> Planted:
    """``equation(i, f, g, c, z)`` returns a wrong new c, from which h is computed."""

    def both(i: Any, f: Any, g: Any, o: Any, c: Any, new_c: Any, z: Any) -> tuple[np.ndarray, np.ndarray]:
        wrong = equation(i, f, g, c, z)
        return o * np.tanh(wrong), wrong

    return lstm(both)


def gru(equation: Callable[..., np.ndarray]) -> Planted:
    """``equation(r, z, n, h, a, b)`` returns a wrong new h."""
    return in_forward_equation(lambda a, b, carried, new, saved: (equation(*saved[:3], carried[0], a, b),))


def gates_swapped(cell: str, first: int) -> Planted:
    """Swap a gate and the next one, in all weights and biases."""
    order = list(range(len(CELLS[cell].gates)))
    order[first : first + 2] = first + 1, first

    def swapped(spec: Spec, params: Params) -> Params:
        by_gate = {name: np.split(w, len(order)) for name, w in params.items()}
        return {name: np.concatenate([gates[place] for place in order]) for name, gates in by_gate.items()}

    return in_weights(swapped)


def dropped(kind: str) -> Planted:
    """Read all parameters of one kind as zeros."""
    return in_weights(lambda spec, params: {n: np.zeros_like(w) for n, w in params.items() if n.startswith(kind)})


def recurrent(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    """Change each gate's recurrent matrix separately."""

    def changed(spec: Spec, params: Params) -> Params:
        return {n: each_gate(spec, w, change) for n, w in params.items() if n.startswith("weight_hh")}

    return in_weights(changed)


def candidate_bias_outside(spec: Spec, params: Params) -> Params:
    """Add the GRU's b_hn to a_n, which the reset gate does not multiply."""
    first, moved = 2 * spec.hidden_size, {}
    for suffix in spec.suffixes() if spec.bias else []:
        b_ih, b_hh = params["bias_ih" + suffix], params["bias_hh" + suffix]
        candidate = slice(first, None)
        moved |= {"bias_ih" + suffix: replaced(b_ih, candidate, b_ih[candidate] + b_hh[candidate])}
        moved |= {"bias_hh" + suffix: replaced(b_hh, candidate)}
    return moved


def reset_input(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
    """Apply the reset gate to W x + b_in as well."""
    known = right(cell, nonlinearity)

    def forward(a: Any, b: Any, carried: Any) -> Any:
        return known.forward((*a[:2], a[2] * sigmoid(a[0] + b[0])), b, carried)

    return known._replace(forward=forward)


class LoadedAs(Planted):
    """The network of another spec with parameters of the same shapes."""

    def __init__(self, **fields: str) -> None:
        super().__init__()
        self._fields = fields

    def load(self, spec: Spec, params: Any, *, threads: int | None = None) -> Any:
        return super().load(replace(spec, **self._fields), params, threads=threads)


def stale(part: int) -> Any:
    """Every step reads one part of the state from two steps before, like a buffer that is filled too late."""

    class Stale(reference.Layer):
        def forward(self, w: Params, x: np.ndarray, state: State, *others: Any) -> Any:
            self._before = state[part].copy()
            return super().forward(w, x, state, *others)

        def record(self, w: Params, x: np.ndarray, state: State, *others: Any) -> Any:
            self._before = state[part].copy()
            return super().record(w, x, state, *others)

        def _step(self, w: Params, t: int, rows: Any, x: np.ndarray, state: State) -> Any:
            read = (*state[:part], self._before[rows].copy(), *state[part + 1 :])
            self._before[rows] = state[part]
            return super()._step(w, t, rows, x, read)

    return Planted(layer=Stale)


def to_bits(bits: int) -> Callable[[np.ndarray], np.ndarray]:
    """Round to a number of significant bits: 11 for TF32 and float16, 8 for bfloat16."""

    def rounded(array: np.ndarray) -> np.ndarray:
        mantissa, exponent = np.frexp(array)
        return np.ldexp(np.round(np.ldexp(mantissa, bits)), exponent - bits)

    return rounded


def weights_rounded(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    return in_weights(lambda spec, params: {name: change(w) for name, w in params.items()})


def product_of_rounded(right: Any, arithmetic: Any, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    return right(to_bits(11)(v), to_bits(11)(w), bias)


def product_in_float32(right: Any, arithmetic: Any, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    total = right(v.astype("float32"), w.astype("float32")).astype(v.dtype)
    return total if bias is None else total + bias


def summed_in_float16(right: Any, arithmetic: Any, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    total = (v[:, None, :] * w).sum(2, dtype=np.float16).astype(v.dtype)
    return total if bias is None else total + bias


def rational_tanh(right: Any, arithmetic: Any, z: np.ndarray) -> np.ndarray:
    """Lambert's continued fraction, truncated: the error is 1e-4 at |z| = 1.6, and grows with |z|."""
    z = np.clip(z, -3, 3)
    s = z * z
    return z * (105 + 10 * s) / (105 + s * (45 + s))


def tabulated_tanh(right: Any, arithmetic: Any, z: np.ndarray) -> np.ndarray:
    """Linear interpolation between 1000 values."""
    places = np.linspace(-8, 8, 1000)
    return np.interp(z, places, np.tanh(places)).astype(z.dtype)


def mixed(z: np.ndarray, n: np.ndarray, h: np.ndarray) -> np.ndarray:
    return n + z * (h - n)


_LSTM = {
    "h = o c, without tanh": lstm(lambda i, f, g, o, c, new_c, z: (o * new_c, new_c)),
    "h = o tanh(c) of the c before": lstm(lambda i, f, g, o, c, new_c, z: (o * np.tanh(c), new_c)),
    "output gate by tanh": lstm(lambda i, f, g, o, c, new_c, z: (np.tanh(z[3]) * np.tanh(new_c), new_c)),
    "output gate sees c, a peephole": lstm(lambda i, f, g, o, c, new_c, z: (sigmoid(z[3] + new_c) * np.tanh(new_c), new_c)),
    "candidate g by sigmoid": lstm_cell(lambda i, f, g, c, z: f * c + i * sigmoid(z[2])),
    "candidate g by relu": lstm_cell(lambda i, f, g, c, z: f * c + i * np.maximum(z[2], 0)),
    "input gate coupled to the forget gate": lstm_cell(lambda i, f, g, c, z: f * c + (1 - f) * g),
    "forget gate with a built-in bias of 1": lstm_cell(lambda i, f, g, c, z: sigmoid(z[1] + 1) * c + i * g),
    "forget gate by hard sigmoid": lstm_cell(lambda i, f, g, c, z: hard_sigmoid(z[1]) * c + i * g),
    "forget gate left out": lstm_cell(lambda i, f, g, c, z: c + i * g),
    "cell state clipped to 3": lstm_cell(lambda i, f, g, c, z: np.clip(f * c + i * g, -3, 3)),
    "each step reads c of two steps before": stale(1),
    "tanh by a continued fraction": in_arithmetic(tanh=rational_tanh),
    "weights in bfloat16": weights_rounded(to_bits(8)),
    "products of operands rounded as TF32": in_arithmetic(product=product_of_rounded),
    "float64 products in float32": in_arithmetic(product=product_in_float32),
}

_GRU = {
    "update gate the other way round": gru(lambda r, z, n, h, a, b: h + z * (n - h)),
    "update gate by hard sigmoid": gru(lambda r, z, n, h, a, b: n + hard_sigmoid(a[1] + b[1]) * (h - n)),
    "candidate n by sigmoid": gru(lambda r, z, n, h, a, b: mixed(z, sigmoid(a[2] + r * b[2]), h)),
    "reset gate on the input's part of n": gru(lambda r, z, n, h, a, b: mixed(z, np.tanh(r * a[2] + b[2]), h)),
    "reset gate left out": gru(lambda r, z, n, h, a, b: mixed(z, np.tanh(a[2] + b[2]), h)),
    "reset gate on both parts of n": in_arithmetic(equations=reset_input),
    "reset gate applied before the recurrent product": LoadedAs(cell="gru_reset_before"),
    "bias b_hn outside the reset gate": in_weights(candidate_bias_outside),
    "weights in float16": weights_rounded(to_bits(11)),
    "products summed in float16": in_arithmetic(product=summed_in_float16),
}


_RESET_BEFORE = {
    "reset gate applied after the recurrent product": LoadedAs(cell="gru"),
    "update gate the other way round": gru(lambda r, z, n, h, a, b: h + z * (n - h)),
    "reset gate on the input's part of n, too": in_arithmetic(equations=reset_input),
}

_ELMAN = {
    "sigmoid for tanh": LoadedAs(nonlinearity="sigmoid"),
    "relu for tanh": LoadedAs(nonlinearity="relu"),
    "tanh by a table of 1000 values": in_arithmetic(tanh=tabulated_tanh),
    "hard sigmoid for sigmoid": in_arithmetic(sigmoid=lambda right, _, z: hard_sigmoid(z)),
    "tanh for relu": in_arithmetic(relu=lambda right, _, z: np.tanh(z)),
    "relu with a slope of 0.01 below zero": in_arithmetic(relu=lambda right, _, z: np.maximum(z, z * z.dtype.type(0.01))),
    "relu clipped at 6": in_arithmetic(relu=lambda right, _, z: np.clip(z, 0, 6)),
    "each step reads h of two steps before": stale(0),
    "recurrent weights transposed": recurrent(lambda u: u.T),
    "recurrent weights read column by column": recurrent(lambda u: u.T.reshape(u.shape)),
    "input weights read column by column": in_weights(
        lambda spec, params: {n: w.T.reshape(w.shape) for n, w in params.items() if n.startswith("weight_ih")}
    ),
}

_JORDAN = {
    "output weights read column by column": in_weights(
        lambda spec, params: {n: w.T.reshape(w.shape) for n, w in params.items() if n.startswith("weight_ho")}
    ),
    "y fed back without its bias": in_layer(
        _step=lambda right, layer, w, t, rows, x, state: right(w, t, rows, x, (state[0] - w.get("bias_ho", 0),))
    ),
}

MUTANTS = [
    Mutant(f"{cell}: {name}", "forward", (cell,), backend)
    for cell, backends in {
        "lstm": _LSTM,
        "gru": _GRU,
        "gru_reset_before": _RESET_BEFORE,
        "elman": _ELMAN,
        "jordan": _JORDAN,
    }.items()
    for name, backend in backends.items()
]

MUTANTS += [
    Mutant(f"{cell}: gates {first} and {second} swapped", "forward", (cell,), gates_swapped(cell, place))
    for cell in ("lstm", "gru", "gru_reset_before")
    for place, (first, second) in enumerate(zip(CELLS[cell].gates[:-1], CELLS[cell].gates[1:], strict=True))
]

MUTANTS += [
    Mutant(f"{cell}: {bias} dropped", "forward", (cell,), dropped(bias))
    for cell, biases in {"lstm": ("bias_ih", "bias_hh"), "gru": ("bias_ih", "bias_hh"), "jordan": ("bias_ho",)}.items()
    for bias in biases
]
