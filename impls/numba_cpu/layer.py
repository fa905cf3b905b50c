"""One layer in one direction: divides the work, and manages buffers and the tape around the compiled loops."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.buffers import BufferPool
from rnnbench.impls.numba_cpu.compile import kernels_for
from rnnbench.impls.numba_cpu.products import buffer_size, packed_size, rounded_up
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
    """Gradients of weights (gates, all units, columns padded to whole vectors), and of the biases of one share's units."""

    ih: np.ndarray
    hh: np.ndarray
    ho: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    bias_ho: np.ndarray


class Work(NamedTuple):
    """Intermediate arrays of BPTT, for one block of steps."""

    da: np.ndarray
    db_outer: np.ndarray
    db_inner: np.ndarray
    doutput: np.ndarray
    dhidden: np.ndarray
    doperand: np.ndarray
    dcarried: np.ndarray
    dx: np.ndarray
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

    ``x``: a copy of the share's rows, or None where it has all rows.  ``scratch``: the last arguments of ``kernels.forward``.
    """

    shares: list[Share]
    kept: list[Kept]
    x: list[np.ndarray | None]
    scratch: list[tuple[np.ndarray, ...]]

    @property
    def teamed(self) -> bool:
        """Whether the threads divide the units of the same rows."""
        return len(self.shares) > 1 and self.shares[0].rows == self.shares[1].rows


class StepBuffers(NamedTuple):
    """Arrays of single steps of all rows and units on one thread: x and y (1, B, size), and those of ``ForwardBuffers``."""

    x: np.ndarray
    y: np.ndarray
    kept: Kept
    scratch: tuple[np.ndarray, ...]


class BackwardBuffers(NamedTuple):
    """Arrays of BPTT, for each share; ``weights`` are the first arrays of its ``Sums``, or None to sum into the results."""

    drecurrent: list[np.ndarray]
    dmemory: list[np.ndarray]
    work: list[Work]
    weights: list[list[np.ndarray | None]]
    biases: list[list[np.ndarray]]


class Tape(NamedTuple):
    """Buffers of the forward pass, and x of each share."""

    buffers: ForwardBuffers
    x: list[np.ndarray]


class Layer:
    """Single-layer functions (``rnnbench.networks.stacked.LayerFunctions``) of one Spec."""

    def __init__(self, spec: Spec, workers: Workers) -> None:
        self._spec, self._cell, self._workers = spec, spec.kind, workers
        self._dtype, self._target = spec.numpy_dtype, current_target()
        self._real, self._stored = computed(self._dtype), storage(self._dtype)
        self._kernels = kernels_for(spec.cell, spec.nonlinearity, self._dtype, self._target)
        self._pool = BufferPool()
        self._gates, self._outer = len(spec.kind.gates), spec.kind.outer_gates
        self._output = spec.state_size if spec.kind.feeds_back_output else 0

    def pack(self, params: Params) -> LayerWeights:
        weights = LayerWeights(self._spec, params, self._target)
        if self._workers.threads == 1:
            weights.of_units(slice(0, self._spec.hidden_size))  # the only share; with more threads shares depend on the call
        return weights

    def forward(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State]:
        y, final, tape = self._run(weights, x, state, reverse, kept_steps=1)
        self._give_back(x.shape, tape.buffers, kept_steps=1)
        return y, final

    def record(self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State, Tape]:
        return self._run(weights, x, state, reverse, kept_steps=len(x))

    @property
    def forward_kernel(self) -> Callable[..., None]:
        return self._kernels.forward

    def step_buffers(self, x: np.ndarray, y: np.ndarray) -> StepBuffers:
        """New arrays for steps from x to y."""
        everything = [Share(slice(0, x.shape[1]), slice(0, self._spec.hidden_size))]
        buffers = self._forward_buffers(x.shape, 1, everything)
        return StepBuffers(x.view(self._stored), y.view(self._stored), buffers.kept[0], buffers.scratch[0])

    def step_arguments(self, weights: LayerWeights, buffers: StepBuffers, reverse: bool) -> tuple[Any, ...]:
        """The arguments of ``forward_kernel`` for one step; in reverse it goes from row 1 of the state to row 0."""
        packed_weights = weights.of_units(slice(0, self._spec.hidden_size))
        return (buffers.x, packed_weights, *buffers.kept, buffers.y, 0, 0, reverse, *buffers.scratch, _ALONE)

    def _run(
        self, weights: LayerWeights, x: np.ndarray, state: State, reverse: bool, kept_steps: int
    ) -> tuple[np.ndarray, State, Tape]:
        x = plain(x).view(self._stored)
        steps, batch, input_size = x.shape
        buffers = self._pool.take((steps, batch), (kept_steps, input_size))
        if buffers is None:
            buffers = self._forward_buffers(x.shape, kept_steps, self._workers.shares(self._spec, steps, batch))
        shares, team = buffers.shares, Team.of(len(buffers.shares)) if buffers.teamed else _ALONE
        y = np.empty((steps, batch, self._spec.state_size), self._dtype)
        stored_y = y.view(self._stored)
        rows = kept_steps + 1
        first, last = (steps % rows, 0) if reverse else (0, steps % rows)
        size, carries_memory = state[0].shape[1], self._cell.carries == "c"
        xs, arguments = [], []
        for share, kept, own_x, scratch in zip(*buffers, strict=True):
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
        for share, kept in zip(shares, buffers.kept, strict=True):
            final[0][share.rows] = kept.recurrent[last, :, :size]
            if carries_memory:
                final[1][share.rows, share.units] = kept.memory[last]
        return y, final, Tape(buffers, xs)

    def backward(
        self, weights: LayerWeights, tape: Tape, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        dy = plain(dy).view(self._stored)
        (steps, batch, _), input_size = dy.shape, tape.x[0].shape[2]
        buffers, size, carries_memory = tape.buffers, self._spec.state_size, self._cell.carries == "c"
        shares, team = buffers.shares, Team.of(len(buffers.shares)) if buffers.teamed else _ALONE
        back = self._pool.take((steps, batch), ("backward", input_size))
        if back is None:
            back = self._backward_buffers(buffers, steps, input_size)
        dxs = [np.empty((steps, batch, input_size), self._dtype) for _ in (shares if buffers.teamed else shares[:1])]
        results = [np.empty(shape, self._dtype) for shape in self._weight_shapes(input_size)]
        arguments, found = [], []
        for place, (share, own_x, kept) in enumerate(zip(shares, tape.x, buffers.kept, strict=True)):
            drecurrent, dmemory, work = back.drecurrent[place], back.dmemory[place], back.work[place]
            weights_sums = (result if own is None else own for result, own in zip(results, back.weights[place], strict=True))
            sums = Sums(*weights_sums, *back.biases[place])
            found.append(sums)
            drecurrent[0] = 0
            drecurrent[0, 0, :, :size] = dstate[0][share.rows]
            if carries_memory:
                dmemory[:] = dstate[1][share.rows, share.units]
            for bias in back.biases[place]:
                bias[...] = 0
            own = place if buffers.teamed else 0
            dx, places = dxs[own].view(self._stored), (share.rows.start, share.units.start, reverse)
            of_units = weights.back_of_units(share.units)
            arguments.append((own_x, of_units, *kept, dy, dx, *places, drecurrent, dmemory, work, sums, own, team))
        self._workers.run(self._kernels.backward, arguments)
        initial = tuple(np.empty(part.shape, self._dtype) for part in dstate)
        for share, drecurrent, dmemory in zip(shares, back.drecurrent, back.dmemory, strict=True):
            initial[0][share.rows] = drecurrent[steps % 2, :, :, :size].sum(0)
            if carries_memory:
                initial[1][share.rows, share.units] = dmemory
        for dx in dxs[1:]:
            dxs[0] += dx
        grads = self._gradients(shares, found, results)
        self._pool.give_back((steps, batch), ("backward", input_size), back)
        self._give_back((steps, batch, input_size), buffers, kept_steps=steps)
        return grads, dxs[0], initial

    def _give_back(self, shape: tuple[int, ...], buffers: ForwardBuffers, kept_steps: int) -> None:
        """Return the buffers of a call on (T, B, I) to the pool."""
        steps, batch, input_size = shape
        self._pool.give_back((steps, batch), (kept_steps, input_size), buffers)

    def _gradients(self, shares: list[Share], found: list[Sums], results: list[np.ndarray]) -> Params:
        """Gradients of the parameters by name, without suffix: sums over shares of rows, joined over shares of units."""
        spec, gates, outer = self._spec, self._gates, self._outer
        if all(share.units == slice(0, spec.hidden_size) for share in shares):
            first, *others = found
            for other in others:
                for total, term in zip(first, other, strict=True):
                    self._workers.add(total, term)
            shares, found = shares[:1], [first]
        for result, total in zip(results, found[0], strict=False):  # the biases follow
            if result is not total:
                rows = result.shape[0] * result.shape[1]
                stored = result.view(self._stored).reshape(rows, result.shape[2])
                self._kernels.copied(total.reshape(rows, total.shape[2]), stored)
        weight_ih, weight_hh, weight_ho = (result.reshape(-1, result.shape[2]) for result in results)
        grads = {"weight_ih": weight_ih, "weight_hh": weight_hh}
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
        if self._output:
            grads["weight_ho"] = weight_ho
            if spec.bias:
                grads["bias_ho"] = found[0].bias_ho[: self._output].astype(self._dtype)
        return grads

    def _weight_shapes(self, input_size: int) -> list[tuple[int, int, int]]:
        """Shapes (gates, units, columns) of the gradients of ih, hh and ho."""
        hidden = self._spec.hidden_size
        return [(self._gates, hidden, input_size), (self._gates, hidden, self._spec.state_size), (1, self._output, hidden)]

    def _forward_buffers(self, shape: tuple[int, ...], kept_steps: int, shares: list[Share]) -> ForwardBuffers:
        """New buffers for (T, B, I); shares of units have one recurrent state in common."""
        steps, batch, input_size = shape
        cell, rows, state_size = self._cell, kept_steps + 1, self._spec.state_size
        buffers = ForwardBuffers(shares, [], [], [])
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
            buffers.x.append(None if count == batch else np.empty((steps, count, input_size), self._stored))
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
            back.work.append(self._work(steps, rows, input_size, units))
            if buffers.teamed and back.weights:
                back.weights.append(back.weights[0])
            else:
                back.weights.append([self._weight_sums(shape, place == 0) for shape in self._weight_shapes(input_size)])
            biases = (self._gates * units, self._outer * units, (self._gates - self._outer) * units, self._output)
            back.biases.append([self._empty(self._up(size)) for size in biases])
        return back

    def _weight_sums(self, shape: tuple[int, int, int], first: bool) -> np.ndarray | None:
        """An array for the sums, or None where the first share (or a whole team) can write into the results."""
        columns = self._up(shape[2])
        if first and columns == shape[2] and self._stored == self._real:
            return None
        return self._empty(*shape[:2], columns)

    def _work(self, steps: int, batch: int, input_size: int, units: int) -> Work:
        cell, block = self._cell, min(steps, -(-_BLOCK_ROWS // batch))
        rows, state_size = block * batch, self._spec.state_size
        columns = self._up(max(input_size, state_size, units))
        operands = ((rows, max(self._gates * units, state_size)), (max(units, state_size), rows))
        da = self._cotangents(block, batch, self._gates * units)
        return Work(
            da,
            self._cotangents(block, batch, self._outer * units) if cell.inner_gates or not cell.reads_sums else da,
            self._cotangents(block if cell.inner_gates else 1, batch, (self._gates - self._outer) * units),
            self._cotangents(block if cell.feeds_back_output else 1, batch, state_size),
            self._empty(batch, self._up(units)),
            self._empty(batch, self._up(units)),
            self._empty(batch, units),
            self._empty(rows, self._up(input_size)),
            np.empty(packed_size(self._dtype, self._target, rows, columns), self._stored),
            np.zeros(columns, self._real),
            np.empty(buffer_size(self._dtype, *operands), self._stored),
        )

    def _cotangents(self, steps: int, batch: int, columns: int) -> np.ndarray:
        """An array whose rows span an odd number of cache lines, so that their starts do not map to the same cache sets."""
        line = LINE // self._real.itemsize
        return self._empty(steps, batch, (-(-columns // line) | 1) * line)

    def _empty(self, *shape: int) -> np.ndarray:
        return np.empty(shape, self._real)

    def _up(self, size: int) -> int:
        return rounded_up(size, self._target.lanes(self._real))


def plain(array: np.ndarray) -> np.ndarray:
    """A contiguous, writeable array: read-only arrays are copied, because Numba would recompile everything for them."""
    return array if array.flags.c_contiguous and array.flags.writeable else np.array(array, order="C")
