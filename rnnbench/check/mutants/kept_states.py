# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in the states of all steps: their order, their rows, and whose arrays they are."""

from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_network
from rnnbench.networks.contract import State


def _changed(change: Any) -> Planted:
    """``change(array)`` returns the wrong states for right ones (L*D, T, B, size)."""
    return in_network(_states=lambda right, net, content, steps: tuple(map(change, right(content, steps))))


def _before(states: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], 1)


def _in_order_of_the_loop(right: Any, net: Any, content: Any, steps: int) -> State:
    return tuple(np.concatenate([part[:1], part[1:2, ::-1], part[2:]]) for part in right(content, steps))


def _held(states: np.ndarray) -> np.ndarray:
    """The last state of a row that has ended, in the place of zeros."""
    held = states.copy()
    for t in range(1, states.shape[1]):
        ended = ~held[:, t].any(axis=2)
        held[:, t][ended] = held[:, t - 1][ended]
    return held


def _h_twice(right: Any, net: Any, content: Any, steps: int) -> State:
    h, *others = right(content, steps)
    return (h, *(h for _ in others))


def _shared(right: Any, net: Any, content: Any, steps: int) -> State:
    """The states are arrays that backward clears."""
    found = right(content, steps)
    net.__dict__.setdefault("_lent", []).extend(found)
    return found


def _clears(right: Any, net: Any, *arguments: Any) -> Any:
    for part in net.__dict__.pop("_lent", ()):
        part[...] = 0
    return right(*arguments)


_STATES = {
    "lstm: states of all steps are those before them": _changed(_before),
    "gru: states of the reverse direction in the order of its loop": in_network(_states=_in_order_of_the_loop),
    "elman: states are held where a row has ended": _changed(_held),
    "lstm: states of all steps have h for c": in_network(_states=_h_twice),
    "gru: states of all steps with their layers swapped": _changed(lambda states: states[::-1].copy()),
    "gru: backward clears the states that were read": in_network(_states=_shared, _backward=_clears),
}

MUTANTS = [Mutant(name, "states", (name.partition(":")[0],), backend) for name, backend in _STATES.items()]
