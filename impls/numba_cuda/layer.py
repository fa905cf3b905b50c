"""One layer in one direction on device arrays (``rnnbench.stack.LayerFunctions``), a few launches per time step.

Whatever covers the whole sequence is one launch: the input product before the loop, the gradients of weights, biases
and x after it.  All arrays inside are flat; ``kernels.Matrix`` and ``kernels.Values`` say how they are read.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numba import cuda

from rnnbench.backend import Array, State
from rnnbench.impls.numba_cuda.arrays import Allocate, DeviceArrays, place
from rnnbench.impls.numba_cuda.cell_kernels import cell_kernels
from rnnbench.impls.numba_cuda.kernels import Matrix, constant, launch, matrix, multiply
from rnnbench.impls.numba_cuda.slots import Slots
from rnnbench.params import Params
from rnnbench.spec import Spec

Weights = dict[str, Matrix]

_ALL = slice(None)


class Record(NamedTuple):
    """What the forward pass leaves for BPTT: ``operand`` is the second product's, ``hidden`` jordan's h, else None."""

    x: Array
    states: Slots
    saved: Matrix
    operand: Matrix | None
    hidden: Matrix | None


class Layer:
    """One layer in one direction; x and the parts of states lie in C order."""

    def __init__(self, spec: Spec, arrays: DeviceArrays) -> None:
        self._cell, self._arrays = spec.kind, arrays
        self._units, self._state_size = spec.hidden_size, spec.state_size
        self._kernels = cell_kernels(spec.cell, spec.nonlinearity, spec.dtype)
        self._zero, self._one = arrays.filled((1,), 0), arrays.filled((1,), 1)
        self._carried_state = spec.kind.states.index(spec.kind.carries) if spec.kind.carries else 0
        outer = spec.kind.outer_gates * self._units
        self._outer, self._inner = slice(0, outer), slice(outer, None)

    def pack(self, params: Params) -> Weights:
        """Matrices on the device; a bias is a matrix of one row."""
        return {name: self._on_device(np.atleast_2d(value)) for name, value in params.items()}

    def forward(self, weights: Weights, x: Array, state: State, reverse: bool) -> tuple[Array, State]:
        states = self._run(weights, x, state, reverse, kept=1).states
        return states.outputs(), states.state(states.final)

    def record(self, weights: Weights, x: Array, state: State, reverse: bool) -> tuple[Array, State, Record]:
        record = self._run(weights, x, state, reverse, kept=x.shape[0])
        states = record.states
        y = self._arrays.concat([states.outputs()], 0)  # a copy: the caller may change y, but not the record
        return y, states.state(states.final), record

    def backward(
        self, weights: Weights, tape: Record, dy: Array, dstate: State, reverse: bool
    ) -> tuple[dict[str, Array], Array, State]:
        steps, batch, inputs = tape.x.shape
        dstates = self._slots(self._arrays.zeros, steps, batch, reverse)
        place(dstates.array, dy, dstates.position(dstates.after(0)))
        dstates.add(dstates.final, dstate)
        da, db = self._run_back(weights, tape, dstates, reverse)
        dx = self._matrix(steps * batch, inputs)
        multiply(dx, self._zeros(dx), da, weights["weight_ih"])
        grads = self._weight_gradients(weights, tape, dstates, da, db)
        return grads, dx.array.reshape((steps, batch, inputs)), dstates.state(dstates.initial)

    def _run(self, weights: Weights, x: Array, state: State, reverse: bool, kept: int) -> Record:
        """The forward pass, with room for what ``kept`` steps leave for BPTT: all, or one that each step overwrites."""
        cell, kernels, units = self._cell, self._kernels, self._units
        steps, batch, _ = x.shape
        states = self._slots(self._arrays.empty, steps, batch, reverse)
        for index, part in enumerate(state):
            place(states.array, part.reshape((1, *part.shape)), states.position(states.initial, index))
        a = self._matrix(steps * batch, len(cell.gates) * units)
        b = self._matrix(batch, len(cell.gates) * units)
        saved = self._matrix(kept * batch, cell.saved * units)
        operand = self._matrix(kept * batch, units) if kernels.inner else None
        hidden = self._matrix(kept * batch, units) if cell.feeds_back_output else None
        self._affine(weights, "ih", a, _sequence(x))
        for t in _times(steps, reverse):
            before, after = states.before(t), states.after(t)
            here, keep = _rows(t, batch), _rows(t % kept, batch)
            a_t, b_t = a.part(here).values(units), b.values(units)
            carried = states.values(before, self._carried_state)
            self._affine(weights, "hh", b, states.matrix(before), self._outer)
            if operand is not None:
                operand_t = operand.part(keep)
                launch(kernels.inner, batch * units, a_t, b_t, carried, operand_t.values(units), batch, units)
                self._affine(weights, "hh", b, operand_t, self._inner)
            new = states.values(after) if hidden is None else hidden.part(keep).values(units)
            launch(kernels.forward, batch * units, a_t, b_t, carried, new, saved.part(keep).values(units), batch, units)
            if hidden is not None:
                self._affine(weights, "ho", states.matrix(after), hidden.part(keep))
        return Record(x, states, saved, operand, hidden)

    def _run_back(self, weights: Weights, tape: Record, dstates: Slots, reverse: bool) -> tuple[Matrix, Matrix]:
        """BPTT through the steps: the cotangents of all pre-activations, each (T*B, G*H); ``dstates`` is completed."""
        cell, kernels, units = self._cell, self._kernels, self._units
        steps, batch, _ = tape.x.shape
        da, db = (self._matrix(steps * batch, len(cell.gates) * units) for _ in range(2))
        dhidden, dinner = self._matrix(batch, units), self._matrix(batch, units)
        outer_weight = weights["weight_hh"].part(self._outer)
        for t in _times(steps, not reverse):
            here, before, after = _rows(t, batch), tape.states.before(t), tape.states.after(t)
            carried = tape.states.values(before, self._carried_state)
            saved, db_t = tape.saved.part(here).values(units), db.part(here)
            dnew = dstates.values(after)
            if cell.feeds_back_output:
                multiply(dhidden, self._zeros(dhidden), dstates.matrix(after), weights["weight_ho"])
                dnew = dhidden.values(units)
            if kernels.inner_backward:
                db_inner = db_t.part(columns=self._inner)
                operands = (saved, carried, dnew, db_inner.values(units))
                launch(kernels.inner_backward, batch * units, *operands, batch, units)
                multiply(dinner, self._zeros(dinner), db_inner, weights["weight_hh"].part(self._inner))
            results = (da.part(here).values(units), db_t.values(units), dstates.values(before, self._carried_state))
            operands = (saved, carried, dnew, dinner.values(units))
            launch(kernels.backward, batch * units, *operands, *results, batch, units)
            dbefore = dstates.matrix(before)
            multiply(dbefore, dbefore, db_t.part(columns=self._outer), outer_weight)
        return da, db

    def _weight_gradients(self, weights: Weights, tape: Record, dstates: Slots, da: Matrix, db: Matrix) -> dict[str, Array]:
        grads = {name: self._matrix(weight.rows, weight.columns) for name, weight in weights.items()}
        self._affine_gradients(grads, "ih", da, _sequence(tape.x))
        self._affine_gradients(grads, "hh", db, tape.states.matrix(tape.states.before(0), tape.states.steps), self._outer)
        if tape.operand is not None:
            self._affine_gradients(grads, "hh", db, tape.operand, self._inner)
        if tape.hidden is not None:
            self._affine_gradients(grads, "ho", dstates.matrix(dstates.after(0), dstates.steps), tape.hidden)
        return {
            name: grad.array if name.startswith("bias") else grad.array.reshape((grad.rows, grad.columns))
            for name, grad in grads.items()
        }

    def _affine(self, weights: Weights, name: str, out: Matrix, operand: Matrix, gates: slice = _ALL) -> None:
        """out[:, gates] = operand weight[gates]^T + bias[gates]"""
        out = out.part(columns=gates)
        bias = weights.get(f"bias_{name}")
        start = self._zeros(out) if bias is None else bias.part(columns=gates).repeated(out.rows)
        multiply(out, start, operand, weights[f"weight_{name}"].part(gates).transposed)

    def _affine_gradients(self, grads: Weights, name: str, dout: Matrix, operand: Matrix, gates: slice = _ALL) -> None:
        """The gradients of ``_affine`` with respect to weight[gates] and bias[gates], summed over the rows."""
        dout = dout.part(columns=gates)
        dweight = grads[f"weight_{name}"].part(gates)
        multiply(dweight, self._zeros(dweight), dout.transposed, operand)
        if f"bias_{name}" in grads:
            dbias = grads[f"bias_{name}"].part(columns=gates)
            multiply(dbias, self._zeros(dbias), constant(self._one, 1, dout.rows), dout)

    def _slots(self, allocate: Allocate, steps: int, batch: int, reverse: bool) -> Slots:
        return Slots(allocate, len(self._cell.states), steps, batch, self._state_size, reverse)

    def _matrix(self, rows: int, columns: int) -> Matrix:
        return matrix(self._arrays.empty((rows * columns,)), rows, columns)

    def _zeros(self, like: Matrix) -> Matrix:
        return constant(self._zero, like.rows, like.columns)

    def _on_device(self, value: np.ndarray) -> Matrix:
        return matrix(cuda.to_device(np.ascontiguousarray(value).reshape(-1)), *value.shape)


def _sequence(x: Array) -> Matrix:
    """A contiguous (T, B, I) as a matrix (T * B, I)."""
    return matrix(x.reshape(x.size), x.shape[0] * x.shape[1], x.shape[2])


def _times(steps: int, backwards: bool) -> Iterator[int]:
    return reversed(range(steps)) if backwards else iter(range(steps))


def _rows(step: int, batch: int) -> slice:
    """The rows of one step in a matrix (T * B, ...)."""
    return slice(step * batch, (step + 1) * batch)
