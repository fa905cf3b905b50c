"""The regime that runs every network: a few launches per time step."""

from collections.abc import Iterator, Sequence
from typing import Any

from rnnbench.impls.numba_cuda.algebra import Algebra, Weights
from rnnbench.impls.numba_cuda.arrays import add, copied
from rnnbench.impls.numba_cuda.cell_kernels import cell_kernels
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.launching import clear, launch
from rnnbench.impls.numba_cuda.recurrence import Flow, Kept
from rnnbench.impls.numba_cuda.regimes import PER_STEP
from rnnbench.impls.numba_cuda.slots import Sizes, Slots, slots_size
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


class PerStep:
    """A recurrence (``recurrence.Recurrence``) that reads the weights without packing."""

    name = PER_STEP

    def __init__(self, spec: Spec, algebra: Algebra) -> None:
        self._cell, self._algebra, self._units, self._size = spec.kind, algebra, spec.hidden_size, spec.state_size
        self._kernels = cell_kernels(spec.cell, spec.nonlinearity, spec.dtype)
        self._carried_state = spec.kind.states.index(spec.kind.carries) if spec.kind.carries else 0
        self._gated = len(spec.kind.gates) * self._units
        self._two = bool(self._kernels.inner) or spec.kind.feeds_back_output
        outer = spec.kind.outer_gates * self._units
        self._outer, self._inner = slice(0, outer), slice(outer, None)

    def pack(self, params: Params) -> None:
        return None

    def forward_work(self, sizes: Sizes, keeps: bool) -> tuple[int, ...]:
        """Sizes of a step's products and, without a tape, of the states and of one step's saved values."""
        products = sizes.batch * self._gated
        if keeps:
            return (products,)
        saved, operand = sizes.batch * self._cell.saved * self._units, sizes.batch * self._units * self._two
        return products, slots_size(len(self._cell.states), sizes, self._size), saved, operand

    def forward(self, weights: Weights, packed: None, a: Matrix, flow: Flow, kept: Kept | None, work: Sequence[Any]) -> None:
        sizes, batch = flow.sizes, flow.sizes.batch
        b = matrix(work[0], batch, self._gated)
        steps_kept = sizes.steps if kept else 1
        if kept is None:
            operand = matrix(work[3], batch, self._units) if self._two else None
            slots = Slots(work[1], len(self._cell.states), sizes, self._size)
            kept = Kept(slots, matrix(work[2], batch, self._cell.saved * self._units), operand)
        states = kept.states
        for slot, given in zip(states.states(states.initial), flow.initial, strict=True):
            copied(slot, given)
        for t in _times(sizes.steps, bool(sizes.reverse)):
            self._step(weights, a.part(_rows(t, batch)), b, kept, t, _rows(t % steps_kept, batch))
        copied(flow.y, states.matrix(states.after(0), sizes.steps))
        for out, slot in zip(flow.final, states.states(states.final), strict=True):
            copied(out, slot)

    def _step(self, weights: Weights, a: Matrix, b: Matrix, kept: Kept, t: int, keep: slice) -> None:
        kernels, units, (states, saved, operand) = self._kernels, self._units, kept
        batch, before, after = states.batch, states.before(t), states.after(t)
        affine, a_t, b_t = self._algebra.affine, a.values(units), b.values(units)
        carried, new = states.values(before, self._carried_state), states.values(after)
        affine(weights, "hh", b, states.matrix(before), self._outer)
        if kernels.inner and operand:
            launch(kernels.inner, batch * units, a_t, b_t, carried, operand.part(keep).values(units), batch, units)
            affine(weights, "hh", b, operand.part(keep), self._inner)
        elif operand:
            new = operand.part(keep).values(units)
        launch(kernels.forward, batch * units, a_t, b_t, carried, new, saved.part(keep).values(units), batch, units)
        if self._cell.feeds_back_output and operand:
            affine(weights, "ho", states.matrix(after), operand.part(keep))

    def backward_work(self, sizes: Sizes) -> tuple[int, ...]:
        """Sizes of the cotangents of the states, and of the result and the operand of a second product."""
        step = sizes.batch * self._units
        return slots_size(len(self._cell.states), sizes, self._size), step, step

    def backward(
        self, weights: Weights, packed: None, kept: Kept, flow: Flow, da: Matrix, db: Matrix, work: Sequence[Any]
    ) -> Matrix | None:
        sizes, units, batch = flow.sizes, self._units, flow.sizes.batch
        dstates = Slots(work[0], len(self._cell.states), sizes, self._size)
        dhidden, dinner = (matrix(array, batch, units) for array in work[1:])
        clear(work[0])
        copied(dstates.matrix(dstates.after(0), sizes.steps), flow.y)
        for slot, given in zip(dstates.states(dstates.final), flow.final, strict=True):
            add(slot, slot, given)
        for t in _times(sizes.steps, not sizes.reverse):
            self._step_back(weights, kept, dstates, da, db, dhidden, dinner, t)
        for out, slot in zip(flow.initial, dstates.states(dstates.initial), strict=True):
            copied(out, slot)
        return dstates.matrix(dstates.after(0), sizes.steps) if self._cell.feeds_back_output else None

    def _step_back(
        self, weights: Weights, kept: Kept, dstates: Slots, da: Matrix, db: Matrix, dhidden: Matrix, dinner: Matrix, t: int
    ) -> None:
        kernels, units, batch, product = self._kernels, self._units, dstates.batch, self._algebra.product
        here, before, after = _rows(t, batch), dstates.before(t), dstates.after(t)
        carried = kept.states.values(before, self._carried_state)
        saved_t, db_t = kept.saved.part(here).values(units), db.part(here)
        dnew = dstates.values(after)
        if self._cell.feeds_back_output:
            product(dstates.matrix(after), weights["weight_ho"], dhidden)
            dnew = dhidden.values(units)
        if kernels.inner_backward:
            db_inner = db_t.part(columns=self._inner)
            operands = (saved_t, carried, dnew, db_inner.values(units))
            launch(kernels.inner_backward, batch * units, *operands, batch, units)
            product(db_inner, weights["weight_hh"].part(self._inner), dinner)
        results = (da.part(here).values(units), db_t.values(units), dstates.values(before, self._carried_state))
        operands = (saved_t, carried, dnew, dinner.values(units))
        launch(kernels.backward, batch * units, *operands, *results, batch, units)
        dbefore = dstates.matrix(before)
        self._algebra.multiply(dbefore, dbefore, db_t.part(columns=self._outer), weights["weight_hh"].part(self._outer))


def _times(steps: int, backwards: bool) -> Iterator[int]:
    return reversed(range(steps)) if backwards else iter(range(steps))


def _rows(step: int, batch: int) -> slice:
    """The rows of one step in a matrix (T * B, ...)."""
    return slice(step * batch, (step + 1) * batch)
