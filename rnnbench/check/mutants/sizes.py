# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs that only some sizes show: tails of blocks, sizes of 1, and equal sizes."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.gradients import detached_after
from rnnbench.check.mutants.hooks import (
    Mutant,
    Planted,
    in_arguments,
    in_arithmetic,
    in_gradients,
    in_layer,
    in_network,
    in_results,
    in_weights,
    replaced,
    zeros,
)
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


def tail(size: int, block: int) -> slice:
    """The elements that a loop over whole blocks leaves out; none if there is less than one block."""
    return slice(size // block * block if size >= block else size, None)


def units_left_out(block: int) -> Planted:
    """Do not update the hidden units after the last whole block."""

    def step(right: Any, layer: Any, w: Params, t: int, rows: Any, x: np.ndarray, state: State) -> Any:
        new, kept = right(w, t, rows, x, state)
        left_out = tail(new[0].shape[1], block)
        for before, after in zip(state, new, strict=True):
            after[:, left_out] = before[:, left_out]
        return new, kept

    return in_layer(_step=step)


def columns_left_out(tensor: str, block: int) -> Planted:
    """Leave out the columns of a gradient after the last whole block."""

    def change(spec: Spec, grads: Any) -> Any:
        wrong = {
            n: replaced(g, (slice(None), tail(g.shape[1], block))) for n, g in grads.params.items() if n.startswith(tensor)
        }
        return grads._replace(params=grads.params | wrong)

    return in_gradients(change)


def products_without_tail(block: int) -> Planted:
    """End dot products with the last whole block."""

    def product(right: Any, _: Any, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
        return right(replaced(v, (slice(None), tail(v.shape[1], block))), w, bias)

    return in_arithmetic(product=product)


def rows_left_out(block: int) -> Planted:
    """Return zeros for y of the batch rows after the last whole block."""
    return in_results(lambda spec, y, final: (replaced(y, (slice(None), tail(y.shape[1], block))), final))


def gradient_rows_left_out(block: int) -> Planted:
    """Leave out batch rows after the last whole block from the weights' gradients."""

    def outer(right: Any, _: Any, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
        return right(replaced(cotangents, tail(len(cotangents), block)), operands)

    return in_arithmetic(outer=outer)


def where(condition: Callable[[int, int], bool], change: Callable[..., Any]) -> Planted:
    """Call ``change(right, tape, dy, dstate)`` instead of BPTT if ``condition(T, B)`` holds."""

    def backward(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
        return change(right, tape, dy, dstate) if condition(*dy.shape[:2]) else right(tape, dy, dstate)

    return in_network(_backward=backward)


def without_dstate(right: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
    return right(tape, dy, zeros(dstate))


def without_last_dy(right: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
    return right(tape, replaced(dy, -1), dstate)


def inputs_beyond_hidden(spec: Spec, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    """Read rows of x into a buffer as wide as the hidden state."""
    return replaced(x, (slice(None), slice(None), slice(spec.hidden_size, None))), state


def square_input_weights_transposed(spec: Spec, params: Params) -> Params:
    """Guess from the shape whether weights are stored as (I, G*H): with I = H both layouts fit each gate."""
    rows = spec.hidden_size
    return {
        name: w.reshape(-1, rows, rows).swapaxes(1, 2).reshape(w.shape)
        for name, w in params.items()
        if name.startswith("weight_ih") and w.shape[1] == rows
    }


def guessed_batch_first(spec: Spec, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    return x.swapaxes(0, 1) if x.shape[0] == x.shape[1] else x, state


def guessed_state_batch_first(spec: Spec, x: np.ndarray, state: State) -> tuple[np.ndarray, State]:
    parts, batch, _ = state[0].shape
    return x, tuple(part.swapaxes(0, 1) for part in state) if parts == batch else state


def third_layer_s_weights(spec: Spec, params: Params) -> Params:
    """Alternate two sets of weights: from the third on, each layer reads those of two layers before, if they fit."""
    moved = {}
    for layer in range(3, spec.num_layers + 1):
        for name in spec.layer_shapes(layer - 1):
            to, of = f"{name}_l{layer - 1}", f"{name}_l{layer - 3}"
            if params[to].shape == params[of].shape:
                moved[to] = params[of]
    return moved


def squeezed(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    """Treat the weights of a single unit as a scalar and leave out its recurrent product."""
    return right(x, zeros(state) if net.spec.hidden_size == 1 else state, *lengths)


_SIZES: dict[str, Planted] = {
    "lstm: hidden units beyond a multiple of 8 left out": units_left_out(8),
    "lstm: hidden units beyond a multiple of 16 left out": units_left_out(16),
    "lstm: hidden units beyond a multiple of 32 left out": units_left_out(32),
    "gru: gradient of U without columns beyond a multiple of 16": columns_left_out("weight_hh", 16),
    "gru: gradient of W without columns beyond a multiple of 8": columns_left_out("weight_ih", 8),
    "gru: dot products end at a multiple of 16": products_without_tail(16),
    "elman: batch rows beyond a multiple of 4 left out": rows_left_out(4),
    "elman: batch rows beyond a multiple of 64 left out": rows_left_out(64),
    "elman: gradients leave out rows beyond a multiple of 64": gradient_rows_left_out(64),
    "elman: dy of the last step missing where B = 1": where(lambda steps, batch: batch == 1, without_last_dy),
    "elman: dy of the last step missing where T is odd": where(lambda steps, batch: steps % 2 == 1, without_last_dy),
    "elman: dy of the last step missing where T is even": where(lambda steps, batch: steps % 2 == 0, without_last_dy),
    "elman: dy of the last step missing where T > 64": where(lambda steps, batch: steps > 64, without_last_dy),
    "elman: dstate missing where T = 1": where(lambda steps, batch: steps == 1, without_dstate),
    "lstm: gradient cut every 64 steps": detached_after(64),
    "lstm: inputs beyond H left out": in_arguments(inputs_beyond_hidden),
    "lstm: H = 1 without its initial state": in_network(_forward=squeezed, _record=squeezed),
    "gru: input weights transposed where I = H": in_weights(square_input_weights_transposed),
    "gru: x taken for batch first where T = B": in_arguments(guessed_batch_first),
    "gru: state taken for batch first where L*D = B": in_arguments(guessed_state_batch_first),
    "gru: third layer has the first one's weights": in_weights(third_layer_s_weights),
}

MUTANTS = [Mutant(name, "sizes", (name.partition(":")[0],), backend) for name, backend in _SIZES.items()]
