"""The loops of one layer in one direction; ``compile`` fills in the names that belong to a cell.

Arrays (all C-contiguous): G gates, of which OUTER read the recurrent product; H hidden units, S saved values each; R = H,
or O for jordan.
A row of gates is (G * H,), gate after gate.  Time-indexed arrays have T rows when the tape is kept and fewer when it is
not (``recurrent`` and ``memory`` T + 1 or 2, the others T or 1); rows are taken modulo their number.

    x (T, B, I)  y (T, B, R)  recurrent (T+1, B, R)  memory (T+1, B, H): c of lstm  saved (T, B, S * H)
    operands (T, B, H): of the second recurrent product  hidden (T, B, H): h of jordan

Row t of ``recurrent`` is the state before step t; in reverse, row t + 1 is.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

step_forward: Callable[..., Any]
step_backward: Callable[..., Any]
inner_forward: Callable[..., Any]
inner_backward: Callable[..., Any]
load_gates: Callable[..., Any]
load_outer: Callable[..., Any]
load_inner: Callable[..., Any]
load_saved: Callable[..., Any]
load_carried: Callable[..., Any]
store_gates: Callable[..., Any]
store_outer: Callable[..., Any]
store_saved: Callable[..., Any]
GATES: int
OUTER: int
HAS_INNER: bool
HAS_MEMORY: bool
CARRIES_HIDDEN: bool
FEEDS_BACK_OUTPUT: bool
SEPARATE_COTANGENTS: bool


def units_inner(a, b_outer, carried, operand):
    """The operand of the second recurrent product, for all units of one batch row."""
    size = operand.size
    for u in range(size):
        operand[u] = inner_forward(load_gates(a, size, u), load_outer(b_outer, size, u), load_carried(carried, size, u))


def units_forward(a, b_outer, b_inner, carried, hidden, memory, saved):
    """The cell's equations for all units of one batch row; ``memory`` receives the new c of lstm."""
    size = hidden.size
    for u in range(size):
        b = load_outer(b_outer, size, u) + load_inner(b_inner, size, u)
        new, kept = step_forward(load_gates(a, size, u), b, load_carried(carried, size, u))
        hidden[u] = new[0]
        if HAS_MEMORY:
            memory[u] = new[1]
        store_saved(saved, size, u, kept)


def units_inner_backward(saved, carried, dhidden, db_inner):
    """The cotangents of the second recurrent product's results, for all units of one batch row."""
    size = dhidden.size
    for u in range(size):
        kept = load_saved(saved, size, u)
        db_inner[u] = inner_backward(kept, load_carried(carried, size, u), (dhidden[u],))[0]


def units_backward(saved, carried, dhidden, dmemory, doperand, da, db_outer, dcarried):
    """The derivatives of the cell's equations for all units of one batch row; ``dmemory`` is dc of lstm."""
    size = dhidden.size
    for u in range(size):
        dnew = (dhidden[u], dmemory[u]) if HAS_MEMORY else (dhidden[u],)
        dinner = (doperand[u],) if HAS_INNER else ()
        kept = load_saved(saved, size, u)
        da_u, db_u, dcarried_u = step_backward(kept, load_carried(carried, size, u), dnew, dinner)
        store_gates(da, size, u, da_u)
        if SEPARATE_COTANGENTS:
            store_outer(db_outer, size, u, db_u)
        if HAS_MEMORY or CARRIES_HIDDEN:
            dcarried[u] = dcarried_u[0]


def forward(x, weights, recurrent, memory, saved, operands, hidden, y, reverse, block):
    """Run all steps, ``block`` of them per input product; fills ``y`` and all rows after the initial ones."""
    weight_ih, weight_outer, weight_inner, bias_ih, bias_outer, bias_inner, weight_ho, bias_ho = weights
    steps, batch, input_size = x.shape
    size = hidden.shape[2]
    a = np.empty((block * batch, GATES * size), x.dtype)
    b_outer = np.empty((batch, OUTER * size), x.dtype)
    b_inner = np.empty((batch, (GATES - OUTER) * size), x.dtype)
    for first in range(0, steps, block):
        count = min(block, steps - first)
        lowest = steps - first - count if reverse else first
        rows = a[: count * batch]
        np.dot(x[lowest : lowest + count].reshape(count * batch, input_size), weight_ih.T, rows)
        for step in range(first, first + count):
            t = steps - 1 - step if reverse else step
            before, after = (t + 1, t) if reverse else (t, t + 1)
            old, new = before % recurrent.shape[0], after % recurrent.shape[0]
            kept = t % saved.shape[0]
            np.dot(recurrent[old], weight_outer.T, b_outer)
            carried = memory[old] if HAS_MEMORY else recurrent[old]
            operand = operands[t % operands.shape[0]]
            for i in range(batch):
                row = rows[(t - lowest) * batch + i]
                row += bias_ih
                b_outer[i] += bias_outer
                if HAS_INNER:
                    units_inner(row, b_outer[i], carried[i], operand[i])
            if HAS_INNER:
                np.dot(operand, weight_inner.T, b_inner)
            for i in range(batch):
                if HAS_INNER:
                    b_inner[i] += bias_inner
                row = rows[(t - lowest) * batch + i]
                h = hidden[t % hidden.shape[0], i] if FEEDS_BACK_OUTPUT else recurrent[new, i]
                c = memory[new, i] if HAS_MEMORY else h
                units_forward(row, b_outer[i], b_inner[i], carried[i], h, c, saved[kept, i])
            if FEEDS_BACK_OUTPUT:
                np.dot(hidden[t % hidden.shape[0]], weight_ho.T, recurrent[new])
                for i in range(batch):
                    recurrent[new, i] += bias_ho
            y[t] = recurrent[new]


def backward(x, weights, recurrent, memory, saved, operands, hidden, dy, drecurrent, dmemory, reverse, gradients):
    """BPTT over all steps: fills ``gradients`` and dx, and turns the final state's cotangents into the initial state's."""
    weight_ih, weight_outer, weight_inner, _, _, _, weight_ho, _ = weights
    steps, batch, _ = x.shape
    size = hidden.shape[2]
    da = np.empty((steps, batch, GATES * size), x.dtype)
    db_outer = np.empty((steps, batch, OUTER * size), x.dtype) if SEPARATE_COTANGENTS else da
    db_inner = np.empty((steps if HAS_INNER else 1, batch, (GATES - OUTER) * size), x.dtype)
    doutput = np.empty((steps if FEEDS_BACK_OUTPUT else 1, batch, recurrent.shape[2]), x.dtype)
    doperand = np.empty((batch, size), x.dtype)
    dcarried = np.empty((batch, size), x.dtype)
    dhidden = np.empty((batch, size), x.dtype)
    for step in range(steps):
        t = step if reverse else steps - 1 - step
        old = t + 1 if reverse else t
        carried = memory[old] if HAS_MEMORY else recurrent[old]
        if FEEDS_BACK_OUTPUT:
            for i in range(batch):
                doutput[t, i] = drecurrent[i] + dy[t, i]
            np.dot(doutput[t], weight_ho, dhidden)
        else:
            for i in range(batch):
                dhidden[i] = drecurrent[i] + dy[t, i]
        if HAS_INNER:
            for i in range(batch):
                units_inner_backward(saved[t, i], carried[i], dhidden[i], db_inner[t, i])
            np.dot(db_inner[t], weight_inner, doperand)
        for i in range(batch):
            units_backward(saved[t, i], carried[i], dhidden[i], dmemory[i], doperand[i], da[t, i], db_outer[t, i], dcarried[i])
        np.dot(db_outer[t], weight_outer, drecurrent)
        if HAS_MEMORY:
            dmemory[:] = dcarried
        if CARRIES_HIDDEN:
            drecurrent += dcarried
    dx, dweight_ih, dweight_outer, dweight_inner, dbias_ih, dbias_outer, dbias_inner, dweight_ho, dbias_ho = gradients
    before = recurrent[1:] if reverse else recurrent[:steps]
    np.dot(_flat(da), weight_ih, _flat(dx))
    np.dot(_flat(da).T, _flat(x), dweight_ih)
    np.dot(_flat(db_outer).T, _flat(before), dweight_outer)
    _add_rows(_flat(da), dbias_ih)
    _add_rows(_flat(db_outer), dbias_outer)
    if HAS_INNER:
        np.dot(_flat(db_inner).T, _flat(operands), dweight_inner)
        _add_rows(_flat(db_inner), dbias_inner)
    if FEEDS_BACK_OUTPUT:
        np.dot(_flat(doutput).T, _flat(hidden), dweight_ho)
        _add_rows(_flat(doutput), dbias_ho)


@register_jitable
def _flat(array):
    """(T, B, N) as (T * B, N)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


@register_jitable
def _add_rows(rows, total):
    for row in rows:
        total += row
