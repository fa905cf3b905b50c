"""Bugs in the projection of h; without one, these mutants are correct."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.gradients import overwritten, scaled, with_steps, with_weights
from rnnbench.check.mutants.hooks import Mutant, Planted, in_layer, in_weights, reference
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

CELL = "lstm"


def weights(change: Callable[[Params, str], np.ndarray]) -> Planted:
    """``change(params, suffix)`` returns the projection that the layer of this suffix reads."""

    def changed(spec: Spec, params: Params) -> Params:
        suffixes = spec.suffixes() if spec.projection_size else []
        return {f"weight_hr{suffix}": change(params, suffix) for suffix in suffixes}

    return in_weights(changed)


def weights_back(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    """BPTT reads another projection than the forward pass."""
    return with_weights(lambda w: {"weight_hr": change(w["weight_hr"])} if "weight_hr" in w else {})


def column_by_column(w: np.ndarray) -> np.ndarray:
    return w.T.reshape(w.shape)


def transposed_where_square(w: np.ndarray) -> np.ndarray:
    return w.T if w.shape[0] == w.shape[1] else w


def first_units(w: np.ndarray) -> np.ndarray:
    """The map to as many of the units of h, which is what a copy of too short a row gives."""
    return np.eye(*w.shape, dtype=w.dtype)


def unprojected_final(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, *others: Any) -> Any:
    """Return the first units of h, not its projection, as the final state."""
    y, final, tape = reference.Layer.record(layer, w, x, state, *others)
    last = tape[1][-1] if tape[1] else None
    if "weight_hr" in w and last and isinstance(last.rows, slice):
        final = (last.hidden[:, : final[0].shape[1]], *final[1:])
    return (y, final, tape)[: len(right(w, x, state, *others))]


def gradient_from_dy(right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, *rest: Any) -> Any:
    """Leave what flows back through the recurrence out of the projection's gradient."""
    steps = list(tape[1])
    grads, *others = right(w, tape, dy, *rest)
    if "weight_hr" in w:
        terms = (dy[step.t, step.rows].T @ step.hidden for step in steps)
        grads = grads | {"weight_hr": sum(terms, np.zeros_like(w["weight_hr"]))}
    return (grads, *others)


def one_step_before(steps: list[Any]) -> list[Any]:
    return [step._replace(hidden=earlier.hidden) for step, earlier in zip(steps, [steps[0], *steps[:-1]], strict=True)]


_FORWARD = {
    "ignored: the first units of h": weights(lambda params, s: first_units(params[f"weight_hr{s}"])),
    "read column by column": weights(lambda params, s: column_by_column(params[f"weight_hr{s}"])),
    "transposed where it is square": weights(lambda params, s: transposed_where_square(params[f"weight_hr{s}"])),
}

_BPTT = {
    "left out on the way back": weights_back(first_units),
    "read column by column on the way back only": weights_back(column_by_column),
    "gradient overwritten at every step": overwritten("weight_hr"),
    "gradient reads h of the step before": with_steps(one_step_before),
    "gradient without what comes through the recurrence": in_layer(backward=gradient_from_dy),
    "gradient scaled by 1.001": scaled("weight_hr", 0, 1),
}

_STRUCTURE = {
    "state": {"final h is not projected": in_layer(forward=unprojected_final, record=unprojected_final)},
    "directions": {
        "reverse direction has the forward one's": weights(lambda params, s: params[f"weight_hr{s.removesuffix('_reverse')}"])
    },
    "layers": {"that of the first layer for all": weights(lambda params, s: params[re.sub(r"\d+", "0", f"weight_hr{s}")])},
}

MUTANTS = [
    Mutant(f"{CELL} with a projection: {name}", area, (CELL,), backend)
    for area, backends in {"forward": _FORWARD, "bptt": _BPTT, **_STRUCTURE}.items()
    for name, backend in backends.items()
]
