# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in peepholes: in what the gates read of c, in its weights and in their gradient."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.gradients import overwritten, scaled, with_results
from rnnbench.check.mutants.hooks import (
    Mutant,
    Planted,
    in_arithmetic,
    in_backward_equation,
    in_forward_equation,
    in_weights,
    reference,
)
from rnnbench.networks.cells import CELLS
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

CELL = "lstm_peephole"

sigmoid = reference.Arithmetic().sigmoid

Read = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""What a gate reads, from c of the step before and the new c."""


def before(c: np.ndarray, new_c: np.ndarray) -> np.ndarray:
    return c


def after(c: np.ndarray, new_c: np.ndarray) -> np.ndarray:
    return new_c


def reading(i: Read = before, f: Read = before, o: Read = after) -> Planted:
    """Gates that read something else than c through their peepholes."""

    def change(a: Any, b: Any, carried: Any, new: Any, saved: Any) -> tuple[np.ndarray, np.ndarray]:
        c, p_i, p_f, p_o = carried
        z = [of_x + of_h for of_x, of_h in zip(a, b, strict=True)]
        wrong = sigmoid(z[1] + p_f * f(c, new[1])) * c + sigmoid(z[0] + p_i * i(c, new[1])) * np.tanh(z[2])
        return sigmoid(z[3] + p_o * o(c, wrong)) * np.tanh(wrong), wrong

    return in_forward_equation(change)


def weights(change: Callable[[Spec, Params, str], np.ndarray]) -> Planted:
    """``change(spec, params, suffix)`` returns the peephole weights that the layer of this suffix reads."""
    return in_weights(lambda spec, params: {f"weight_ch{s}": change(spec, params, s) for s in spec.suffixes()})


def in_order(*order: int) -> Planted:
    """Read the peephole weights of the gates in another order."""
    return weights(lambda spec, params, s: params[f"weight_ch{s}"].reshape(-1, spec.hidden_size)[list(order)].ravel())


def of_unit_0(spec: Spec, params: Params, suffix: str) -> np.ndarray:
    return params[f"weight_ch{suffix}"].reshape(-1, spec.hidden_size)[:, :1].repeat(spec.hidden_size, 1).ravel()


def without(place: int) -> Planted:
    """The cotangent of c lacks what comes through one gate's peephole."""

    def equations(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
        known = right(cell, nonlinearity)

        def backward(saved: Any, carried: Any, dnew: Any, dinner: Any) -> Any:
            c, *read = carried
            read[place] = 0 * read[place]
            return known.backward(saved, (c, *read), dnew, dinner)

        return known._replace(backward=backward)

    return in_arithmetic(equations=equations)


def gradient(change: Callable[..., tuple[np.ndarray, ...]]) -> Planted:
    """``change(c, new_c, dz)`` returns wrong cotangents of the three peephole weights; dz are those of the four gates."""

    def wrong(saved: Any, carried: Any, dnew: Any, dinner: Any, da: Any, db: Any, dcarried: Any) -> Any:
        i, f, g, *_ = saved
        c = carried[0]
        return da, db, (dcarried[0], *change(c, f * c + i * g, da))

    return in_backward_equation(wrong)


def of_results(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Planted:
    """``change(dweight, dx)`` returns a wrong gradient of the peephole weights of one layer."""
    return with_results(lambda grads, dx, initial: (grads | {"weight_ch": change(grads["weight_ch"], dx)}, dx, initial))


_FORWARD = {
    "input gate's peephole reads the new c": reading(i=after),
    "forget gate's peephole reads the new c": reading(f=after),
    "output gate's peephole reads c of the step before": reading(o=before),
    "output gate's peephole reads tanh(c)": reading(o=lambda c, new_c: np.tanh(new_c)),
    "output gate's peephole left out": reading(o=lambda c, new_c: 0 * c),
    "peephole weights ignored": weights(lambda spec, params, s: np.zeros_like(params[f"weight_ch{s}"])),
    "peephole weights of gates i and f swapped": in_order(1, 0, 2),
    "peephole weights in ONNX's order i, o, f": in_order(0, 2, 1),
    "peephole weights of unit 0 for all": weights(of_unit_0),
}

_BPTT = {
    "cotangent of c lacks the output gate's peephole": without(2),
    "cotangent of the previous c lacks the input gate's peephole": without(0),
    "cotangent of the previous c lacks the forget gate's peephole": without(1),
    "output gate's peephole gradient from c of the step before": gradient(lambda c, new, dz: (dz[0] * c, dz[1] * c, dz[3] * c)),
    "forget gate's peephole gradient from the new c": gradient(lambda c, new, dz: (dz[0] * c, dz[1] * new, dz[3] * new)),
    "peephole gradients without c": gradient(lambda c, new, dz: (dz[0], dz[1], dz[3])),
    "peephole gradients of gates i and f swapped": gradient(lambda c, new, dz: (dz[1] * c, dz[0] * c, dz[3] * new)),
    "peephole gradient overwritten at every step": overwritten("weight_ch"),
    "peephole gradient is the mean over the batch": of_results(lambda dweight, dx: dweight / dweight.dtype.type(dx.shape[1])),
}

_STRUCTURE = {
    "directions": {
        "reverse direction has the forward one's peepholes": weights(
            lambda spec, params, s: params[f"weight_ch{s.removesuffix('_reverse')}"]
        )
    },
    "layers": {
        "peepholes of the first layer for all": weights(lambda spec, params, s: params[re.sub(r"\d+", "0", f"weight_ch{s}")])
    },
}

MUTANTS = [
    Mutant(f"{CELL}: {name}", area, (CELL,), backend)
    for area, backends in {"forward": _FORWARD, "bptt": _BPTT, **_STRUCTURE}.items()
    for name, backend in backends.items()
]

MUTANTS += [
    Mutant(
        f"{CELL}: gradient of weight_ch scaled by 1.001 in gate {gate}",
        "bptt",
        (CELL,),
        scaled("weight_ch", place, len(CELLS[CELL].peepholes)),
    )
    for place, gate in enumerate(CELLS[CELL].peepholes)
]
