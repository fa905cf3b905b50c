"""One layer in one direction on device arrays (``rnnbench.stack.LayerFunctions``), with the recurrence of any regime.

Whatever covers the whole sequence stands here, one launch each: the input product before the recurrence, the gradients of
weights, biases and x after it.  All arrays inside are flat; ``kernels.Matrix`` and ``kernels.Values`` say how they are read.
"""

from typing import Any, NamedTuple

from rnnbench.backend import Array, State
from rnnbench.impls.numba_cuda.algebra import Algebra, Weights
from rnnbench.impls.numba_cuda.arrays import Allocate, DeviceArrays, place
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.recurrence import Record, Recurrence
from rnnbench.impls.numba_cuda.slots import Slots
from rnnbench.params import Params
from rnnbench.spec import Spec


class Packed(NamedTuple):
    """A layer's weights: as matrices, and in the form of the regime."""

    matrices: Weights
    recurrent: Any


class Layer:
    """One layer in one direction; x and the parts of states lie in C order."""

    def __init__(self, spec: Spec, arrays: DeviceArrays, algebra: Algebra, recurrence: Recurrence) -> None:
        self._cell, self._arrays, self._algebra, self._recurrence = spec.kind, arrays, algebra, recurrence
        self._units, self._state_size = spec.hidden_size, spec.state_size
        outer = spec.kind.outer_gates * self._units
        self._outer, self._inner = slice(0, outer), slice(outer, None)

    def pack(self, params: Params) -> Packed:
        matrices = {name: self._algebra.on_device(value) for name, value in params.items()}
        return Packed(matrices, self._recurrence.pack(params))

    def forward(self, weights: Packed, x: Array, state: State, reverse: bool) -> tuple[Array, State]:
        states = self._run(weights, x, state, reverse, keeps=False).states
        return states.outputs(), states.state(states.final)

    def record(self, weights: Packed, x: Array, state: State, reverse: bool) -> tuple[Array, State, Record]:
        record = self._run(weights, x, state, reverse, keeps=True)
        states = record.states
        y = self._arrays.concat([states.outputs()], 0)  # a copy: the caller may change y, but not the record
        return y, states.state(states.final), record

    def backward(
        self, weights: Packed, tape: Record, dy: Array, dstate: State, reverse: bool
    ) -> tuple[dict[str, Array], Array, State]:
        steps, batch, inputs = tape.x.shape
        dstates = self._slots(self._arrays.zeros, steps, batch, reverse)
        place(dstates.array, dy, dstates.position(dstates.after(0)))
        dstates.add(dstates.final, dstate)
        matrices, recurrent = weights
        da, db = self._recurrence.backward(matrices, recurrent, tape.saved, tape.states, dstates)
        dx = self._algebra.empty(steps * batch, inputs)
        self._algebra.product(da, matrices["weight_ih"], dx)
        grads = self._weight_gradients(matrices, tape, dstates, da, db)
        return grads, dx.array.reshape((steps, batch, inputs)), dstates.state(dstates.initial)

    def _run(self, weights: Packed, x: Array, state: State, reverse: bool, keeps: bool) -> Record:
        steps, batch, _ = x.shape
        states = self._slots(self._arrays.empty, steps, batch, reverse)
        for index, part in enumerate(state):
            place(states.array, part.reshape((1, *part.shape)), states.position(states.initial, index))
        a = self._algebra.empty(steps * batch, len(self._cell.gates) * self._units)
        self._algebra.affine(weights.matrices, "ih", a, _sequence(x))
        saved, operand = self._recurrence.forward(weights.matrices, weights.recurrent, a, states, keeps)
        return Record(x, states, saved, operand)

    def _weight_gradients(self, weights: Weights, tape: Record, dstates: Slots, da: Matrix, db: Matrix) -> dict[str, Array]:
        grads = {name: self._algebra.empty(weight.rows, weight.columns) for name, weight in weights.items()}
        gradients = self._algebra.affine_gradients
        gradients(grads, "ih", da, _sequence(tape.x))
        gradients(grads, "hh", db, tape.states.matrix(tape.states.before(0), tape.states.steps), self._outer)
        if self._cell.feeds_back_output:
            assert tape.operand is not None
            gradients(grads, "ho", dstates.matrix(dstates.after(0), dstates.steps), tape.operand)
        elif tape.operand is not None:
            gradients(grads, "hh", db, tape.operand, self._inner)
        return {
            name: grad.array if name.startswith("bias") else grad.array.reshape((grad.rows, grad.columns))
            for name, grad in grads.items()
        }

    def _slots(self, allocate: Allocate, steps: int, batch: int, reverse: bool) -> Slots:
        return Slots(allocate, len(self._cell.states), steps, batch, self._state_size, reverse)


def _sequence(x: Array) -> Matrix:
    """A contiguous (T, B, I) as a matrix (T * B, I)."""
    return matrix(x.reshape(x.size), x.shape[0] * x.shape[1], x.shape[2])
