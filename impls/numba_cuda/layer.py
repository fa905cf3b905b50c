"""One layer in one direction on device arrays, with the recurrence of any regime.

This module does the work over the whole sequence, one launch each: the input product before the recurrence, and the gradients
of weights, biases and x after it.  All arrays inside are flat; ``kernels.Matrix`` and ``kernels.Values`` describe their layout.
"""

from typing import Any, NamedTuple

from rnnbench.impls.numba_cuda.algebra import Algebra, Weights
from rnnbench.impls.numba_cuda.arrays import scratch
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.recurrence import Flow, Kept, Recurrence
from rnnbench.impls.numba_cuda.slots import Sizes, Slots, slots_size
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


class Packed(NamedTuple):
    """A layer's weights as device matrices, on the host (``params``), and packed by regime on first use (``forms``)."""

    matrices: Weights
    params: Params
    forms: dict[str, Any]

    def form(self, recurrence: Recurrence) -> Any:
        name = recurrence.name
        if name not in self.forms:
            self.forms[name] = recurrence.pack(self.params)
        return self.forms[name]


class Record(NamedTuple):
    """What the forward pass leaves for BPTT: x (T*B, I), the regime that ran, and its tape."""

    x: Matrix
    sizes: Sizes
    recurrence: Recurrence
    kept: Kept


class Layer:
    """One layer in one direction, computed in the dtype of ``spec``; x, y and states may have another dtype."""

    def __init__(self, spec: Spec, algebra: Algebra) -> None:
        self._cell, self._algebra, self._dtype = spec.kind, algebra, spec.numpy_dtype
        self._units, self._state_size = spec.hidden_size, spec.state_size
        outer = spec.kind.outer_gates * self._units
        self._outer, self._inner = slice(0, outer), slice(outer, None)
        self._gated = len(spec.kind.gates) * self._units
        self._two = bool(spec.kind.inner_gates) or spec.kind.feeds_back_output

    def pack(self, params: Params, recurrence: Recurrence) -> Packed:
        """Copy a layer's parameters to the device, and pack them for one regime."""
        packed = Packed({name: self._algebra.on_device(value) for name, value in params.items()}, params, {})
        packed.form(recurrence)
        return packed

    def forward(self, weights: Packed, recurrence: Recurrence, x: Matrix, flow: Flow) -> None:
        """Write y and the final state of x (T*B, I)."""
        work = recurrence.forward_work(flow.sizes, False)
        self._run(weights, recurrence, x, flow, None, scratch(self._dtype, flow.sizes.rows * self._gated, *work))

    def record(self, weights: Packed, recurrence: Recurrence, x: Matrix, flow: Flow) -> Record:
        """Like ``forward``, and keep what ``backward`` needs."""
        sizes, cell = flow.sizes, self._cell
        rows, states = sizes.rows, slots_size(len(cell.states), sizes, self._state_size)
        slots, saved, operand = scratch(self._dtype, states, rows * cell.saved * self._units, rows * self._units * self._two)
        kept = Kept(
            Slots(slots, len(cell.states), sizes, self._state_size),
            matrix(saved, rows, cell.saved * self._units),
            matrix(operand, rows, self._units) if self._two else None,
        )
        work = recurrence.forward_work(sizes, True)
        self._run(weights, recurrence, x, flow, kept, scratch(self._dtype, rows * self._gated, *work))
        return Record(x, sizes, recurrence, kept)

    def backward(self, weights: Packed, tape: Record, flow: Flow, dx: Matrix, begun: Matrix | None, grads: Weights) -> None:
        """Write the cotangents of the initial state, x and the parameters; those of x are added to ``begun`` if given."""
        rows, recurrence, algebra, matrices = tape.sizes.rows, tape.recurrence, self._algebra, weights.matrices
        size = rows * self._gated
        apart = 0 if self._cell.reads_sums else size
        a, b, *work = scratch(self._dtype, size, apart, *recurrence.backward_work(tape.sizes))
        da = matrix(a, rows, self._gated)
        db = matrix(b, rows, self._gated) if apart else da
        outputs = recurrence.backward(matrices, weights.form(recurrence), tape.kept, flow, da, db, work)
        if begun:
            algebra.multiply(dx, begun, da, matrices["weight_ih"])
        else:
            algebra.product(da, matrices["weight_ih"], dx)
        states, operand = tape.kept.states, tape.kept.operand
        algebra.affine_gradients(grads, "ih", da, tape.x)
        algebra.affine_gradients(grads, "hh", db, states.matrix(states.before(0), states.steps), self._outer)
        if outputs and operand:
            algebra.affine_gradients(grads, "ho", outputs, operand)
        elif operand:
            algebra.affine_gradients(grads, "hh", db, operand, self._inner)

    def _run(
        self, weights: Packed, recurrence: Recurrence, x: Matrix, flow: Flow, kept: Kept | None, arrays: list[Any]
    ) -> None:
        a = matrix(arrays[0], flow.sizes.rows, self._gated)
        self._algebra.affine(weights.matrices, "ih", a, x)
        recurrence.forward(weights.matrices, weights.form(recurrence), a, flow, kept, arrays[1:])
