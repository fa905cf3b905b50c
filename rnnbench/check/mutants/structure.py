# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in the structure of a network: in states, between layers, and between directions."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import (
    Mutant,
    MutantNetwork,
    Planted,
    in_arguments,
    in_cotangents,
    in_gradients,
    in_layer,
    in_network,
    in_results,
    in_weights,
    reference,
    replaced,
    wrapped,
    zeros,
)
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


def initial_state(change: Callable[[Spec, State], State]) -> Planted:
    return in_arguments(lambda spec, x, state: (x, change(spec, state)))


def initial_parts(change: Callable[[Spec, np.ndarray], np.ndarray]) -> Planted:
    """Change each part of the initial state."""
    return initial_state(lambda spec, state: tuple(change(spec, part) for part in state))


def final_parts(change: Callable[[Spec, np.ndarray], np.ndarray]) -> Planted:
    return in_results(lambda spec, y, final: (y, tuple(change(spec, part) for part in final)))


def dstate_parts(change: Callable[[Spec, np.ndarray], np.ndarray]) -> Planted:
    return in_cotangents(lambda spec, dy, dstate: (dy, tuple(change(spec, part) for part in dstate)))


def gradient_parts(change: Callable[[Spec, np.ndarray], np.ndarray]) -> Planted:
    """Change each part of the initial state's gradient."""
    return in_gradients(lambda spec, grads: grads._replace(state=tuple(change(spec, part) for part in grads.state)))


def batch_first(spec: Spec, part: np.ndarray) -> np.ndarray:
    """Read the memory of (L*D, B, H) as (B, L*D, H)."""
    parts, batch, size = part.shape
    return part.reshape(batch, parts, size).swapaxes(0, 1)


def layers_reversed(spec: Spec, part: np.ndarray) -> np.ndarray:
    return part[::-1]


def directions_swapped(spec: Spec, part: np.ndarray) -> np.ndarray:
    return part.reshape(spec.num_layers, spec.directions, *part.shape[1:])[:, ::-1].reshape(part.shape)


def halves_swapped(array: np.ndarray) -> np.ndarray:
    return np.concatenate(np.split(array, 2, 2)[::-1], 2)


def final_one_step_early(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    y, _, *tape = right(x, state, *lengths)
    return (y, right(x[:-1], state, *lengths)[1] if len(x) > 1 else state, *tape)


def final_of_the_last_step(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, *others: Any) -> Any:
    """Take the reverse direction's final state at the last time step, which is its own first step."""
    y, final, *tape = right(w, x, state, *others)
    return (y, (y[-1], *final[1:]), *tape)


def reversed_alike(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, reverse: bool, *lengths: Any) -> Any:
    """Leave the reverse direction's y in the order in which its steps ran."""
    y, *others = right(w, x, state, reverse, *lengths)
    return (y[::-1], *others) if reverse else (y, *others)


def never_reversed(right: Any, layer: Any, *arguments: Any) -> Any:
    return right(*(False if argument is True else argument for argument in arguments))


def for_reverse(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    """Change dx of the reverse direction."""

    def backward(right: Any, layer: Any, *arguments: Any) -> Any:
        grads, dx, initial = right(*arguments)
        return grads, change(dx) if arguments[-1] else dx, initial

    return in_layer(backward=backward)


def between(change: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Planted:
    """``change(x, y)`` returns the input of each layer above the first.

    ``x``: the input of the network.  ``y``: the output of the layer below.
    """

    class Between(MutantNetwork):
        def _forward(self, x: np.ndarray, *others: Any) -> Any:
            self._x, self._done = x, 0
            return super()._forward(x, *others)

        def _record(self, x: np.ndarray, *others: Any) -> Any:
            self._x, self._done = x, 0
            return super()._record(x, *others)

        def _joined(self, outputs: list[np.ndarray]) -> np.ndarray:
            self._done += 1
            joined = super()._joined(outputs)
            return joined if self._done == self.spec.num_layers else change(self._x, joined)

    return Planted(network=Between)


def fitted(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Repeat x to the width of y, like reading a buffer with another width."""
    return np.take(x, range(y.shape[2]), 2, mode="wrap")


def from_layer_below(spec: Spec, params: Params) -> Params:
    """Take the recurrent weights and biases, which have the same shapes in every layer, from another layer."""
    suffixes = spec.suffixes()
    moved = zip(suffixes, suffixes[spec.directions :] + suffixes[: spec.directions], strict=True)
    return {f"{name}{to}": params[f"{name}{of}"] for to, of in moved for name in spec.layer_shapes(0) if name != "weight_ih"}


def keep_dy(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
    net._layers.of_y = dy
    return right(tape, dy, dstate)


def add_dy(right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> Any:
    below = dy is not layer.of_y and dy.shape == layer.of_y.shape
    return right(w, tape, dy + layer.of_y if below else dy, dstate, reverse)


def of_the_other_direction(spec: Spec, grads: Params) -> Params:
    if not spec.bidirectional:
        return {}
    return {name: grads[name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse"] for name in grads}


_STATE = {
    "lstm: initial state ignored": initial_state(lambda spec, state: zeros(state)),
    "lstm: initial c ignored": initial_state(lambda spec, state: (state[0], np.zeros_like(state[1]))),
    "lstm: initial h ignored": initial_state(lambda spec, state: (np.zeros_like(state[0]), state[1])),
    "lstm: initial h and c swapped": initial_state(lambda spec, state: state[::-1]),
    "lstm: initial state of the first layer for all": initial_parts(lambda spec, part: part[:1].repeat(len(part), 0)),
    "lstm: initial state of the layers above the first ignored": initial_parts(
        lambda spec, part: replaced(part, slice(spec.directions, None))
    ),
    "lstm: final h returned for c": in_results(lambda spec, y, final: (y, (final[0], final[0]))),
    "lstm: final h and c swapped": in_results(lambda spec, y, final: (y, final[::-1])),
    "lstm: final c returned as tanh(c)": in_results(lambda spec, y, final: (y, (final[0], np.tanh(final[1])))),
    "gru: final state is that of one step before": in_network(_forward=final_one_step_early, _record=final_one_step_early),
    "gru: final state is the initial one": in_network(
        _forward=lambda right, net, x, state, *lengths: (right(x, state, *lengths)[0], state),
        _record=lambda right, net, x, state, *lengths: (lambda y, _, tape: (y, state, tape))(*right(x, state, *lengths)),
    ),
    "gru: final state of the batch rows reversed": final_parts(lambda spec, part: part[:, ::-1]),
    "gru: state's memory read batch first": initial_parts(batch_first),
    "gru: final state's memory written batch first": final_parts(batch_first),
    "jordan: initial y ignored": initial_state(lambda spec, state: zeros(state)),
}

_LAYERS = {
    "elman: initial states of the layers the other way round": initial_parts(layers_reversed),
    "elman: final states of the layers the other way round": final_parts(layers_reversed),
    "elman: final state of the last layer for all": final_parts(lambda spec, part: part[-1:].repeat(len(part), 0)),
    "elman: dstate of the layers the other way round": dstate_parts(layers_reversed),
    "elman: dstate of the last layer alone": dstate_parts(lambda spec, part: replaced(part, slice(0, -1))),
    "elman: initial states' gradients of the layers the other way round": gradient_parts(layers_reversed),
    "elman: recurrent weights of the other layer": in_weights(from_layer_below),
    "elman: second layer reads x": between(fitted),
    "elman: second layer reads the first one's y one step late": between(lambda x, y: np.roll(y, 1, 0)),
    "elman: relu between the layers": between(lambda x, y: np.maximum(y, 0)),
    "elman: a tenth less between the layers, as dropout leaves": between(lambda x, y: y * y.dtype.type(0.9)),
    "elman: dy added at every layer": Planted(
        network=wrapped(MutantNetwork, _backward=keep_dy), layer=wrapped(reference.Layer, backward=add_dy)
    ),
}

_DIRECTIONS = {
    "lstm: directions joined the other way round": in_network(_joined=lambda right, net, outputs: right(outputs[::-1])),
    "lstm: directions added up, not joined": in_network(
        _joined=lambda right, net, outputs: right([sum(outputs)] * len(outputs))
    ),
    "lstm: initial states of the directions swapped": initial_parts(directions_swapped),
    "lstm: final states of the directions swapped": final_parts(directions_swapped),
    "lstm: dstate of the directions swapped": dstate_parts(directions_swapped),
    "lstm: initial states' gradients of the directions swapped": gradient_parts(directions_swapped),
    "gru: reverse direction's y in the order of its steps": in_layer(forward=reversed_alike, record=reversed_alike),
    "gru: reverse direction runs forward": in_layer(forward=never_reversed, record=never_reversed, backward=never_reversed),
    "gru: reverse direction's final state is that at its first step": in_layer(
        forward=final_of_the_last_step, record=final_of_the_last_step
    ),
    "gru: reverse direction has the forward one's weights": in_weights(
        lambda spec, params: {name: params[name.removesuffix("_reverse")] for name in params}
    ),
    "gru: dy of the directions swapped": in_cotangents(
        lambda spec, dy, dstate: (halves_swapped(dy) if spec.bidirectional else dy, dstate)
    ),
    "gru: dx without the reverse direction's part": for_reverse(np.zeros_like),
    "gru: dx of the reverse direction reversed in time": for_reverse(lambda dx: dx[::-1]),
    "gru: weights' gradients of the directions swapped": in_gradients(
        lambda spec, grads: grads._replace(params=grads.params | of_the_other_direction(spec, grads.params))
    ),
}


MUTANTS = [
    Mutant(name, area, (name.partition(":")[0],), backend)
    for area, backends in {"state": _STATE, "layers": _LAYERS, "directions": _DIRECTIONS}.items()
    for name, backend in backends.items()
]
