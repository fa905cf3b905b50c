"""One layer in one direction: shares of the work, rooms and the tape around the compiled loops."""

from typing import NamedTuple

import numpy as np

from rnnbench.backend import State
from rnnbench.impls.numba_cpu.barrier import Team
from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.compile import kernels_for
from rnnbench.impls.numba_cpu.products import packed_size, products, room_for, rounded_up
from rnnbench.impls.numba_cpu.rooms import Rooms
from rnnbench.impls.numba_cpu.target import current_target
from rnnbench.impls.numba_cpu.weights import LayerWeights
from rnnbench.impls.numba_cpu.workers import Share, Workers
from rnnbench.params import Params
from rnnbench.spec import Spec

_BLOCK_BYTES = 1 << 18
"""Gate pre-activations of one input product: as many time steps as fit, so that they are still in cache when read."""

_BLOCK_ROWS = 192
"""Rows of cotangents, at least, that one product adds to the weights' gradients."""

_ALONE = Team.of(1)
"""Meets nobody, and so counts nothing."""


class Sums(NamedTuple):
    """Gradients of the weights, transposed, (K, N) in rows of whole vectors, and of the biases."""

    ih: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    ho: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    bias_ho: np.ndarray


class Work(NamedTuple):
    """What BPTT writes on the way, a block of steps at a time."""

    da: np.ndarray
    db_outer: np.ndarray
    db_inner: np.ndarray
    doutput: np.ndarray
    dhidden: np.ndarray
    doperand: np.ndarray
    dcarried: np.ndarray
    dx: np.ndarray
    packed: np.ndarray
    room: np.ndarray


class Kept(NamedTuple):
    """What the forward loop writes and BPTT reads of one share; shapes in ``kernels``."""

    recurrent: np.ndarray
    memory: np.ndarray
    saved: np.ndarray
    operands: np.ndarray
    hidden: np.ndarray


class Room(NamedTuple):
    """All that a forward pass over sequences of one shape writes beside its results, for each share.

    ``x``: the share's rows where it has not all of them, else None; ``scratch``: the last arguments of ``kernels.forward``.
    """

    shares: list[Share]
    kept: list[Kept]
    x: list[np.ndarray | None]
    scratch: list[tuple[np.ndarray, ...]]

    @property
    def teamed(self) -> bool:
        """Whether the threads share the units of the same rows."""
        return len(self.shares) > 1 and self.shares[0].rows == self.shares[1].rows


class BackRoom(NamedTuple):
    """The same of BPTT."""

    drecurrent: list[np.ndarray]
    dmemory: list[np.ndarray]
    work: list[Work]
    sums: list[Sums]


class Tape(NamedTuple):
    """``x``: of each share."""

    room: Room
    x: list[np.ndarray]


class Layer:
    """Single-layer functions (``rnnbench.stack.LayerFunctions``) of one Spec."""

    def __init__(self, spec: Spec, workers: Workers) -> None:
        self._spec, self._cell, self._workers = spec, spec.kind, workers
        self._dtype, self._target = spec.numpy_dtype, current_target()
        self._real, self._stored = computed(self._dtype), storage(self._dtype)
        self._kernels = kernels_for(spec.cell, spec.nonlinearity, self._dtype, self._target)
        self._transposed = products(self._dtype, self._target).transposed
        self._rooms = Rooms()
        self._gates, self._outer = len(spec.kind.gates), spec.kind.outer_gates
        self._output = spec.state_size if spec.kind.feeds_back_output else 0

    def pack(self, params: Params) -> LayerWeights:
        return LayerWeights(self._spec, params, self._target)

    def forward(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State]:
        y, final, tape = self._run(weights, x, state, reverse, kept_steps=1)
        self._give_back(x.shape, tape.room, kept_steps=1)
        return y, final

    def record(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State, Tape]:
        return self._run(weights, x, state, reverse, kept_steps=len(x))

    def _run(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, kept_steps: int
    ) -> tuple[np.ndarray, State, Tape]:
        x = _plain(x).view(self._stored)
        steps, batch, input_size = x.shape
        room = self._rooms.take((steps, batch), (kept_steps, input_size))
        if room is None:
            room = self._room(x.shape, kept_steps)
        shares, team = room.shares, Team.of(len(room.shares)) if room.teamed else _ALONE
        y = np.empty((steps, batch, self._spec.state_size), self._dtype)
        stored_y = y.view(self._stored)
        rows = kept_steps + 1
        first, last = (steps % rows, 0) if reverse else (0, steps % rows)
        size, carries_memory = state[0].shape[1], self._cell.carries == "c"
        xs, arguments = [], []
        for share, kept, own_x, scratch in zip(*room, strict=True):
            kept.recurrent[first, :, :size] = state[0][share.rows]
            if carries_memory:
                kept.memory[first] = state[1][share.rows, share.units]
            if own_x is None:
                own_x = x
            else:
                own_x[:] = x[:, share.rows]
            xs.append(own_x)
            places = (share.rows.start, share.units.start, reverse)
            arguments.append((own_x, weights.of_units(share.units), *kept, stored_y, *places, *scratch, team))
        self._workers.run(self._kernels.forward, arguments)
        final = tuple(np.empty(part.shape, self._dtype) for part in state)
        for share, kept in zip(shares, room.kept, strict=True):
            final[0][share.rows] = kept.recurrent[last, :, :size]
            if carries_memory:
                final[1][share.rows, share.units] = kept.memory[last]
        return y, final, Tape(room, xs)

    def backward(
        self, weights: LayerWeights, tape: Tape, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        dy = _plain(dy).view(self._stored)
        (steps, batch, _), input_size = dy.shape, tape.x[0].shape[2]
        room, size, carries_memory = tape.room, self._spec.state_size, self._cell.carries == "c"
        shares, team = room.shares, Team.of(len(room.shares)) if room.teamed else _ALONE
        back = self._rooms.take((steps, batch), ("backward", input_size))
        if back is None:
            back = self._back_room(room, steps, input_size)
        dxs = [np.empty((steps, batch, input_size), self._dtype) for _ in (shares if room.teamed else shares[:1])]
        arguments = []
        for place, (share, own_x, kept) in enumerate(zip(shares, tape.x, room.kept, strict=True)):
            drecurrent, dmemory = back.drecurrent[place], back.dmemory[place]
            work, sums = back.work[place], back.sums[place]
            drecurrent[0] = 0
            drecurrent[0, 0, :, :size] = dstate[0][share.rows]
            if carries_memory:
                dmemory[:] = dstate[1][share.rows, share.units]
            for array in sums:
                array[...] = 0
            own = place if room.teamed else 0
            dx, places = dxs[own].view(self._stored), (share.rows.start, share.units.start, reverse)
            of_units = weights.of_units(share.units)
            arguments.append((own_x, of_units, *kept, dy, dx, *places, drecurrent, dmemory, work, sums, own, team))
        self._workers.run(self._kernels.backward, arguments)
        initial = tuple(np.empty(part.shape, self._dtype) for part in dstate)
        for share, drecurrent, dmemory in zip(shares, back.drecurrent, back.dmemory, strict=True):
            initial[0][share.rows] = drecurrent[steps % 2, :, :, :size].sum(0)
            if carries_memory:
                initial[1][share.rows, share.units] = dmemory
        for dx in dxs[1:]:
            dxs[0] += dx
        grads = self._gradients(shares, back.sums, input_size)
        self._rooms.give_back((steps, batch), ("backward", input_size), back)
        self._give_back((steps, batch, input_size), room, kept_steps=steps)
        return grads, dxs[0], initial

    def _give_back(self, shape: tuple[int, ...], room: Room, kept_steps: int) -> None:
        """Nothing refers to the room of a (T, B, I) any longer."""
        steps, batch, input_size = shape
        self._rooms.give_back((steps, batch), (kept_steps, input_size), room)

    def _gradients(self, shares: list[Share], found: list[Sums], input_size: int) -> Params:
        """The parameters' gradients by name, without suffix; shares of rows are added up, shares of units put together."""
        spec, gates, outer = self._spec, self._gates, self._outer
        hidden, state = spec.hidden_size, spec.state_size
        by_units = [f for s, f in zip(shares, found, strict=True) if s.units != slice(0, hidden)]
        if not by_units:
            first, *others = found
            for other in others:
                for total, term in zip(first, other, strict=True):
                    total += term
            shares, found = shares[:1], [first]
        weight_ih, weight_hh = np.empty((gates, hidden, input_size), self._dtype), np.empty((gates, hidden, state), self._dtype)
        bias_ih, bias_hh = np.empty((gates, hidden), self._dtype), np.empty((gates, hidden), self._dtype)
        stored_ih, stored_hh = weight_ih.view(self._stored), weight_hh.view(self._stored)
        separate = self._cell.inner_gates or not self._cell.reads_sums
        for share, sums in zip(shares, found, strict=True):
            units, count = share.units, share.units.stop - share.units.start
            for gate in range(gates):
                own, inner = slice(gate * count, (gate + 1) * count), slice((gate - outer) * count, (gate - outer + 1) * count)
                bias_ih[gate, units] = sums.bias_ih[own]
                self._transposed(sums.ih[:, own], stored_ih[gate, units])
                if gate < outer:
                    self._transposed(sums.outer[:, own], stored_hh[gate, units])
                    bias_hh[gate, units] = (sums.bias_outer if separate else sums.bias_ih)[own]
                else:
                    self._transposed(sums.inner[:, inner], stored_hh[gate, units])
                    bias_hh[gate, units] = sums.bias_inner[inner]
        grads = {
            "weight_ih": weight_ih.reshape(gates * hidden, input_size),
            "weight_hh": weight_hh.reshape(gates * hidden, state),
        }
        if spec.bias:
            grads |= {"bias_ih": bias_ih.reshape(gates * hidden), "bias_hh": bias_hh.reshape(gates * hidden)}
        if self._output:
            (sums,) = found
            grads["weight_ho"] = np.array(sums.ho[:, : self._output].T, self._dtype, order="C")  # never a view of the room
            if spec.bias:
                grads["bias_ho"] = sums.bias_ho[: self._output].astype(self._dtype)
        return grads

    def _room(self, shape: tuple[int, ...], kept_steps: int) -> Room:
        """Room for (T, B, I); shares of units have the recurrent state in common."""
        steps, batch, input_size = shape
        cell, rows, state_size = self._cell, kept_steps + 1, self._spec.state_size
        room = Room(self._workers.shares(self._spec, steps, batch), [], [], [])
        for share in room.shares:
            count, units = share.rows.stop - share.rows.start, share.units.stop - share.units.start
            together = room.kept[0].recurrent if room.teamed and room.kept else None
            room.kept.append(
                Kept(
                    self._empty(rows, count, self._up(state_size)) if together is None else together,
                    self._empty(rows if cell.carries == "c" else 1, count, units),
                    self._empty(kept_steps, count, cell.saved * units),
                    self._empty(kept_steps if cell.inner_gates else 1, count, units),
                    self._empty(kept_steps if cell.feeds_back_output else 1, count, units),
                )
            )
            room.x.append(None if count == batch else np.empty((steps, count, input_size), self._stored))
            gates, outer = self._up(self._gates * units), self._up(self._outer * units)
            block = count * max(1, min(steps, _BLOCK_BYTES // (count * gates * self._real.itemsize)))
            inner = self._up((self._gates - self._outer) * units)
            operands = room_for(self._dtype, (block, input_size), (count, max(state_size, self._spec.hidden_size)))
            products = (self._empty(block, gates), self._empty(count, outer), self._empty(count, inner))
            room.scratch.append((*products, np.empty(operands, self._stored)))
        return room

    def _back_room(self, room: Room, steps: int, input_size: int) -> BackRoom:
        width, back = self._up(self._spec.state_size), BackRoom([], [], [], [])
        for share in room.shares:
            rows, units = share.rows.stop - share.rows.start, share.units.stop - share.units.start
            if room.teamed and back.drecurrent:
                back.drecurrent.append(back.drecurrent[0])
            else:
                back.drecurrent.append(self._empty(2, len(room.shares) if room.teamed else 1, rows, width))
            back.dmemory.append(self._empty(rows, units))
            back.work.append(self._work(steps, rows, input_size, units))
            back.sums.append(self._sums(input_size, units))
        return back

    def _work(self, steps: int, batch: int, input_size: int, units: int) -> Work:
        cell, block = self._cell, min(steps, -(-_BLOCK_ROWS // batch))
        rows, most = block * batch, max(self._gates * units, self._output)
        operands = [(rows, most), *((size, rows) for size in (input_size, self._spec.state_size, units))]
        da = self._empty(block, batch, self._gates * units)
        return Work(
            da,
            self._empty(block, batch, self._outer * units) if cell.inner_gates or not cell.reads_sums else da,
            self._empty(block if cell.inner_gates else 1, batch, (self._gates - self._outer) * units),
            self._empty(block if cell.feeds_back_output else 1, batch, self._spec.state_size),
            self._empty(batch, self._up(units)),
            self._empty(batch, self._up(units)),
            self._empty(batch, units),
            self._empty(rows, self._up(input_size)),
            np.empty(packed_size(self._dtype, self._target, rows, most), self._stored),
            np.empty(room_for(self._dtype, *operands), self._stored),
        )

    def _sums(self, input_size: int, units: int) -> Sums:
        gates, outer, output = self._gates * units, self._outer * units, self._output
        shapes = (
            (input_size, gates),
            (self._spec.state_size, outer),
            (units if gates > outer else 0, gates - outer),
            (units if output else 0, output),
            (gates,),
            (outer,),
            (gates - outer,),
            (output,),
        )
        return Sums(*(self._empty(*shape[:-1], self._up(shape[-1])) for shape in shapes))

    def _empty(self, *shape: int) -> np.ndarray:
        return np.empty(shape, self._real)

    def _up(self, size: int) -> int:
        return rounded_up(size, self._target.lanes(self._real))


def _plain(array: np.ndarray) -> np.ndarray:
    """What the compiled code takes: Numba would compile all of it again for read-only arrays, which are copied instead."""
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")
