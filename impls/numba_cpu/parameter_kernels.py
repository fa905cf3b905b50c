"""Passes over parameters and their gradients: embedding, squares and optimisers, for the share of one thread.

``compile_parts`` binds the free names below to one rule of ``rnnbench.models.equations``.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

rule: Callable[..., Any]
load_slots: Callable[..., Any]
store_slots: Callable[..., None]
SPARSE: bool
ZERO: Any


def embedding_rows(indices, found, place):
    """Fill ``found`` with the distinct indices, ascending, and ``place`` with the position of each; return their number.

    ``place``: -1 everywhere, as long as the largest index + 1.
    """
    for i in range(indices.size):
        place[indices[i]] = 0
    count = 0
    for index in range(place.size):
        if place[index] == 0:
            place[index] = count
            found[count] = index
            count += 1
    return count


def embedding_gradient(indices, place, dx, sums):
    """sums (distinct indices, E) = the rows of dx (N, E) added up by index, in order."""
    for row in range(sums.shape[0]):
        for u in range(sums.shape[1]):
            sums[row, u] = ZERO
    for i in range(indices.size):
        total, term = sums[place[indices[i]]], dx[i]
        for u in range(total.size):
            total[u] += term[u]


def squared_norm(gradient, out):
    """out (1,) = the sum of squares of a vector, in float64."""
    out[0] = _squares(gradient)


def update(parameter, gradient, slots, constants, scale, limit):
    """Apply the rule to a vector of parameters and its slots, in one pass."""
    update_elements(parameter, gradient, slots, constants, scale, limit)


def update_rows(parameter, first, last, indices, gradient, slots, constants, scale, limit, zeros):
    """Apply the rule to the rows from ``first`` to ``last`` of a parameter (V, E), whose gradient is 0 but for some rows.

    ``indices``, ``gradient``: those of these rows.  ``zeros`` (E,): the gradient of the others.
    """
    at = 0
    if SPARSE:
        for at in range(indices.size):
            row = indices[at]
            update_elements(parameter[row], gradient[at], load_slots(slots, row), constants, scale, limit)
        return
    for row in range(first, last):
        if at < indices.size and indices[at] == row:
            update_elements(parameter[row], gradient[at], load_slots(slots, row), constants, scale, limit)
            at += 1
        else:
            update_elements(parameter[row], zeros, load_slots(slots, row), constants, scale, limit)


def update_elements(parameter, gradient, slots, constants, scale, limit):
    for u in range(parameter.size):
        term = gradient[u] * scale
        term = limit if term > limit else term
        term = -limit if term < -limit else term
        parameter[u], kept = rule(parameter[u], term, load_slots(slots, u), constants)
        store_slots(slots, u, kept)


@njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _squares(values):
    """The order of this sum is free, so that it becomes vectors; it is the same in every call."""
    total = 0.0
    for u in range(values.size):
        wide = np.float64(values[u])  # float() would leave it as it is
        total += wide * wide
    return total
