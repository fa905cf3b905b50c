"""Persistent forward kernels, which run all time steps: one for cells with one recurrent product, one for cells with two.

Arrays are flat.  In the network's dtype: ``initial`` and ``final`` (B, H), ``initial_carried`` and ``final_carried`` for states
other than h, and ``y`` (T, B, H) with rows ``across`` elements apart.  In float32: input products with bias ``a`` (T, B, G, H),
``states`` (S, T + 1, B, H) in the layout of ``slots.Slots``, ``saved`` (T, B, values, H) and ``operand`` (T, B, H) for BPTT,
weights ``packed`` by ``layout.pack``, and ``bias`` (G, H).  ``reverse`` is 1 where time runs backwards.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportCallIssue=false, reportArgumentType=false, reportAttributeAccessIssue=false
# pyright: reportOperatorIssue=false

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import cuda
from numba.cuda.types import float32, int64

from rnnbench.impls.numba_cuda.intrinsics import added, read_values, write_values
from rnnbench.impls.numba_cuda.layout import Place, Shape, Tiles, forward_products, places
from rnnbench.impls.numba_cuda.sharing import barriers, clearing, sharing
from rnnbench.impls.numba_cuda.tensor_cores import beginning
from rnnbench.networks.cells import Equations
from rnnbench.networks.spec import Spec

Kernel = Callable[..., None]


def forward_kernel(spec: Spec, shape: Shape, equations: Equations, *, keeps: bool) -> Kernel:
    """The forward kernel of a spec's cell; with ``keeps`` it also writes ``states``, ``saved`` and ``operand``."""
    build = _two_products if len(forward_products(spec)) == 2 else _one_product
    return build(spec, shape, equations, keeps)


def _one_product(spec: Spec, shape: Shape, equations: Equations, keeps: bool) -> Kernel:
    cell, units = spec.kind, spec.hidden_size
    (place,), _ = places(forward_products(spec), shape)
    fetch, multiply, sending, collect = sharing(place, shape, units)
    rank_of_block, begin_exchanges, ready, arrive, wait, end = barriers(shape, place)
    send = sending(1)
    gates, saved_values = len(cell.gates), cell.saved
    read_gates = read_values(gates)
    write_state, write_saved = (write_values(count * keeps) for count in (len(cell.states), saved_values))
    lanes, rows, blocks, per_block = shape.lanes, shape.rows, shape.blocks, shape.units
    no_gates, no_state = _zeros(gates), _zeros(len(cell.states))
    read_initial, write_final = reading_states(len(cell.states)), writing_states(len(cell.states))
    step_forward: Any = cuda.jit(device=True, forceinline=True)(equations.forward)
    next_carried = _next_carried(spec)
    begin = _begin(place, shape, units)

    def kernel(
        a,
        initial,
        initial_carried,
        y,
        final,
        final_carried,
        states,
        saved,
        packed,
        bias,
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
        first_row = first + cuda.blockIdx.x // blocks * rows
        row, valid = first_row + lane, own < per_block and unit < units
        active = valid and lane < rows and row < batch
        weights = fetch(packed, rank, shared)
        begin(shared, mail, initial, first_row, batch)
        between = (steps + 1) * batch * units
        t, step = reverse * (steps - 1), 1 - 2 * reverse
        started, biases, ahead = no_state, no_gates, no_gates
        if active:
            started = read_initial(initial, initial_carried, row * units + unit)
            write_state(states, (reverse * steps * batch + row) * units + unit, between, started)
            biases = read_gates(bias, unit, units)
            ahead = read_gates(a, (t * batch + row) * gates * units + unit, units)
        carried = next_carried(started)
        begin_exchanges(shared, mail)
        for s in range(steps):
            buffer = s & 1
            sums = multiply(weights, shared, mail, buffer)
            new, kept = step_forward(ahead, added(sums, biases), carried)
            carried = next_carried(new)
            ready()
            send(shared, mail, s, 1 - buffer, unit, valid, new)
            arrive(shared, mail, s)
            if active:
                y[(t * batch + row) * across + unit] = new[0]
                write_state(states, ((t + 1 - reverse) * batch + row) * units + unit, between, new)
                write_saved(saved, (t * batch + row) * saved_values * units + unit, units, kept)
                if s + 1 < steps:
                    ahead = read_gates(a, ((t + step) * batch + row) * gates * units + unit, units)
                else:
                    write_final(final, final_carried, row * units + unit, new)
            t += step
            wait(shared, mail, s)
            collect(shared, mail, 1 - buffer)
        end()

    return kernel


def _two_products(spec: Spec, shape: Shape, equations: Equations, keeps: bool) -> Kernel:
    """In each step ``middle`` computes the operand of the second product, then ``finish`` the state."""
    cell, units, size = spec.kind, spec.hidden_size, spec.state_size
    (place, place_2), _ = places(forward_products(spec), shape)
    fetch, multiply, sending, collect = sharing(place, shape, units)
    rank_of_block, begin_exchanges, ready, arrive, wait, end = barriers(shape, place_2, place)
    fetch_2, multiply_2, sending_2, collect_2 = sharing(place_2, shape, size)
    send, send_2 = sending(1), sending_2(1)
    gates, outer, saved_values = len(cell.gates), cell.outer_gates, cell.saved
    read_gates, read_outer, read_one = read_values(gates), read_values(outer), read_values(1)
    write_state, write_saved, write_operand = (write_values(count * keeps) for count in (1, saved_values, 1))
    lanes, rows, blocks, per_block = shape.lanes, shape.rows, shape.blocks, shape.units
    no_gates, no_outer, no_one = (_zeros(n) for n in (gates, outer, 1))
    middle, finish = _stages(spec, equations)
    next_carried = _next_carried(spec)
    begin = _begin(place, shape, size)
    clear_2 = clearing(place_2, shape.threads)

    def kernel(
        a, initial, y, final, states, saved, operand, packed, packed_2, bias, bias_2, mail, steps, batch, reverse, across, first
    ):
        shared = cuda.shared.array(0, float32, 16)
        tid, rank = int64(cuda.threadIdx.x), rank_of_block()
        lane, own = tid % lanes, tid // lanes
        unit = rank * per_block + own
        first_row = first + cuda.blockIdx.x // blocks * rows
        row = first_row + lane
        valid, valid_2 = own < per_block and unit < units, own < per_block and unit < size
        own_row = lane < rows and row < batch
        active, active_2 = own_row and valid, own_row and valid_2
        weights, weights_2 = fetch(packed, rank, shared), fetch_2(packed_2, rank, shared)
        clear_2(shared)
        begin(shared, mail, initial, first_row, batch)
        t, step = reverse * (steps - 1), 1 - 2 * reverse
        started, biases, biases_2, ahead = no_one, no_outer, no_one, no_gates
        if active:
            biases = read_outer(bias, unit, units)
            ahead = read_gates(a, (t * batch + row) * gates * units + unit, units)
        if active_2:
            started = (float32(initial[row * size + unit]),)
            write_state(states, (reverse * steps * batch + row) * size + unit, 0, started)
            biases_2 = read_one(bias_2, unit, 0)
        carried = next_carried(started)
        begin_exchanges(shared, mail)
        for s in range(steps):
            buffer = s & 1
            sums = added(multiply(weights, shared, mail, buffer), biases)
            between = middle(ahead, sums, carried)
            ready()
            send_2(shared, mail, 2 * s, 0, unit, valid, between)
            arrive(shared, mail, 2 * s)
            if active:
                write_operand(operand, (t * batch + row) * units + unit, 0, between)
            wait(shared, mail, 2 * s)
            collect_2(shared, mail, 0)
            sums_2 = added(multiply_2(weights_2, shared, mail, 0), biases_2)
            new, kept = finish(ahead, sums, between, sums_2, carried)
            carried = next_carried(new)
            ready()
            send(shared, mail, 2 * s + 1, 1 - buffer, unit, valid_2, new)
            arrive(shared, mail, 2 * s + 1)
            if active_2:
                y[(t * batch + row) * across + unit] = new[0]
                write_state(states, ((t + 1 - reverse) * batch + row) * size + unit, 0, new)
                if s + 1 == steps:
                    final[row * size + unit] = new[0]
            if active:
                write_saved(saved, (t * batch + row) * saved_values * units + unit, units, kept)
                if s + 1 < steps:
                    ahead = read_gates(a, ((t + step) * batch + row) * gates * units + unit, units)
            t += step
            wait(shared, mail, 2 * s + 1)
            collect(shared, mail, 1 - buffer)
        end()

    return kernel


def _stages(spec: Spec, equations: Equations) -> tuple[Any, Any]:
    """Device functions ``middle(a, b, carried) -> operand`` and ``finish(a, b, operand, product, carried) -> new, saved``."""
    forward: Any = cuda.jit(device=True, forceinline=True)(equations.forward)
    if spec.kind.feeds_back_output:

        @cuda.jit(device=True, forceinline=True)
        def hidden(a, b, carried):
            return forward(a, b, carried)[0]

        @cuda.jit(device=True, forceinline=True)
        def output(a, b, operand, product, carried):
            return product, operand

        return hidden, output
    inner: Any = cuda.jit(device=True, forceinline=True)(equations.inner)

    @cuda.jit(device=True, forceinline=True)
    def reset(a, b, carried):
        return (inner(a, b, carried),)

    @cuda.jit(device=True, forceinline=True)
    def finish(a, b, operand, product, carried):
        return forward(a, b + product, carried)  # Numba concatenates tuples

    return reset, finish


def _begin(place: Place | Tiles, shape: Shape, size: int) -> Any:
    """``begin(shared, mail, initial, first_row, batch)``: clear the operand, then store the state in its first buffer."""
    if isinstance(place, Tiles):
        assert shape.cores is not None
        return beginning(place, shape, shape.cores, size)
    operand, padded, rows, threads = place.operand, place.padded, shape.rows, shape.threads
    clear = clearing(place, threads)

    @cuda.jit(device=True, forceinline=True)
    def begin(shared, mail, initial, first_row, batch):
        clear(shared)
        cuda.syncthreads()
        for i in range(int64(cuda.threadIdx.x), rows * size, threads):
            b = i // size
            k = i - b * size
            if first_row + b < batch:
                shared[operand + b * padded + k] = float32(initial[(first_row + b) * size + k])

    return begin


def _next_carried(spec: Spec) -> Any:
    """The part of the new state that the equations read in the next step."""
    if spec.kind.carries is None:

        @cuda.jit(device=True, forceinline=True)
        def nothing(new):
            return ()

        return nothing
    index = spec.kind.states.index(spec.kind.carries)

    @cuda.jit(device=True, forceinline=True)
    def one(new):
        return (new[index],)

    return one


def reading_states(count: int) -> Any:
    """``read(first, second, index)``: one element of each of ``count`` (1 or 2) arrays, as float32."""
    if count == 1:

        @cuda.jit(device=True, forceinline=True)
        def read_one(first, second, index):
            return (float32(first[index]),)

        return read_one

    @cuda.jit(device=True, forceinline=True)
    def read_two(first, second, index):
        return (float32(first[index]), float32(second[index]))

    return read_two


def writing_states(count: int) -> Any:
    """``write(first, second, index, values)``: write one value to each of ``count`` (1 or 2) arrays, rounded to their dtype."""
    if count == 1:

        @cuda.jit(device=True, forceinline=True)
        def write_one(first, second, index, values):
            first[index] = values[0]

        return write_one

    @cuda.jit(device=True, forceinline=True)
    def write_two(first, second, index, values):
        first[index] = values[0]
        second[index] = values[1]

    return write_two


def _zeros(count: int) -> tuple[np.float32, ...]:
    return (np.float32(0),) * count
