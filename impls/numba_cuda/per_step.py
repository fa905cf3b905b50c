"""The regime that fits every network: a few launches per time step."""

from collections.abc import Iterator

from rnnbench.impls.numba_cuda.algebra import Algebra, Weights
from rnnbench.impls.numba_cuda.cell_kernels import cell_kernels
from rnnbench.impls.numba_cuda.kernels import Matrix
from rnnbench.impls.numba_cuda.launching import launch
from rnnbench.impls.numba_cuda.slots import Slots
from rnnbench.params import Params
from rnnbench.spec import Spec


class PerStep:
    """A recurrence (``recurrence.Recurrence``) that reads the weights as they are."""

    def __init__(self, spec: Spec, algebra: Algebra) -> None:
        self._cell, self._algebra, self._units = spec.kind, algebra, spec.hidden_size
        self._kernels = cell_kernels(spec.cell, spec.nonlinearity, spec.dtype)
        self._carried_state = spec.kind.states.index(spec.kind.carries) if spec.kind.carries else 0
        outer = spec.kind.outer_gates * self._units
        self._outer, self._inner = slice(0, outer), slice(outer, None)

    def pack(self, params: Params) -> None:
        return None

    def forward(self, weights: Weights, packed: None, a: Matrix, states: Slots, keeps: bool) -> tuple[Matrix, Matrix | None]:
        """Without ``keeps`` there is room for one step, which each overwrites."""
        cell, kernels, units, batch = self._cell, self._kernels, self._units, states.batch
        kept = states.steps if keeps else 1
        empty, affine = self._algebra.empty, self._algebra.affine
        b = empty(batch, len(cell.gates) * units)
        saved = empty(kept * batch, cell.saved * units)
        operand = empty(kept * batch, units) if kernels.inner or cell.feeds_back_output else None
        for t in _times(states.steps, states.reverse):
            before, after = states.before(t), states.after(t)
            here, keep = _rows(t, batch), _rows(t % kept, batch)
            a_t, b_t = a.part(here).values(units), b.values(units)
            carried, new = states.values(before, self._carried_state), states.values(after)
            affine(weights, "hh", b, states.matrix(before), self._outer)
            if kernels.inner and operand:
                launch(kernels.inner, batch * units, a_t, b_t, carried, operand.part(keep).values(units), batch, units)
                affine(weights, "hh", b, operand.part(keep), self._inner)
            elif operand:
                new = operand.part(keep).values(units)
            launch(kernels.forward, batch * units, a_t, b_t, carried, new, saved.part(keep).values(units), batch, units)
            if cell.feeds_back_output and operand:
                affine(weights, "ho", states.matrix(after), operand.part(keep))
        return saved, operand

    def backward(self, weights: Weights, packed: None, saved: Matrix, states: Slots, dstates: Slots) -> tuple[Matrix, Matrix]:
        cell, kernels, units, batch = self._cell, self._kernels, self._units, states.batch
        empty, product = self._algebra.empty, self._algebra.product
        da, db = (empty(states.steps * batch, len(cell.gates) * units) for _ in range(2))
        dhidden, dinner = empty(batch, units), empty(batch, units)
        outer_weight = weights["weight_hh"].part(self._outer)
        for t in _times(states.steps, not states.reverse):
            here, before, after = _rows(t, batch), states.before(t), states.after(t)
            carried = states.values(before, self._carried_state)
            saved_t, db_t = saved.part(here).values(units), db.part(here)
            dnew = dstates.values(after)
            if cell.feeds_back_output:
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
            self._algebra.multiply(dbefore, dbefore, db_t.part(columns=self._outer), outer_weight)
        return da, db


def _times(steps: int, backwards: bool) -> Iterator[int]:
    return reversed(range(steps)) if backwards else iter(range(steps))


def _rows(step: int, batch: int) -> slice:
    """The rows of one step in a matrix (T * B, ...)."""
    return slice(step * batch, (step + 1) * batch)
