"""Persistent BPTT kernels, which run all time steps: one for cells with one recurrent product, one for cells with two.

Arrays have the layout of ``persistent_forward``.  Inputs: the cotangents ``dy``, ``dfinal`` and ``dfinal_carried``, and the
transposed weights ``packed``, with which a unit of the state sums over all gates of all units.  Outputs: ``dinitial``,
``dinitial_carried`` and ``da`` (T, B, G, H); ``db`` (T, B, G, H) for cells whose input and recurrent products have different
cotangents; ``outputs`` (T, B, S), the total cotangents of y, for cells that feed back their output.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.types import float32, int64

from rnnbench.impls.numba_cuda.intrinsics import read_values, write_values
from rnnbench.impls.numba_cuda.layout import Shape, backward_products, places
from rnnbench.impls.numba_cuda.persistent_forward import reading_states, writing_states
from rnnbench.impls.numba_cuda.sharing import barriers, clearing, sharing
from rnnbench.networks.cells import Equations
from rnnbench.networks.spec import Spec

Kernel = Callable[..., None]


def backward_kernel(spec: Spec, shape: Shape, equations: Equations) -> Kernel:
    """The BPTT kernel of a spec's cell."""
    build = _two_products if len(backward_products(spec)) == 2 else _one_product
    return build(spec, shape, equations)


def _one_product(spec: Spec, shape: Shape, equations: Equations) -> Kernel:
    cell, units = spec.kind, spec.hidden_size
    products = backward_products(spec)
    (place,), _ = places(products, shape)
    fetch, multiply, sending, collect = sharing(place, shape, units)
    rank_of_block, begin_exchanges, ready, arrive, wait, end = barriers(shape, place)
    gates, saved_values, states_count = len(cell.gates), cell.saved, len(cell.states)
    send = sending(gates)
    carried_from = cell.states.index(cell.carries) if cell.carries else 0
    read_saved, read_carried = read_values(saved_values), read_values(int(cell.carries is not None))
    read_final, write_initial = reading_states(states_count), writing_states(states_count)
    write_da, write_db = write_values(gates), write_values(0 if cell.reads_sums else gates)
    lanes, rows, threads, blocks, per_block = shape.lanes, shape.rows, shape.threads, shape.blocks, shape.units
    step_backward: Any = cuda.jit(device=True, forceinline=True)(equations.backward)
    received, passed_on = _received(states_count), _passed_on(spec)
    clear = clearing(place, threads)
    none_saved, none, not_carried, no_states = (
        (np.float32(0),) * count for count in (saved_values, 1, int(cell.carries is not None), states_count)
    )

    def kernel(
        saved,
        states,
        dy,
        dfinal,
        dfinal_carried,
        dinitial,
        dinitial_carried,
        da,
        db,
        packed,
        mail,
        steps,
        batch,
        reverse,
        across,
        first,
    ):
        shared = cuda.shared.array(0, float32, 16)
        tid, rank = int64(cuda.threadIdx.x), rank_of_block()
        lane, own = tid % lanes, tid // lanes
        unit = rank * per_block + own
        row, valid = first + cuda.blockIdx.x // blocks * rows + lane, own < per_block and unit < units
        active = valid and lane < rows and row < batch
        weights = fetch(packed, rank, shared)
        clear(shared)
        between = (steps + 1) * batch * units
        t, step = (1 - reverse) * (steps - 1), 2 * reverse - 1
        kept, carried, entering, dnew = none_saved, not_carried, none, no_states
        if active:
            # the cotangent of h comes with dy in every step; that of c comes from outside only at the end
            entering = (float32(dy[(t * batch + row) * across + unit]),)
            dnew = received(read_final(dfinal, dfinal_carried, row * units + unit), entering)
        begin_exchanges(shared, mail)
        for s in range(steps):
            if active:
                kept = read_saved(saved, (t * batch + row) * saved_values * units + unit, units)
                position = ((t + reverse) * batch + row) * units + unit
                carried = read_carried(states, carried_from * between + position, between)
                entering = none
                if s + 1 < steps:
                    entering = (float32(dy[((t + step) * batch + row) * across + unit]),)
            da_values, db_values, dcarried = step_backward(kept, carried, dnew, ())
            ready()
            send(shared, mail, s, s & 1, unit, valid, db_values)
            arrive(shared, mail, s)
            if active:
                write_da(da, (t * batch + row) * gates * units + unit, units, da_values)
                write_db(db, (t * batch + row) * gates * units + unit, units, db_values)
            wait(shared, mail, s)
            collect(shared, mail, s & 1)
            dnew = received(passed_on(multiply(weights, shared, mail, s & 1), dcarried), entering)
            t += step
        if active:
            write_initial(dinitial, dinitial_carried, row * units + unit, dnew)
        end()

    return kernel


def _two_products(spec: Spec, shape: Shape, equations: Equations) -> Kernel:
    """In each step ``middle`` computes the operand of the second product, then ``finish`` the cotangents of pre-activations."""
    cell, units, size = spec.kind, spec.hidden_size, spec.state_size
    (place, place_2), _ = places(backward_products(spec), shape)
    fetch, multiply, sending, collect = sharing(place, shape, units)
    rank_of_block, begin_exchanges, ready, arrive, wait, end = barriers(shape, place_2, place)
    fetch_2, multiply_2, sending_2, collect_2 = sharing(place_2, shape, size)
    gates, saved_values = len(cell.gates), cell.saved
    send, send_2 = sending(cell.outer_gates), sending_2(1)
    read_saved, read_carried = read_values(saved_values), read_values(int(cell.carries is not None))
    write_outputs, write_da = write_values(int(cell.feeds_back_output)), write_values(gates)
    lanes, rows, threads, blocks, per_block = shape.lanes, shape.rows, shape.threads, shape.blocks, shape.units
    middle, finish = _stages(spec, equations)
    received, passed_on = _received(1), _passed_on(spec)
    clear, clear_2 = clearing(place, threads), clearing(place_2, threads)
    none_saved, none, not_carried = ((np.float32(0),) * count for count in (saved_values, 1, int(cell.carries is not None)))

    def kernel(saved, states, dy, dfinal, dinitial, outputs, da, packed, packed_2, mail, steps, batch, reverse, across, first):
        shared = cuda.shared.array(0, float32, 16)
        tid, rank = int64(cuda.threadIdx.x), rank_of_block()
        lane, own = tid % lanes, tid // lanes
        unit = rank * per_block + own
        row = first + cuda.blockIdx.x // blocks * rows + lane
        valid, valid_2 = own < per_block and unit < units, own < per_block and unit < size
        own_row = lane < rows and row < batch
        active, active_2 = own_row and valid, own_row and valid_2
        weights, weights_2 = fetch(packed, rank, shared), fetch_2(packed_2, rank, shared)
        clear(shared)
        clear_2(shared)
        t, step = (1 - reverse) * (steps - 1), 2 * reverse - 1
        kept, carried, entering, dnew = none_saved, not_carried, none, none
        if active_2:
            entering = (float32(dy[(t * batch + row) * across + unit]),)
            dnew = received((float32(dfinal[row * size + unit]),), entering)
        begin_exchanges(shared, mail)
        for s in range(steps):
            if active:
                kept = read_saved(saved, (t * batch + row) * saved_values * units + unit, units)
                carried = read_carried(states, ((t + reverse) * batch + row) * size + unit, 0)
            between = middle(kept, carried, dnew)
            ready()
            send_2(shared, mail, 2 * s, 0, unit, valid_2, between)
            arrive(shared, mail, 2 * s)
            if active_2:
                write_outputs(outputs, (t * batch + row) * size + unit, 0, dnew)
                entering = none
                if s + 1 < steps:
                    entering = (float32(dy[((t + step) * batch + row) * across + unit]),)
            wait(shared, mail, 2 * s)
            collect_2(shared, mail, 0)
            da_values, db_values, dcarried = finish(kept, carried, dnew, multiply_2(weights_2, shared, mail, 0))
            ready()
            send(shared, mail, 2 * s + 1, s & 1, unit, valid, db_values)
            arrive(shared, mail, 2 * s + 1)
            if active:
                write_da(da, (t * batch + row) * gates * units + unit, units, da_values)
            wait(shared, mail, 2 * s + 1)
            collect(shared, mail, s & 1)
            dnew = received(passed_on(multiply(weights, shared, mail, s & 1), dcarried), entering)
            t += step
        if active_2:
            dinitial[row * size + unit] = dnew[0]
        end()

    return kernel


def _stages(spec: Spec, equations: Equations) -> tuple[Any, Any]:
    """Device functions ``middle(saved, carried, dnew) -> operand`` and ``finish(saved, carried, dnew, product) -> da, db,
    dcarried``."""
    backward: Any = cuda.jit(device=True, forceinline=True)(equations.backward)
    if spec.kind.feeds_back_output:

        @cuda.jit(device=True, forceinline=True)
        def output(saved, carried, dnew):
            return dnew

        @cuda.jit(device=True, forceinline=True)
        def hidden(saved, carried, dnew, product):
            return backward(saved, carried, product, ())

        return output, hidden
    inner_backward: Any = cuda.jit(device=True, forceinline=True)(equations.inner_backward)
    return inner_backward, backward


def _received(count: int) -> Any:
    """``received(cotangents, dy)``: the cotangents of the state, with dy added to the first."""
    if count == 1:

        @cuda.jit(device=True, forceinline=True)
        def alone(cotangents, dy):
            return (cotangents[0] + dy[0],)

        return alone

    @cuda.jit(device=True, forceinline=True)
    def with_others(cotangents, dy):
        return (cotangents[0] + dy[0], cotangents[1])

    return with_others


def _passed_on(spec: Spec) -> Any:
    """``passed_on(product, dcarried)``: the cotangents of the state before a step, from its two uses in the step."""
    if spec.kind.carries is None:

        @cuda.jit(device=True, forceinline=True)
        def product_alone(product, dcarried):
            return product

        return product_alone
    if spec.kind.carries == spec.kind.states[0]:

        @cuda.jit(device=True, forceinline=True)
        def both(product, dcarried):
            return (product[0] + dcarried[0],)

        return both

    @cuda.jit(device=True, forceinline=True)
    def apart(product, dcarried):
        return product + dcarried

    return apart
