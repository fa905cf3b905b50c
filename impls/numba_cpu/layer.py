"""One layer in one direction: divides the work, and manages buffers and the tape around the compiled loops."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.buffers import BufferPool
from rnnbench.impls.numba_cpu.compile import kernels_for
from rnnbench.impls.numba_cpu.products import buffer_size, packed_size, rounded_up
from rnnbench.impls.numba_cpu.rows import ShareRows, joined, new_output, rows_of_lengths, rows_of_one_length, share_of
from rnnbench.impls.numba_cpu.states import states_of_all_steps
from rnnbench.impls.numba_cpu.weights import LayerWeights
from rnnbench.impls.numba_cpu.workers import Share, Workers
from rnnbench.jit.barrier import Team
from rnnbench.jit.target import current_target
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec

_BLOCK_BYTES = 1 << 18
"""Maximum size in bytes of the gate pre-activations of one input product, so that they stay in cache until they are read."""

_BLOCK_ROWS = 192
"""Minimum number of rows of cotangents that one product adds to the gradients of the weights."""

LINE = 64
"""Size of a cache line in bytes."""

_ALONE = Team.of(1)
"""Team of a single thread, which waits for nobody."""


class Sums(NamedTuple):
    """Gradients of weights (gates, all units, columns padded to whole vectors), and of the biases and peephole weights of one
    share's units."""

    ih: np.ndarray
    hh: np.ndarray
    ho: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    bias_ho: np.ndarray
    peepholes: np.ndarray


class Work(NamedTuple):
    """Intermediate arrays of BPTT, for one block of steps."""

    da: np.ndarray
    db_outer: np.ndarray
    db_inner: np.ndarray
    doutput: np.ndarray
    dhidden: np.ndarray
    doperand: np.ndarray
    dcarried: np.ndarray
    dpeepholes: np.ndarray
    dx: np.ndarray
    rows: np.ndarray
    packed: np.ndarray
    nothing: np.ndarray
    room: np.ndarray


class Kept(NamedTuple):
    """What the forward loop of one share writes and BPTT reads; ``kernels`` gives the shapes."""

    recurrent: np.ndarray
    memory: np.ndarray
    saved: np.ndarray
    operands: np.ndarray
    hidden: np.ndarray


class ForwardBuffers(NamedTuple):
    """Arrays of a forward pass over sequences of one shape, for each share.

    ``x``: a copy of the share's rows, or None where it has all rows, or where sequences have lengths.  ``scratch``: the last
    arguments of ``kernels.forward``.  ``rows``: the rows of sequences of one length, forward and in reverse; none for lengths.
    """

    shares: list[Share]
    kept: list[Kept]
    x: list[np.ndarray | None]
    scratch: list[tuple[np.ndarray, ...]]
    rows: tuple[list[ShareRows], ...]

    @property
    def teamed(self) -> bool:
        """Whether the threads divide the units of the same rows."""
        return len(self.shares) > 1 and self.shares[0].rows == self.shares[1].rows


class StepBuffers(NamedTuple):
    """Arrays of single steps of all rows and units on one thread: x and y (B, size), and those of ``ForwardBuffers``."""

    x: np.ndarray
    y: np.ndarray
    rows: ShareRows
    kept: Kept
    scratch: tuple[np.ndarray, ...]


class BackwardBuffers(NamedTuple):
    """Arrays of BPTT, for each share; ``weights`` are the first arrays of its ``Sums``, or None to sum into the results."""

    drecurrent: list[np.ndarray]
    dmemory: list[np.ndarray]
    work: list[Work]
    weights: list[list[np.ndarray | None]]
    vectors: list[list[np.ndarray]]


class Tape(NamedTuple):
    """Buffers of the forward pass with their key in the pool, the rows of each share, and their x."""

    buffers: ForwardBuffers
    key: tuple[tuple[int, int], Hashable]
    rows: list[ShareRows]
    x: list[np.ndarray]


class Layer:
    """Single-layer functions (``rnnbench.networks.stacked.LayerFunctions``) of one Spec."""

    takes_lengths = True

    def __init__(self, spec: Spec, workers: Workers) -> None:
        self._spec, self._cell, self._workers = spec, spec.kind, workers
        self._dtype, self._target = spec.numpy_dtype, current_target()
        self._real, self._stored = computed(self._dtype), storage(self._dtype)
        self._kernels = kernels_for(spec.kind, spec.nonlinearity, self._dtype, self._target)
        self._pool = BufferPool()
        self._gates, self._outer = len(spec.kind.gates), spec.kind.outer_gates
        self._output = spec.state_size if spec.kind.feeds_back_output else 0

    def pack(self, params: Params) -> LayerWeights:
        weights = LayerWeights(self._spec, params, self._target)
        if self._workers.threads == 1:
            weights.of_units(slice(0, self._spec.hidden_size))  # the only share; with more threads shares depend on the call
        return weights

    def forward(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State]:
        y, final, tape = self._run(weights, x, state, reverse, lengths, keeps_steps=False)
        self._pool.give_back(*tape.key, tape.buffers)
        return y, final

    def record(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State, Tape]:
        return self._run(weights, x, state, reverse, lengths, keeps_steps=True)

    @property
    def forward_kernel(self) -> Callable[..., None]:
        return self._kernels.forward

    def step_buffers(self, x: np.ndarray, y: np.ndarray) -> StepBuffers:
        """New arrays for steps from x to y."""
        everything, (_, batch, input_size) = [Share(slice(0, x.shape[1]), slice(0, self._spec.hidden_size))], x.shape
        buffers = self._forward_buffers((1, batch, input_size), 1, everything, of_one_length=True)
        rows, flat_x, flat_y = buffers.rows[False][0], x[0].view(self._stored), y[0].view(self._stored)
        return StepBuffers(flat_x, flat_y, rows, buffers.kept[0], buffers.scratch[0])

    def step_arguments(self, weights: LayerWeights, buffers: StepBuffers, reverse: bool) -> tuple[Any, ...]:
        """The arguments of ``forward_kernel`` for one step; in reverse it goes from row 1 of the state to row 0."""
        packed_weights = weights.of_units(slice(0, self._spec.hidden_size))
        places = (buffers.rows.starts, buffers.rows.places, 0, reverse)
        return (buffers.x, packed_weights, *buffers.kept, buffers.y, *places, *buffers.scratch, _ALONE)

    def _run(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None, keeps_steps: bool
    ) -> tuple[np.ndarray, State, Tape]:
        x = plain(x).view(self._stored)
        batch, input_size = x.shape[1:]
        steps = len(x) if lengths is None else max(1, int(lengths.max()))
        kept_steps = steps if keeps_steps else 1
        key = (steps, batch), (kept_steps, input_size, lengths is None)
        buffers = self._pool.take(*key)
        if buffers is None:
            shares = self._workers.shares(self._spec, steps, batch)
            buffers = self._forward_buffers((steps, batch, input_size), kept_steps, shares, of_one_length=lengths is None)
        shares, teamed = buffers.shares, buffers.teamed
        team = Team.of(len(shares)) if teamed else _ALONE
        of_lengths = None if lengths is None else rows_of_lengths(shares, lengths, kept_steps + 1, reverse)
        share_rows = of_lengths or buffers.rows[reverse]
        own_rows = share_rows[:1] if teamed else share_rows
        y, y_parts = new_output((len(x), batch, self._spec.state_size), self._dtype, own_rows)
        size, carries_memory = state[0].shape[1], self._cell.carries == "c"
        xs, arguments = [], []
        parts = zip(shares, share_rows, buffers.kept, buffers.x, buffers.scratch, strict=True)
        for place, (share, rows, kept, own_x, scratch) in enumerate(parts):
            kept.recurrent[(*rows.initial, slice(size))] = state[0][rows.batch]
            if carries_memory:
                kept.memory[rows.initial] = state[1][rows.batch, share.units]
            xs.append(share_of(x, rows, own_x))
            places = (rows.starts, rows.places, share.units.start, reverse)
            own_y = y_parts[0 if teamed else place].view(self._stored)
            arguments.append((xs[-1], weights.of_units(share.units), *kept, own_y, *places, *scratch, team))
        self._workers.run(self._kernels.forward, arguments)
        final = tuple(np.empty(part.shape, self._dtype) for part in state)
        for share, rows, kept in zip(shares, share_rows, buffers.kept, strict=True):
            final[0][rows.batch] = kept.recurrent[(*rows.final, slice(size))]
            if carries_memory:
                final[1][rows.batch, share.units] = kept.memory[rows.final]
        return joined(y, y_parts, own_rows), final, Tape(buffers, key, share_rows, xs)

    def backward(
        self, weights: LayerWeights, tape: Tape, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        dy = plain(dy).view(self._stored)
        input_size, carries_memory, size = tape.x[0].shape[1], self._cell.carries == "c", self._spec.state_size
        buffers, (sequence, kind) = tape.buffers, tape.key
        shares, teamed = buffers.shares, buffers.teamed
        team = Team.of(len(shares)) if teamed else _ALONE
        back_key = sequence, ("backward", kind)
        back = self._pool.take(*back_key)
        if back is None:
            back = self._backward_buffers(buffers, sequence[0], input_size)
        shape = (*dy.shape[:2], input_size)
        of_members = [tape.rows[:1]] * len(shares) if teamed else [tape.rows]
        dxs = [new_output(shape, self._dtype, rows) for rows in of_members]
        results = [np.empty(shape, self._dtype) for shape in self._weight_shapes(input_size)]
        arguments, found = [], []
        for place, (share, rows, own_x, kept) in enumerate(zip(shares, tape.rows, tape.x, buffers.kept, strict=True)):
            drecurrent, dmemory, work = back.drecurrent[place], back.dmemory[place], back.work[place]
            weights_sums = (result if own is None else own for result, own in zip(results, back.weights[place], strict=True))
            sums = Sums(*weights_sums, *back.vectors[place])
            found.append(sums)
            slot, of_slot = rows.dfinal
            drecurrent[slot if rows.index is None else ...] = 0
            drecurrent[slot, 0, of_slot, :size] = dstate[0][rows.batch]
            if carries_memory:
                dmemory[:] = dstate[1][rows.batch, share.units]
            for vector in back.vectors[place]:
                vector[...] = 0
            own, part = (place, 0) if teamed else (0, place)
            dx, places = dxs[own][1][part].view(self._stored), (rows.starts, rows.places, share.units.start, reverse)
            of_units, own_dy = weights.back_of_units(share.units), share_of(dy, rows, None)
            arguments.append((own_x, of_units, *kept, own_dy, dx, *places, drecurrent, dmemory, work, sums, own, team))
        self._workers.run(self._kernels.backward, arguments)
        initial = tuple(np.empty(part.shape, self._dtype) for part in dstate)
        for share, rows, drecurrent, dmemory in zip(shares, tape.rows, back.drecurrent, back.dmemory, strict=True):
            slot, of_slot = rows.dinitial
            terms = [drecurrent[slot, member, of_slot, :size] for member in range(drecurrent.shape[1])]
            initial[0][rows.batch] = functools.reduce(np.add, terms)
            if carries_memory:
                initial[1][rows.batch, share.units] = dmemory
        dx, *others = (joined(*output, rows) for output, rows in zip(dxs, of_members, strict=True))
        for other in others:
            dx += other
        grads = self._gradients(shares, found, results)
        self._pool.give_back(*back_key, back)
        self._pool.give_back(*tape.key, buffers)
        return grads, dx, initial

    def states(self, tape: Tape, steps: int, reverse: bool) -> State:
        (_, batch), of_shares = tape.key[0], zip(tape.buffers.shares, tape.rows, tape.buffers.kept, strict=True)
        return states_of_all_steps(self._spec, steps, batch, list(of_shares), reverse)

    def _gradients(self, shares: list[Share], found: list[Sums], results: list[np.ndarray]) -> Params:
        """Gradients of the parameters by name, without suffix: sums over shares of rows, joined over shares of units."""
        spec, gates, outer = self._spec, self._gates, self._outer
        if all(share.units == slice(0, spec.hidden_size) for share in shares):
            first, *others = found
            for other in others:
                for total, term in zip(first, other, strict=True):
                    self._workers.add(total, term)
            shares, found = shares[:1], [first]
        for result, total in zip(results, found[0], strict=False):  # the vectors follow
            if result is not total:
                rows = result.shape[0] * result.shape[1]
                stored = result.view(self._stored).reshape(rows, result.shape[2])
                self._kernels.copied(total.reshape(rows, total.shape[2]), stored)
        weight_ih, weight_hh, weight_ho = (result.reshape(-1, result.shape[2]) for result in results)
        grads: Params = {"weight_ih": weight_ih, "weight_hh": weight_hh}
        if spec.bias:
            bias_ih, bias_hh = (np.empty((gates, spec.hidden_size), self._dtype) for _ in range(2))
            separate = self._cell.inner_gates or not self._cell.reads_sums
            for share, sums in zip(shares, found, strict=True):
                count = share.units.stop - share.units.start
                of_outer, whole, part = sums.bias_outer if separate else sums.bias_ih, gates * count, outer * count
                bias_ih[:, share.units] = sums.bias_ih[:whole].reshape(gates, count)
                bias_hh[:outer, share.units] = of_outer[:part].reshape(outer, count)
                bias_hh[outer:, share.units] = sums.bias_inner[: whole - part].reshape(gates - outer, count)
            grads |= {"bias_ih": bias_ih.ravel(), "bias_hh": bias_hh.ravel()}
        if count := len(self._cell.peepholes):
            weight_ch = np.empty((count, spec.hidden_size), self._dtype)
            for share, sums in zip(shares, found, strict=True):
                weight_ch[:, share.units] = sums.peepholes[: count * (share.units.stop - share.units.start)].reshape(count, -1)
            grads["weight_ch"] = weight_ch.ravel()
        if self._output:
            grads[f"weight_{self._cell.output}"] = weight_ho
            if spec.bias and spec.projection_size is None:
                grads["bias_ho"] = found[0].bias_ho[: self._output].astype(self._dtype)
        return grads

    def _weight_shapes(self, input_size: int) -> list[tuple[int, int, int]]:
        """Shapes (gates, units, columns) of the gradients of ih, hh and ho."""
        hidden = self._spec.hidden_size
        return [(self._gates, hidden, input_size), (self._gates, hidden, self._spec.state_size), (1, self._output, hidden)]

    def _forward_buffers(
        self, shape: tuple[int, int, int], kept_steps: int, shares: list[Share], of_one_length: bool
    ) -> ForwardBuffers:
        """New buffers for (T, B, I); shares of units have one recurrent state in common."""
        steps, batch, input_size = shape
        cell, rows, state_size, both = self._cell, kept_steps + 1, self._spec.state_size, ()
        if of_one_length:
            both = tuple(rows_of_one_length(shares, steps, batch, rows, reverse) for reverse in (False, True))
        buffers = ForwardBuffers(shares, [], [], [], both)
        for share in buffers.shares:
            count, units = share.rows.stop - share.rows.start, share.units.stop - share.units.start
            together = buffers.kept[0].recurrent if buffers.teamed and buffers.kept else None
            buffers.kept.append(
                Kept(
                    self._empty(rows, count, self._up(state_size)) if together is None else together,
                    self._empty(rows if cell.carries == "c" else 1, count, units),
                    self._empty(kept_steps, count, cell.saved * units),
                    self._empty(kept_steps if cell.inner_gates else 1, count, units),
                    self._empty(kept_steps if cell.feeds_back_output else 1, count, units),
                )
            )
            copied = of_one_length and count < batch
            buffers.x.append(np.empty((steps, count, input_size), self._stored) if copied else None)
            gates, outer = self._up(self._gates * units), self._up(self._outer * units)
            block = count * max(1, min(steps, _BLOCK_BYTES // (count * gates * self._real.itemsize)))
            inner = self._up((self._gates - self._outer) * units)
            operands = buffer_size(self._dtype, (block, input_size), (count, max(state_size, self._spec.hidden_size)))
            products = (self._empty(block, gates), self._empty(count, outer), self._empty(count, inner))
            buffers.scratch.append((*products, np.empty(operands, self._stored)))
        return buffers

    def _backward_buffers(self, buffers: ForwardBuffers, steps: int, input_size: int) -> BackwardBuffers:
        width, back = self._up(self._spec.state_size), BackwardBuffers([], [], [], [], [])
        for place, share in enumerate(buffers.shares):
            rows, units = share.rows.stop - share.rows.start, share.units.stop - share.units.start
            if buffers.teamed and back.drecurrent:
                back.drecurrent.append(back.drecurrent[0])
            else:
                back.drecurrent.append(self._empty(2, len(buffers.shares) if buffers.teamed else 1, rows, width))
            back.dmemory.append(self._empty(rows, units))
            back.work.append(self._work(steps, rows, input_size, units, of_one_length=bool(buffers.rows)))
            if buffers.teamed and back.weights:
                back.weights.append(back.weights[0])
            else:
                back.weights.append([self._weight_sums(shape, place == 0) for shape in self._weight_shapes(input_size)])
            biases = (self._gates * units, self._outer * units, (self._gates - self._outer) * units, self._output)
            vectors = (*biases, len(self._cell.peepholes) * units)
            back.vectors.append([self._empty(self._up(size)) for size in vectors])
        return back

    def _weight_sums(self, shape: tuple[int, int, int], first: bool) -> np.ndarray | None:
        """An array for the sums, or None where the first share (or a whole team) can write into the results."""
        columns = self._up(shape[2])
        if first and columns == shape[2] and self._stored == self._real:
            return None
        return self._empty(*shape[:2], columns)

    def _work(self, steps: int, batch: int, input_size: int, units: int, of_one_length: bool) -> Work:
        cell, block = self._cell, min(steps, -(-_BLOCK_ROWS // batch))
        rows, state_size = block * batch, self._spec.state_size
        columns = self._up(max(input_size, state_size, units))
        operands = ((rows, max(self._gates * units, state_size)), (max(units, state_size), rows))
        da = self._cotangents(rows, self._gates * units)
        return Work(
            da,
            self._cotangents(rows, self._outer * units) if cell.inner_gates or not cell.reads_sums else da,
            self._cotangents(rows if cell.inner_gates else 1, (self._gates - self._outer) * units),
            self._cotangents(rows if cell.feeds_back_output else 1, state_size),
            self._empty(batch, self._up(units)),
            self._empty(batch, self._up(units)),
            self._empty(batch, units),
            self._cotangents(rows if cell.peepholes else 1, len(cell.peepholes) * units),
            self._empty(rows, self._up(input_size)),
            self._empty(1 if of_one_length else rows, self._up(max(state_size, units))),
            np.empty(packed_size(self._dtype, self._target, rows, columns), self._stored),
            np.zeros(columns, self._real),
            np.empty(buffer_size(self._dtype, *operands), self._stored),
        )

    def _cotangents(self, rows: int, columns: int) -> np.ndarray:
        """An array whose rows span an odd number of cache lines, so that their starts do not map to the same cache sets."""
        line = LINE // self._real.itemsize
        return self._empty(rows, (-(-columns // line) | 1) * line)

    def _empty(self, *shape: int) -> np.ndarray:
        return np.empty(shape, self._real)

    def _up(self, size: int) -> int:
        return rounded_up(size, self._target.lanes(self._real))


def plain(array: np.ndarray) -> np.ndarray:
    """A contiguous, writeable array: read-only arrays are copied, because Numba would recompile everything for them."""
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")
