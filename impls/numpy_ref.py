"""The reference implementation: read this one first.  A plain loop over time steps, in NumPy.

Arrays are numpy.ndarray in any memory order.  The equations come from ``rnnbench.networks.cells``, layers and directions from
``rnnbench.networks.stacked``.  This module implements one layer in one direction: the matrix products around the elementwise
equations, forward in time and, for the gradients, backward.  It is not written for speed.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls._arithmetic import Arithmetic, ArithmeticArrays, Narrow, WeightGradients
from rnnbench.impls._host import InFloat32, asarray, supports, supports_lengths, synchronize, to_numpy
from rnnbench.impls._parts import NumpyParts
from rnnbench.networks.arrays import NumpyArrays, numpy_errors
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import NARROW, Spec
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.threads import blas_info, blas_limits, together

__all__ = [
    "Arithmetic", "Layer", "asarray", "info", "load", "parts", "supports", "supports_lengths", "synchronize", "to_numpy",
]  # fmt: skip

_NO_VALUES: tuple[np.ndarray, ...] = ()

Rows = slice | np.ndarray
"""The rows of a batch whose sequences have a time step."""

_ALL = slice(None)


class Step(NamedTuple):
    """What one time step keeps: its rows (R,), and values (R, size).  BPTT reads all but ``new``, the state after the step.

    ``operand`` of the second recurrent product; ``hidden`` is h of jordan.
    """

    t: int
    rows: Rows
    recurrent: np.ndarray
    carried: tuple[np.ndarray, ...]
    saved: tuple[np.ndarray, ...]
    operand: np.ndarray | None
    hidden: np.ndarray
    new: State


class Layer:
    """One layer in one direction (``rnnbench.networks.stacked.LayerFunctions``)."""

    takes_lengths = True

    def __init__(self, spec: Spec, arithmetic: Arithmetic) -> None:
        self._cell, self._hidden_size, self._arithmetic = spec.kind, spec.hidden_size, arithmetic
        self._equations = arithmetic.equations(spec.kind, spec.nonlinearity)

    def pack(self, params: Params) -> Params:
        return params

    def forward(
        self, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State]:
        y, final = np.zeros((*x.shape[:2], state[0].shape[1]), x.dtype), state
        for step, output, after in self._steps(w, np.ascontiguousarray(x), state, reverse, lengths):
            y[step.t, step.rows], final = output, after
        return y, final

    def record(
        self, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None = None
    ) -> tuple[np.ndarray, State, Any]:
        y = np.zeros((*x.shape[:2], state[0].shape[1]), x.dtype)
        x, state = np.ascontiguousarray(x), tuple(part.copy() for part in state)  # the tape must not refer to the state
        final, steps = state, []
        for step, output, after in self._steps(w, x, state, reverse, lengths):
            y[step.t, step.rows], final = output, after
            steps.append(step)
        return y, final, (x, steps)

    def _steps(
        self, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray | None
    ) -> Iterator[tuple[Step, np.ndarray, State]]:
        """Run the recurrence; yields each step with its output and the state of all rows after it."""
        for t in reversed(range(len(x))) if reverse else range(len(x)):
            rows = _ALL if lengths is None else np.flatnonzero(lengths > t)
            new, step = self._step(w, t, rows, x[t, rows], _of_rows(state, rows))
            state = _with_rows(state, rows, new)
            yield step, new[0], state

    def _step(self, w: Params, t: int, rows: Rows, x: np.ndarray, state: State) -> tuple[State, Step]:
        product, rounded = self._arithmetic.product, self._arithmetic.rounded
        outer = self._cell.outer_gates * self._hidden_size
        recurrent, bias = state[0], w.get("bias_hh")
        carried = self._carried(state, w)
        a = self._gates(product(x, w["weight_ih"], w.get("bias_ih")))
        b = self._gates(product(recurrent, w["weight_hh"][:outer], None if bias is None else bias[:outer]))
        operand = None
        if self._equations.inner:
            (operand,) = rounded((self._equations.inner(a, b, carried),))
            b += self._gates(product(operand, w["weight_hh"][outer:], None if bias is None else bias[outer:]))
        new, saved = self._equations.forward(a, b, carried)
        new = rounded(new)
        hidden = new[0]
        if output := self._cell.output:
            new = (product(hidden, w[f"weight_{output}"], w.get(f"bias_{output}")), *new[1:])
        return new, Step(t, rows, recurrent, carried, saved, operand, hidden, new)

    def backward(self, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> tuple[Params, np.ndarray, State]:
        product, accumulated, rounded = self._arithmetic.product, self._arithmetic.accumulated, self._arithmetic.rounded
        x, steps = tape
        outer = self._cell.outer_gates * self._hidden_size
        sums = WeightGradients(self._arithmetic, w, dy.dtype)
        dx = np.zeros_like(x)
        while steps:
            step = steps.pop()
            t, rows = step.t, step.rows
            dfinal = _of_rows(dstate, rows)
            dnew = (accumulated(dfinal[0], dy[t, rows]), *dfinal[1:])
            if output := self._cell.output:
                sums.add(output, _ALL, dnew[0], step.hidden)
                dnew = (product(dnew[0], w[f"weight_{output}"].T), *dnew[1:])
            dinner = _NO_VALUES
            if self._equations.inner_backward:
                db_inner = np.concatenate(rounded(self._equations.inner_backward(step.saved, step.carried, dnew)), 1)
                dinner = (product(db_inner, w["weight_hh"][outer:].T),)
                sums.add("hh", slice(outer, None), db_inner, step.operand)
            da, db, dcarried = self._equations.backward(step.saved, step.carried, dnew, dinner)
            if peepholes := len(self._cell.peepholes):
                dcarried, dpeepholes = dcarried[:-peepholes], np.concatenate(rounded(dcarried[-peepholes:]), 1)
                sums.add("ch", _ALL, dpeepholes, np.ones((len(dpeepholes), 1), dy.dtype))
            dz_x, dz_h = np.concatenate(rounded(da), 1), np.concatenate(rounded(db), 1)[:, :outer]
            sums.add("ih", _ALL, dz_x, x[t, rows])
            sums.add("hh", slice(0, outer), dz_h, step.recurrent)
            dx[t, rows] = product(dz_x, w["weight_ih"].T)
            drecurrent = product(dz_h, w["weight_hh"][:outer].T)
            if self._cell.carries == "h":
                drecurrent = accumulated(drecurrent, rounded(dcarried)[0])
            before = (drecurrent, *rounded(dcarried)) if self._cell.carries == "c" else (drecurrent,)
            dstate = _with_rows(dstate, rows, before)
        return sums.result(), dx, dstate

    def states(self, tape: Any, steps: int, reverse: bool) -> State:
        x, kept = tape
        found = tuple(np.zeros((steps, x.shape[1], part.shape[1]), part.dtype) for part in kept[0].new)
        for step in kept:
            for part, new in zip(found, step.new, strict=True):
                part[step.t, step.rows] = new
        return found

    def _gates(self, z: np.ndarray) -> tuple[np.ndarray, ...]:
        size = self._hidden_size
        return tuple(z[:, first : first + size] for first in range(0, z.shape[1], size))

    def _carried(self, state: State, w: Params) -> tuple[np.ndarray, ...]:
        """The state that the equations read, (B, H), and peephole weights, each (1, H)."""
        peepholes = tuple(w["weight_ch"].reshape(-1, 1, self._hidden_size)) if self._cell.peepholes else _NO_VALUES
        return {None: _NO_VALUES, "h": state[:1], "c": state[1:]}[self._cell.carries] + peepholes


def _of_rows(state: State, rows: Rows) -> State:
    return tuple(part[rows] for part in state)


def _with_rows(state: State, rows: Rows, new: State) -> State:
    """The state with ``new`` in these rows; ``state`` itself is kept, because the tape refers to it."""
    if rows is _ALL:
        return new
    copies = tuple(part.copy() for part in state)
    for copy, part in zip(copies, new, strict=True):
        copy[rows] = part
    return copies


@checked_load
def load(
    spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None, arithmetic: Arithmetic | None = None
) -> Network:
    """Build the network; ``arithmetic`` replaces the rounding operations (used to derive tolerances)."""
    dtype, narrow = spec.numpy_dtype, spec.dtype in NARROW
    arithmetic = arithmetic or (Narrow(dtype) if narrow else Arithmetic())
    layer = Layer(spec, arithmetic)
    arrays = NumpyArrays(dtype) if narrow else ArithmeticArrays(dtype, arithmetic)
    limits = together(numpy_errors, blas_limits(threads))
    return StackedNetwork(spec, params, InFloat32(layer, dtype) if narrow else layer, arrays, np.ndarray, limits)


def parts(dtype: str, *, threads: int | None = None, arithmetic: Arithmetic | None = None) -> NumpyParts:
    """Return the parts of models; ``arithmetic`` replaces the rounding operations."""
    return NumpyParts(dtype, threads, arithmetic)


def info() -> dict[str, Any]:
    return {"numpy": np.__version__, "device": "cpu"} | blas_info()
