# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs at one width: elements beyond a vector, a tile or a block are lost, or a size at its edge is treated wrongly."""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_arguments, in_cotangents, in_layer, in_network, replaced
from rnnbench.check.widths import EDGES, WIDTHS
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params


def units_beyond(width: int) -> Planted:
    """Do not update hidden units beyond the width of a buffer."""

    def step(right: Any, layer: Any, w: Params, t: int, rows: Any, x: np.ndarray, state: State) -> Any:
        new, kept = right(w, t, rows, x, state)
        for before, after in zip(state, new, strict=True):
            after[:, width:] = before[:, width:]
        return new, kept

    return in_layer(_step=step)


def inputs_beyond(width: int) -> Planted:
    return in_arguments(lambda spec, x, state: (replaced(x, np.s_[:, :, width:]), state))


def rows_beyond(width: int) -> Planted:
    return in_cotangents(lambda spec, dy, dstate: (replaced(dy, np.s_[:, width:]), dstate))


def steps_beyond(width: int) -> Planted:
    return in_cotangents(lambda spec, dy, dstate: (replaced(dy, np.s_[width:]), dstate))


def at_size(axis: str, size: int) -> Planted:
    """Ignore dy of the last step if an axis has exactly this size."""

    def backward(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
        sizes = {"T": dy.shape[0], "B": dy.shape[1], "I": net.spec.input_size, "H": net.spec.hidden_size}
        return right(tape, replaced(dy, -1) if sizes[axis] == size else dy, dstate)

    return in_network(_backward=backward)


_BEYOND: dict[str, Callable[[int], Planted]] = {
    "lstm: hidden units": units_beyond,
    "gru: inputs": inputs_beyond,
    "elman: dy of rows": rows_beyond,
    "jordan: dy of steps": steps_beyond,
}

_BUGS = {f"{lost} beyond {width} left out": plant(width) for lost, plant in _BEYOND.items() for width in WIDTHS}
_BUGS |= {
    f"{cell}: dy of the last step missing where {axis} = {size}": at_size(axis, size)
    for (cell, axis), size in zip(cycle([("gru", "T"), ("lstm", "B"), ("elman", "H"), ("jordan", "I")]), EDGES, strict=False)
}

MUTANTS = [Mutant(name, "widths", (name.partition(":")[0],), backend) for name, backend in _BUGS.items()]
