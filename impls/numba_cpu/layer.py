"""One layer in one direction: packing, buffers and the tape around the compiled loops."""

from typing import NamedTuple

import numpy as np

from rnnbench.backend import State
from rnnbench.impls.numba_cpu.compile import kernels_for
from rnnbench.params import Params
from rnnbench.spec import Spec

_BLOCK_BYTES = 1 << 19
"""Gate pre-activations of one input product: as many time steps as fit, so that they are still in cache when read."""

_PLAIN = ("C", "W")
"""What the compiled code takes; Numba would compile all of it again for read-only arrays, which are copied instead."""


class Weights(NamedTuple):
    """A layer's parameters as the loops read them: hh split into outer and inner gates; zeros where there is no bias."""

    weight_ih: np.ndarray
    weight_outer: np.ndarray
    weight_inner: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    weight_ho: np.ndarray
    bias_ho: np.ndarray


class Tape(NamedTuple):
    """What BPTT reads; shapes in ``kernels``."""

    x: np.ndarray
    recurrent: np.ndarray
    memory: np.ndarray
    saved: np.ndarray
    operands: np.ndarray
    hidden: np.ndarray


class Layer:
    """Single-layer functions (``rnnbench.stack.LayerFunctions``) of one Spec."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._cell = spec, spec.kind
        self._outer_rows = spec.kind.outer_gates * spec.hidden_size
        self._kernels = kernels_for(spec.cell, spec.nonlinearity, spec.numpy_dtype)

    def pack(self, params: Params) -> Weights:
        rows = params["weight_hh"].shape[0]
        zeros = np.zeros(rows, self._spec.numpy_dtype)
        bias_hh = params.get("bias_hh", zeros)
        weight_ho = params.get("weight_ho", np.zeros((0, self._spec.hidden_size), self._spec.numpy_dtype))
        return Weights(
            params["weight_ih"],
            params["weight_hh"][: self._outer_rows],
            params["weight_hh"][self._outer_rows :],
            params.get("bias_ih", zeros),
            bias_hh[: self._outer_rows],
            bias_hh[self._outer_rows :],
            weight_ho,
            params.get("bias_ho", np.zeros(len(weight_ho), self._spec.numpy_dtype)),
        )

    def forward(self, weights: Weights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State]:
        y, final, _ = self._run(weights, x, state, reverse, kept_steps=1)
        return y, final

    def record(self, weights: Weights, x: np.ndarray, state: State, reverse: bool) -> tuple[np.ndarray, State, Tape]:
        return self._run(weights, x, state, reverse, kept_steps=len(x))

    def backward(
        self, weights: Weights, tape: Tape, dy: np.ndarray, dstate: State, reverse: bool
    ) -> tuple[Params, np.ndarray, State]:
        drecurrent = np.array(dstate[0], order="C")
        dmemory = np.array(dstate[1], order="C") if self._cell.carries == "c" else drecurrent
        dx = np.empty_like(tape.x)
        gradients = Weights(*(np.zeros_like(value) for value in weights))
        self._kernels.backward(
            *tape[:1], weights, *tape[1:], np.require(dy, requirements=_PLAIN), drecurrent, dmemory, reverse, (dx, *gradients)
        )
        return self._unpacked(gradients), dx, (drecurrent, dmemory)[: len(dstate)]

    def _run(
        self, weights: Weights, x: np.ndarray, state: State, reverse: bool, kept_steps: int
    ) -> tuple[np.ndarray, State, Tape]:
        x = np.require(x, requirements=_PLAIN)
        steps, batch, _ = x.shape
        cell, size, dtype = self._cell, self._spec.hidden_size, x.dtype
        rows = kept_steps + 1
        recurrent = np.empty((rows, batch, self._spec.state_size), dtype)
        memory = np.empty((rows if cell.carries == "c" else 1, batch, size), dtype)
        saved = np.empty((kept_steps, batch, cell.saved * size), dtype)
        operands = np.empty((kept_steps if cell.inner_gates else 1, batch, size), dtype)
        hidden = np.empty((kept_steps if cell.feeds_back_output else 1, batch, size), dtype)
        y = np.empty((steps, batch, self._spec.state_size), dtype)
        first, last = (steps % rows, 0) if reverse else (0, steps % rows)
        for buffer, part in zip((recurrent, memory), state, strict=False):
            buffer[first] = part
        block = max(1, min(steps, _BLOCK_BYTES // (batch * len(cell.gates) * size * dtype.itemsize)))
        self._kernels.forward(x, weights, recurrent, memory, saved, operands, hidden, y, reverse, block)
        final = tuple(buffer[last].copy() for buffer, _ in zip((recurrent, memory), state, strict=False))
        return y, final, Tape(x, recurrent, memory, saved, operands, hidden)

    def _unpacked(self, g: Weights) -> Params:
        found = {"weight_ih": g.weight_ih, "weight_hh": np.concatenate([g.weight_outer, g.weight_inner])}
        if self._spec.bias:
            found |= {"bias_ih": g.bias_ih, "bias_hh": np.concatenate([g.bias_outer, g.bias_inner])}
        if self._cell.feeds_back_output:
            found |= {"weight_ho": g.weight_ho} | ({"bias_ho": g.bias_ho} if self._spec.bias else {})
        return found
