"""Loops over time of one layer in one direction, for a share of the batch rows and hidden units.

``compile`` binds the free names below to one cell.  Sizes: G gates, of which OUTER read the recurrent product; S saved values
per unit; R hidden units in all, or O for jordan.  B and H count the rows and units of this share; its units start at
``first_unit``.  A row of gates is (G * H,), gate after gate.

    x (N, I)  y (rows, R)  recurrent (T+1, B, R')  memory (T+1, B, H): c of lstm  saved (T, B, S * H)
    operands (T, B, H): of the second recurrent product  hidden (T, B, H): h of jordan

A step has the first rows of the batch, those whose sequences are that long (``rows``): row i of step t is row ``starts[t]`` + i
of x, which has ``starts[T]`` = N rows, and row ``places[t]`` + i of y, dy and dx.

Sizes with an apostrophe are padded to whole vectors, because products write whole vectors; the padding is never read.
Without a tape, arrays indexed by time have fewer rows (``recurrent`` and ``memory`` 2, the others 1), and rows are taken modulo
their number.  Row t of ``recurrent`` is the state before step t, or row t + 1 in reverse.

x, y, dy and dx have the stored dtype (bfloat16 as its bits); all other arrays have the computed dtype.  ``room`` is for the
operands of products (``products.Products``).  ``weights`` are ``weights.Weights``, or ``weights.BackWeights`` in BPTT.  Threads
that divide the units of the same rows share ``recurrent``; they form a ``team`` and meet after every step.
"""

from collections.abc import Callable
from typing import Any

from numba.extending import register_jitable

from rnnbench.impls.numba_cpu.noalias import load, storer
from rnnbench.jit.barrier import meet

store_first, store_second = storer(0), storer(1)

step_forward: Callable[..., Any]
step_backward: Callable[..., Any]
inner_forward: Callable[..., Any]
inner_backward: Callable[..., Any]
load_gates: Callable[..., Any]
load_outer: Callable[..., Any]
load_inner: Callable[..., Any]
load_saved: Callable[..., Any]
load_carried: Callable[..., Any]
load_peepholes: Callable[..., Any]
no_gates: tuple[Any, ...]
store_gates: Callable[..., Any]
store_outer: Callable[..., Any]
store_saved: Callable[..., Any]
store_peepholes: Callable[..., Any]
plus_row: Callable[..., None]
added: Callable[..., None]
plus_row_transposed: Callable[..., None]
added_transposed: Callable[..., None]
pack: Callable[..., None]
GATES: int
OUTER: int
PEEPHOLES: int
HAS_INNER: bool
HAS_MEMORY: bool
CARRIES_HIDDEN: bool
FEEDS_BACK_OUTPUT: bool
SUMS: bool
SEPARATE_COTANGENTS: bool


def units_inner(a, b_outer, carried, operand):
    """Compute the operand of the second recurrent product for all units of one batch row."""
    size = operand.size
    for u in range(size):
        value = inner_forward(load_gates(a, size, u), load_outer(b_outer, size, u), load_carried(carried, size, u))
        store_first(operand, u, value)


def units_forward(a, b_outer, b_inner, carried, peepholes, hidden, memory, saved):
    """Apply the cell's equations to all units of one batch row; ``memory`` receives the new c of lstm."""
    size = hidden.size
    for u in range(size):
        b = no_gates if SUMS else load_outer(b_outer, size, u) + load_inner(b_inner, size, u)
        read = load_carried(carried, size, u) + load_peepholes(peepholes, size, u)
        new, kept = step_forward(load_gates(a, size, u), b, read)
        store_first(hidden, u, new[0])
        if HAS_MEMORY:
            store_second(memory, u, new[1])
        store_saved(saved, size, u, kept)


def units_inner_backward(saved, carried, dhidden, db_inner):
    """Compute the cotangents of the second recurrent product for all units of one batch row."""
    size = dhidden.size
    for u in range(size):
        kept = load_saved(saved, size, u)
        store_first(db_inner, u, inner_backward(kept, load_carried(carried, size, u), (load(dhidden, u),))[0])


def units_backward(saved, carried, peepholes, dhidden, dmemory, doperand, da, db_outer, dcarried, dpeepholes):
    """Apply the derivatives of the cell's equations to all units of one batch row; ``dmemory`` is dc of lstm."""
    size = dhidden.size
    for u in range(size):
        dnew = (load(dhidden, u), load(dmemory, u)) if HAS_MEMORY else (load(dhidden, u),)
        dinner = (load(doperand, u),) if HAS_INNER else ()
        kept = load_saved(saved, size, u)
        read = load_carried(carried, size, u) + load_peepholes(peepholes, size, u)
        da_u, db_u, dcarried_u = step_backward(kept, read, dnew, dinner)
        store_gates(da, size, u, da_u)
        if SEPARATE_COTANGENTS:
            store_outer(db_outer, size, u, db_u)
        if HAS_MEMORY or CARRIES_HIDDEN:
            store_first(dcarried, u, dcarried_u[0])
        if PEEPHOLES:
            store_peepholes(dpeepholes, size, u, dcarried_u[1:])


def forward(
    x, weights, recurrent, memory, saved, operands, hidden, y, starts, places, first_unit, reverse, a, b_outer, b_inner, room,
    team,
):  # fmt: skip
    """Run all steps; fills y and all rows after the initial ones.  One input product covers as many steps as fit in ``a``."""
    steps, input_size = places.size, x.shape[1]
    size, recurrent_size = hidden.shape[2], y.shape[1]
    own = slice(first_unit, first_unit + size)
    done = 0
    while done < steps:
        low, top = steps_within(starts, done, reverse, a.shape[0])
        block_of_x, block_of_a = x[starts[low] : starts[top]], a[: starts[top] - starts[low]]
        plus_row(block_of_x, weights.ih, weights.bias_ih, block_of_a, input_size, room)
        for step in range(done, done + top - low):
            t = steps - 1 - step if reverse else step
            before, after = (t + 1, t) if reverse else (t, t + 1)
            old, new = before % recurrent.shape[0], after % recurrent.shape[0]
            rows, place = starts[t + 1] - starts[t], starts[t] - starts[low]
            state, z = recurrent[old, :rows], a[place : place + rows]
            if SUMS:
                added(state, weights.outer, z, recurrent_size, room)
            else:
                plus_row(state, weights.outer, weights.bias_outer, b_outer, recurrent_size, room)
            if HAS_INNER:
                operand = operands[t % operands.shape[0], :rows]
                for i in range(rows):
                    carried = memory[old, i] if HAS_MEMORY else recurrent[old, i, own]
                    units_inner(z[i], b_outer[i], carried, operand[i])
                plus_row(operand, weights.inner, weights.bias_inner, b_inner, size, room)
            kept = saved[t % saved.shape[0]]
            for i in range(rows):
                h = hidden[t % hidden.shape[0], i] if FEEDS_BACK_OUTPUT else recurrent[new, i, own]
                c = memory[new, i] if HAS_MEMORY else h
                carried = memory[old, i] if HAS_MEMORY else recurrent[old, i, own]
                units_forward(z[i], b_outer[i], b_inner[i], carried, weights.peepholes, h, c, kept[i])
            if FEEDS_BACK_OUTPUT:
                plus_row(hidden[t % hidden.shape[0], :rows], weights.ho, weights.bias_ho, recurrent[new], size, room)
                for i in range(rows):
                    _copy(recurrent[new, i, :recurrent_size], y[places[t] + i])
            else:
                for i in range(rows):
                    _copy(recurrent[new, i, own], y[places[t] + i, own])
            meet(team)
        done += top - low


@register_jitable
def steps_within(starts, done, from_end, capacity):
    """The next steps (low, top) after ``done`` ones, from the start or the end: as many as have ``capacity`` rows in all."""
    steps = starts.size - 1
    low = top = steps - done if from_end else done
    if from_end:
        while low > 0 and starts[top] - starts[low - 1] <= capacity:
            low -= 1
    else:
        while top < steps and starts[top + 1] - starts[low] <= capacity:
            top += 1
    return low, top


def backward(
    x, weights, recurrent, memory, saved, operands, hidden, dy, dx, starts, places, first_unit, reverse, drecurrent, dmemory,
    work, sums, member, team,
):  # fmt: skip
    """Run BPTT over all steps, from the cotangents of the final state to those of the initial state.

    Fills dx and ``sums`` (``layer.Sums``); adds to the biases.  ``work`` (``layer.Work``) holds a block of steps, after which
    their weight gradients are added.  ``drecurrent`` (2, team size, B, R') holds each thread's contribution to the cotangent
    of the state, alternating between steps; ``member`` is this thread's index.  Step s of BPTT, counted from 0, reads
    drecurrent[s % 2], where the cotangents of final states lie, and writes the other, where those of initial states end up.
    """
    steps, input_size = places.size, x.shape[1]
    size, recurrent_size = hidden.shape[2], dy.shape[1]
    gates, outer, inner = GATES * size, OUTER * size, (GATES - OUTER) * size
    da, db_outer, db_inner, doutput = work.da, work.db_outer, work.db_inner, work.doutput
    dhidden, doperand, dcarried, packed, room = work.dhidden, work.doperand, work.dcarried, work.packed, work.room
    dpeepholes, nothing = work.dpeepholes, work.nothing
    own = slice(first_unit, first_unit + size)
    done = 0
    while done < steps:
        low, top = steps_within(starts, done, not reverse, da.shape[0])
        for step in range(done, done + top - low):
            t = step if reverse else steps - 1 - step
            old = t + 1 if reverse else t
            rows, first = starts[t + 1] - starts[t], starts[t] - starts[low]
            given, passed_on = drecurrent[step % 2], drecurrent[(step + 1) % 2, member]
            if FEEDS_BACK_OUTPUT:
                for i in range(rows):
                    _sum_of(given, i, slice(0, recurrent_size), dy[places[t] + i], doutput[first + i])
                plus_row(doutput[first : first + rows], weights.ho, nothing, dhidden, recurrent_size, room)
            else:
                for i in range(rows):
                    _sum_of(given, i, own, dy[places[t] + i, own], dhidden[i, :size])
            if HAS_INNER:
                for i in range(rows):
                    carried = memory[old, i] if HAS_MEMORY else recurrent[old, i, own]
                    units_inner_backward(saved[t, i], carried, dhidden[i, :size], db_inner[first + i])
                plus_row(db_inner[first : first + rows], weights.inner, nothing, doperand, inner, room)
            for i in range(rows):
                carried = memory[old, i] if HAS_MEMORY else recurrent[old, i, own]
                units_backward(
                    saved[t, i], carried, weights.peepholes, dhidden[i, :size], dmemory[i], doperand[i], da[first + i],
                    db_outer[first + i], dcarried[i], dpeepholes[first + i if PEEPHOLES else 0],
                )  # fmt: skip
            if CARRIES_HIDDEN:
                passed_on[:rows] = 0
                for i in range(rows):
                    _copy(dcarried[i], passed_on[i, own])
                added(db_outer[first : first + rows], weights.outer, passed_on, outer, room)
            else:
                plus_row(db_outer[first : first + rows], weights.outer, nothing, passed_on, outer, room)
            if HAS_MEMORY:
                for i in range(rows):
                    _copy(dcarried[i], dmemory[i])
            meet(team)
        rows = starts[top] - starts[low]
        cotangents, outer_cotangents = da[:rows], db_outer[:rows]
        plus_row(cotangents, weights.ih, nothing, work.dx[:rows], gates, room)
        for t in range(low, top):
            for i in range(starts[t + 1] - starts[t]):
                _copy(work.dx[starts[t] - starts[low] + i, :input_size], dx[places[t] + i])
        before = low + 1 if reverse else low
        add_rows(cotangents, gates, sums.bias_ih)
        pack(x[starts[low] : starts[top]], input_size, packed)
        weights_gradient(done, cotangents, size, packed, nothing, sums.ih, first_unit, rows, room)
        if SEPARATE_COTANGENTS:
            add_rows(outer_cotangents, outer, sums.bias_outer)
        pack(rows_of_steps(recurrent, before, starts, low, top, work.rows), recurrent_size, packed)
        weights_gradient(done, outer_cotangents, size, packed, nothing, sums.hh[:OUTER], first_unit, rows, room)
        if HAS_INNER:
            inner_cotangents = db_inner[:rows]
            add_rows(inner_cotangents, inner, sums.bias_inner)
            pack(rows_of_steps(operands, low, starts, low, top, work.rows), size, packed)
            weights_gradient(done, inner_cotangents, size, packed, nothing, sums.hh[OUTER:], first_unit, rows, room)
        if PEEPHOLES:
            add_rows(dpeepholes[:rows], PEEPHOLES * size, sums.peepholes)
        if FEEDS_BACK_OUTPUT:
            output_cotangents = doutput[:rows]
            add_rows(output_cotangents, recurrent_size, sums.bias_ho)
            pack(rows_of_steps(hidden, low, starts, low, top, work.rows), size, packed)
            weights_gradient(done, output_cotangents, recurrent_size, packed, nothing, sums.ho, 0, rows, room)
        done += top - low


@register_jitable
def rows_of_steps(array, first, starts, low, top, room):
    """The rows of steps low to top in ``array`` (steps, B, N), whose row ``first`` belongs to step low, one after the other.

    Where a step lacks rows, they are copied into ``room``.
    """
    rows = starts[top] - starts[low]
    if rows == (top - low) * array.shape[1]:
        return _flat(array[first : first + top - low])
    for t in range(low, top):
        for i in range(starts[t + 1] - starts[t]):
            _copy(array[first + t - low, i], room[starts[t] - starts[low] + i, : array.shape[2]])
    return room[:rows]


def weights_gradient(done, cotangents, size, packed, nothing, out, first_unit, rows, room):
    """Add products of cotangents and packed operands to out (gates, all units, columns'), for this share's units.

    The first block, after no ``done`` step, is stored rather than added, so ``out`` needs no clearing.
    """
    for gate in range(out.shape[0]):
        part = out[gate, first_unit : first_unit + size]
        if done == 0:
            plus_row_transposed(cotangents, gate * size, packed, nothing, part, rows, room)
        else:
            added_transposed(cotangents, gate * size, packed, part, rows, room)


def packed_rows(matrix, out):
    pack(matrix, matrix.shape[1], out)


def packed_columns(matrix, out):
    pack(matrix.T, matrix.shape[0], out)


def copied(source, out):
    """out = source[:, : out.shape[1]], rounded where out is bfloat16."""
    for i in range(out.shape[0]):
        _copy(source[i], out[i])


@register_jitable
def _copy(source, out):
    """out = source; either may be bfloat16.  Numba's assignment of arrays takes seconds to compile, for its error's message."""
    for u in range(out.size):
        store_first(out, u, load(source, u))


@register_jitable
def _sum_of(parts, row, columns, last, out):
    """out = sum of parts[:, row, columns] + last."""
    first = parts[0, row, columns]  # single rows: Numba knows that they are contiguous, so LLVM can vectorise
    for u in range(out.size):
        out[u] = first[u] + load(last, u)
    for part in range(1, parts.shape[0]):
        other = parts[part, row, columns]
        for u in range(out.size):
            out[u] += other[u]


@register_jitable
def _flat(array):
    """(T, B, N) as (T * B, N)."""
    return array.reshape(array.shape[0] * array.shape[1], array.shape[2])


@register_jitable
def add_rows(rows, size, total):
    """total += sum of the rows, eight at a time: fewer roundings, loads and stores of the total."""
    count = rows.shape[0]
    whole = count // 8 * 8
    for i in range(0, whole, 8):
        for u in range(size):
            first = (rows[i, u] + rows[i + 1, u]) + (rows[i + 2, u] + rows[i + 3, u])
            total[u] += first + ((rows[i + 4, u] + rows[i + 5, u]) + (rows[i + 6, u] + rows[i + 7, u]))
    for i in range(whole, count):
        for u in range(size):
            total[u] += rows[i, u]
