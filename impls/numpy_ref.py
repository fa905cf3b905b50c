"""The reference implementation: read this one first.  A plain loop over time steps, in NumPy.

Arrays are numpy.ndarray of any memory order.  The equations come from ``rnnbench.networks.cells``; layers and directions from
``rnnbench.networks.stacked``.  What stands here is one layer in one direction: the matrix products around the elementwise
equations, forward in time and, for the gradients, back.  Speed is no aim.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls._host import InFloat32, asarray, supports, synchronize, to_numpy
from rnnbench.networks.arrays import NumpyArrays, numpy_errors
from rnnbench.networks.cells import Activations, Cell, Equations
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import NARROW, Spec
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.threads import blas_info, blas_limits, together

__all__ = ["Arithmetic", "Layer", "asarray", "info", "load", "supports", "synchronize", "to_numpy"]

_NO_VALUES: tuple[np.ndarray, ...] = ()


BLOCK = 64
"""Time steps whose weight gradients are added up by one product."""


class Arithmetic:
    """The rounding operations of the loop.  Another class with these methods gives other arithmetic: the gate's tolerances."""

    def equations(self, cell: Cell, nonlinearity: str) -> Equations:
        return cell.equations(Activations(self.tanh, self.sigmoid, self.relu, self.relu_slope), nonlinearity)

    def tanh(self, z: np.ndarray) -> np.ndarray:
        return np.tanh(z)

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        # exp of a non-positive number only: no overflow, full relative accuracy in both tails
        return np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z)))

    def relu(self, z: np.ndarray) -> np.ndarray:
        return np.maximum(z, 0)

    def relu_slope(self, h: np.ndarray) -> np.ndarray:
        return np.sign(h)

    def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        """v @ w.T + bias, where w is a part of the network's weights"""
        return v @ w.T if bias is None else v @ w.T + bias

    def outer(self, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
        """cotangents.T @ operands: the gradient of weights that read ``operands``, (rows, size) each"""
        return cotangents.T @ operands

    def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
        """total + term"""
        return total + term

    def summed(self, total: np.ndarray, term: np.ndarray, rows: int, steps: int) -> np.ndarray:
        """total + term, where the term is itself a sum over so many rows, of so many time steps"""
        return total + term

    def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Values that an elementwise equation has just computed."""
        return values


class Narrow(Arithmetic):
    """On float32 arrays that hold numbers of a narrow dtype: each result is rounded to one, a product after its sums."""

    def __init__(self, dtype: np.dtype) -> None:
        self._dtype = dtype

    def tanh(self, z: np.ndarray) -> np.ndarray:
        return self._nearest(super().tanh(z))

    def sigmoid(self, z: np.ndarray) -> np.ndarray:
        return self._nearest(super().sigmoid(z))

    def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        return self._nearest(super().product(v, w, bias))

    def outer(self, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
        return self._nearest(super().outer(cotangents, operands))

    def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
        return self._nearest(super().accumulated(total, term))

    def summed(self, total: np.ndarray, term: np.ndarray, rows: int, steps: int) -> np.ndarray:
        return self._nearest(super().summed(total, term, rows, steps))

    def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(self._nearest(value) for value in values)

    def _nearest(self, values: np.ndarray) -> np.ndarray:
        return values.astype(self._dtype).astype(np.float32)


class Step(NamedTuple):
    """What one time step keeps for BPTT; all (B, size).  ``operand`` is the second product's, ``hidden`` jordan's h."""

    t: int
    recurrent: np.ndarray
    carried: tuple[np.ndarray, ...]
    saved: tuple[np.ndarray, ...]
    operand: np.ndarray | None
    hidden: np.ndarray


class Layer:
    """One layer in one direction (``rnnbench.networks.stacked.LayerFunctions``)."""

    def __init__(self, spec: Spec, arithmetic: Arithmetic) -> None:
        self._cell, self._hidden_size, self._arithmetic = spec.kind, spec.hidden_size, arithmetic
        self._equations = arithmetic.equations(spec.kind, spec.nonlinearity)

    def pack(self, params: Params) -> Params:
        return params

    def forward(self, w: Params, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State]:
        y = np.empty((*x.shape[:2], state[0].shape[1]), x.dtype)
        x = np.ascontiguousarray(x)  # NumPy may sum a row of negative strides in another order
        for t in _times(len(x), reverse):
            state, _ = self._step(w, t, x[t], state)
            y[t] = state[0]
        return y, state

    def record(self, w: Params, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State, Any]:
        y = np.empty((*x.shape[:2], state[0].shape[1]), x.dtype)
        x, state = np.ascontiguousarray(x), tuple(part.copy() for part in state)  # the tape must not refer to the state
        steps = []
        for t in _times(len(x), reverse):
            state, step = self._step(w, t, x[t], state)
            y[t] = state[0]
            steps.append(step)
        return y, state, (x, steps)

    def _step(self, w: Params, t: int, x: np.ndarray, state: State) -> tuple[State, Step]:
        product, rounded = self._arithmetic.product, self._arithmetic.rounded
        outer = self._cell.outer_gates * self._hidden_size
        recurrent, bias = state[0], w.get("bias_hh")
        carried = self._carried(state)
        a = self._gates(product(x, w["weight_ih"], w.get("bias_ih")))
        b = self._gates(product(recurrent, w["weight_hh"][:outer], None if bias is None else bias[:outer]))
        operand = None
        if self._equations.inner:
            (operand,) = rounded((self._equations.inner(a, b, carried),))
            b += self._gates(product(operand, w["weight_hh"][outer:], None if bias is None else bias[outer:]))
        new, saved = self._equations.forward(a, b, carried)
        new = rounded(new)
        hidden = new[0]
        if self._cell.feeds_back_output:
            new = (product(hidden, w["weight_ho"], w.get("bias_ho")),)
        return new, Step(t, recurrent, carried, saved, operand, hidden)

    def backward(self, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> tuple[Params, np.ndarray, State]:
        product, accumulated, rounded = self._arithmetic.product, self._arithmetic.accumulated, self._arithmetic.rounded
        x, steps = tape
        outer = self._cell.outer_gates * self._hidden_size
        sums = _WeightGradients(self._arithmetic, w, dy.dtype)
        dx = np.empty_like(x)
        everything = slice(None)
        while steps:
            step = steps.pop()
            dnew = (accumulated(dstate[0], dy[step.t]), *dstate[1:])
            if self._cell.feeds_back_output:
                sums.add("ho", everything, dnew[0], step.hidden)
                dnew = (product(dnew[0], w["weight_ho"].T),)
            dinner = _NO_VALUES
            if self._equations.inner_backward:
                db_inner = np.concatenate(rounded(self._equations.inner_backward(step.saved, step.carried, dnew)), 1)
                dinner = (product(db_inner, w["weight_hh"][outer:].T),)
                sums.add("hh", slice(outer, None), db_inner, step.operand)
            da, db, dcarried = self._equations.backward(step.saved, step.carried, dnew, dinner)
            dz_x, dz_h = np.concatenate(rounded(da), 1), np.concatenate(rounded(db), 1)[:, :outer]
            sums.add("ih", everything, dz_x, x[step.t])
            sums.add("hh", slice(0, outer), dz_h, step.recurrent)
            dx[step.t] = product(dz_x, w["weight_ih"].T)
            drecurrent = product(dz_h, w["weight_hh"][:outer].T)
            if self._cell.carries == "h":
                drecurrent = accumulated(drecurrent, rounded(dcarried)[0])
            dstate = (drecurrent, *rounded(dcarried)) if self._cell.carries == "c" else (drecurrent,)
        return sums.result(), dx, dstate

    def _gates(self, z: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.split(z, z.shape[1] // self._hidden_size, 1))

    def _carried(self, state: State) -> tuple[np.ndarray, ...]:
        return {None: _NO_VALUES, "h": state[:1], "c": state[1:]}[self._cell.carries]


class _WeightGradients:
    """Sums over time of what each step adds to the gradients of the weights and biases, a block of steps at a time."""

    def __init__(self, arithmetic: Arithmetic, weights: Params, dtype: np.dtype) -> None:
        self._arithmetic = arithmetic
        self._sums = {name: np.zeros(value.shape, dtype) for name, value in weights.items()}
        self._pending: dict[tuple[str, int | None, int | None], list[tuple[np.ndarray, np.ndarray]]] = {}

    def add(self, layer: str, rows: slice, cotangent: np.ndarray, operand: np.ndarray) -> None:
        """One step's cotangents (B, rows) of weights that read ``operand`` (B, size)."""
        key = (layer, rows.start, rows.stop)
        steps = self._pending.setdefault(key, [])
        steps.append((cotangent, operand))
        if len(steps) == BLOCK:
            self._add_block(key)

    def result(self) -> Params:
        for key in list(self._pending):
            self._add_block(key)
        return self._sums

    def _add_block(self, key: tuple[str, int | None, int | None]) -> None:
        layer, start, stop = key
        steps = self._pending.pop(key)
        cotangents, operands = (np.concatenate(parts) for parts in zip(*steps, strict=True))
        ones = np.ones((len(cotangents), 1), cotangents.dtype)
        for name, what in (("weight", operands), ("bias", ones)):
            if f"{name}_{layer}" in self._sums:
                total = self._sums[f"{name}_{layer}"][start:stop]
                term = self._arithmetic.outer(cotangents, what).reshape(total.shape)
                total[...] = self._arithmetic.summed(total, term, len(cotangents), len(steps))


class _Arrays(NumpyArrays):
    """Arrays whose sums are the arithmetic's."""

    def __init__(self, dtype: np.dtype, arithmetic: Arithmetic) -> None:
        super().__init__(dtype)
        self._arithmetic = arithmetic

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with numpy_errors():
            return self._arithmetic.accumulated(a, b)


def _times(steps: int, reverse: bool) -> Iterator[int]:
    return reversed(range(steps)) if reverse else iter(range(steps))


@checked_load
def load(
    spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None, arithmetic: Arithmetic | None = None
) -> Network:
    """Build the network; ``arithmetic`` replaces the rounding operations (the gate uses it)."""
    dtype, narrow = spec.numpy_dtype, spec.dtype in NARROW
    arithmetic = arithmetic or (Narrow(dtype) if narrow else Arithmetic())
    layer = Layer(spec, arithmetic)
    arrays = NumpyArrays(dtype) if narrow else _Arrays(dtype, arithmetic)
    limits = together(numpy_errors, blas_limits(threads))
    return StackedNetwork(spec, params, InFloat32(layer, dtype) if narrow else layer, arrays, np.ndarray, limits)


def info() -> dict[str, Any]:
    return {"numpy": np.__version__, "device": "cpu"} | blas_info()
