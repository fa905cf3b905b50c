"""One layer in one direction: shares of the work, buffers and the tape around the compiled loops."""

from typing import NamedTuple

import numpy as np

from rnnbench.backend import State
from rnnbench.impls.numba_cpu.barrier import Team
from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.buffers import Buffers
from rnnbench.impls.numba_cpu.compile import kernels_for
from rnnbench.impls.numba_cpu.products import packed_size, products, room_for, rounded_up
from rnnbench.impls.numba_cpu.target import current_target
from rnnbench.impls.numba_cpu.weights import LayerWeights
from rnnbench.impls.numba_cpu.workers import Share, Workers
from rnnbench.params import Params
from rnnbench.spec import Spec

_BLOCK_BYTES = 1 << 18
"""Gate pre-activations of one input product: as many time steps as fit, so that they are still in cache when read."""

_BLOCK_ROWS = 192
"""Rows of cotangents, at least, that one product adds to the weights' gradients."""

_PLAIN = ("C", "W")
"""What the compiled code takes; Numba would compile all of it again for read-only arrays, which are copied instead."""


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


class Part(NamedTuple):
    """What BPTT reads of one share; shapes in ``kernels``."""

    x: np.ndarray
    recurrent: np.ndarray
    memory: np.ndarray
    saved: np.ndarray
    operands: np.ndarray
    hidden: np.ndarray


class Tape(NamedTuple):
    shares: list[Share]
    parts: list[Part]


class Layer:
    """Single-layer functions (``rnnbench.stack.LayerFunctions``) of one Spec."""

    def __init__(self, spec: Spec, workers: Workers) -> None:
        self._spec, self._cell, self._workers = spec, spec.kind, workers
        self._dtype, self._target = spec.numpy_dtype, current_target()
        self._real, self._stored = computed(self._dtype), storage(self._dtype)
        self._kernels = kernels_for(spec.cell, spec.nonlinearity, self._dtype, self._target)
        self._transposed = products(self._dtype, self._target).transposed
        self._buffers = Buffers()
        self._gates, self._outer = len(spec.kind.gates), spec.kind.outer_gates
        self._output = spec.state_size if spec.kind.feeds_back_output else 0

    def pack(self, params: Params) -> LayerWeights:
        return LayerWeights(self._spec, params, self._target)

    def forward(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State]:
        y, final, tape = self._run(weights, x, state, reverse, kept_steps=1)
        self._give_back(tape)
        return y, final

    def record(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State, Tape]:
        return self._run(weights, x, state, reverse, kept_steps=len(x))

    def _run(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, kept_steps: int
    ) -> tuple[np.ndarray, State, Tape]:
        x = np.require(x, requirements=_PLAIN).view(self._stored)
        steps, batch, _ = x.shape
        shares = self._workers.shares(self._spec, batch)
        team = Team.of(len(shares) if shares[0].rows.stop == batch else 1)
        y = np.empty((steps, batch, self._spec.state_size), self._dtype)
        final = tuple(np.empty_like(part, order="C") for part in state)
        kept = kept_steps + 1
        first, last = (steps % kept, 0) if reverse else (0, steps % kept)
        parts = self._parts(shares, x, kept_steps)
        for share, part in zip(shares, parts, strict=True):
            part.recurrent[first, :, : state[0].shape[1]] = state[0][share.rows]
            if self._cell.carries == "c":
                part.memory[first] = state[1][share.rows, share.units]

        scratch = [self._preactivations(x, part, share) for share, part in zip(shares, parts, strict=True)]
        arguments = [
            (
                part.x, weights.of_units(share.units), *part[1:], y.view(self._stored), share.rows.start, share.units.start,
                reverse, *buffers, team,
            )
            for share, part, buffers in zip(shares, parts, scratch, strict=True)
        ]  # fmt: skip
        self._workers.run(self._kernels.forward, arguments)
        for buffers in scratch:
            self._buffers.give_back(x.shape[:2], buffers)
        for share, part in zip(shares, parts, strict=True):
            final[0][share.rows] = part.recurrent[last, :, : state[0].shape[1]]
            if self._cell.carries == "c":
                final[1][share.rows, share.units] = part.memory[last]
        return y, final, Tape(shares, parts)

    def backward(
        self, weights: LayerWeights, tape: Tape, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        dy = np.require(dy, requirements=_PLAIN).view(self._stored)
        steps, batch, _ = dy.shape
        shares, parts = tape
        teamed = len(shares) > 1 and shares[0].rows.stop == batch
        size, width = self._spec.state_size, self._up(self._spec.state_size)
        input_size = parts[0].x.shape[2]
        dxs = [np.empty((steps, batch, input_size), self._dtype) for _ in (shares if teamed else shares[:1])]
        initial = tuple(np.empty_like(part, order="C") for part in dstate)
        team = Team.of(len(shares) if teamed else 1)
        together = self._take(dy, 2, len(shares), batch, width) if teamed else None

        def drecurrent_of(share: Share) -> np.ndarray:
            rows = share.rows.stop - share.rows.start
            own = together if together is not None else self._take(dy, 2, 1, rows, width)
            own[0] = 0
            own[0, 0, :, :size] = dstate[0][share.rows]
            return own

        drecurrents = [drecurrent_of(share) for share in shares]

        dmemories, found, works, arguments = [], [], [], []
        for place, (share, part) in enumerate(zip(shares, parts, strict=True)):
            units = share.units.stop - share.units.start
            dmemories.append(self._take(dy, part.x.shape[1], units))
            if self._cell.carries == "c":
                dmemories[-1][:] = dstate[1][share.rows, share.units]
            found.append(self._zero_sums(dy, input_size, units))
            works.append(self._work(dy, part, units))
            own = place if teamed else 0
            arguments.append(
                (
                    part.x, weights.of_units(share.units), *part[1:], dy, dxs[own].view(self._stored), share.rows.start,
                    share.units.start, reverse, drecurrents[place], dmemories[-1], works[-1], found[-1], own, team,
                )
            )  # fmt: skip
        self._workers.run(self._kernels.backward, arguments)
        for share, dmemory, work in zip(shares, dmemories, works, strict=True):
            if self._cell.carries == "c":
                initial[1][share.rows, share.units] = dmemory
            separate = [work.db_outer] if work.db_outer is not work.da else []
            self._buffers.give_back(dy.shape[:2], [dmemory, work.da, *separate, *work[2:]])
        for share, drecurrent in zip(shares, drecurrents, strict=True):
            initial[0][share.rows] = drecurrent[steps % 2, :, :, :size].sum(0)
        self._buffers.give_back(dy.shape[:2], drecurrents[:1] if teamed else drecurrents)
        self._give_back(tape)
        for dx in dxs[1:]:
            dxs[0] += dx
        grads = self._gradients(shares, found, input_size)
        for sums in found:
            self._buffers.give_back(dy.shape[:2], sums)
        return grads, dxs[0], initial

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
            grads["weight_ho"] = np.array(sums.ho[:, : self._output].T, self._dtype, order="C")  # never a view of the buffer
            if spec.bias:
                grads["bias_ho"] = sums.bias_ho[: self._output].astype(self._dtype)
        return grads

    def _parts(self, shares: list[Share], x: np.ndarray, kept_steps: int) -> list[Part]:
        """Room for what each share keeps; shares of units have the recurrent state in common."""
        cell, rows, common = self._cell, kept_steps + 1, None
        parts = []
        for share in shares:
            count, units = share.rows.stop - share.rows.start, share.units.stop - share.units.start
            whole = count == x.shape[1]
            recurrent = common if common is not None and whole else self._take(x, rows, count, self._up(self._spec.state_size))
            common = recurrent
            part_of_x = x
            if not whole:
                part_of_x = self._buffers.take(x.shape[:2], (x.shape[0], count, x.shape[2]), x.dtype)
                part_of_x[:] = x[:, share.rows]
            parts.append(
                Part(
                    part_of_x,
                    recurrent,
                    self._take(x, rows if cell.carries == "c" else 1, count, units),
                    self._take(x, kept_steps, count, cell.saved * units),
                    self._take(x, kept_steps if cell.inner_gates else 1, count, units),
                    self._take(x, kept_steps if cell.feeds_back_output else 1, count, units),
                )
            )
        return parts

    def _preactivations(self, x: np.ndarray, part: Part, share: Share) -> list[np.ndarray]:
        steps, batch = part.x.shape[:2]
        gates, outer = (count * (share.units.stop - share.units.start) for count in (self._gates, self._outer))
        width = self._up(gates)
        block = max(1, min(steps, _BLOCK_BYTES // (batch * width * self._real.itemsize)))
        shapes = ((block * batch, width), (batch, self._up(outer)), (batch, self._up(gates - outer)))
        widest = max(self._spec.state_size, self._spec.hidden_size)
        room = room_for(self._dtype, (block * batch, part.x.shape[2]), (batch, widest))
        return [*(self._take(x, *shape) for shape in shapes), self._take_stored(x, room)]

    def _work(self, dy: np.ndarray, part: Part, units: int) -> Work:
        cell, (steps, batch, input_size) = self._cell, part.x.shape
        block = min(steps, -(-_BLOCK_ROWS // batch))
        rows, most = block * batch, max(self._gates * units, self._output)
        operands = [(rows, most), *((size, rows) for size in (input_size, self._spec.state_size, units))]
        da = self._take(dy, block, batch, self._gates * units)
        return Work(
            da,
            self._take(dy, block, batch, self._outer * units) if cell.inner_gates or not cell.reads_sums else da,
            self._take(dy, block if cell.inner_gates else 1, batch, (self._gates - self._outer) * units),
            self._take(dy, block if cell.feeds_back_output else 1, batch, self._spec.state_size),
            self._take(dy, batch, self._up(units)),
            self._take(dy, batch, self._up(units)),
            self._take(dy, batch, units),
            self._take(dy, rows, self._up(input_size)),
            self._take_stored(dy, packed_size(self._dtype, self._target, rows, most)),
            self._take_stored(dy, room_for(self._dtype, *operands)),
        )

    def _zero_sums(self, dy: np.ndarray, input_size: int, units: int) -> Sums:
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
        sums = Sums(*(self._take(dy, *shape[:-1], self._up(shape[-1])) for shape in shapes))
        for array in sums:
            array[...] = 0
        return sums

    def _give_back(self, tape: Tape) -> None:
        """Take back the buffers of a tape that nothing refers to any longer."""
        (steps, rows, _), shares = tape.parts[0].x.shape, tape.shares
        batch = shares[-1].rows.stop
        arrays = [array for part in tape.parts for array in part[2:]]
        arrays += [part.recurrent for part in (tape.parts if rows < batch else tape.parts[:1])]
        arrays += [part.x for part in tape.parts] if rows < batch else []
        self._buffers.give_back((steps, batch), arrays)

    def _take(self, sequence: np.ndarray, *shape: int) -> np.ndarray:
        return self._buffers.take(sequence.shape[:2], shape, self._real)

    def _take_stored(self, sequence: np.ndarray, size: int) -> np.ndarray:
        return self._buffers.take(sequence.shape[:2], (size,), self._stored)

    def _up(self, size: int) -> int:
        return rounded_up(size, self._target.lanes(self._real))
