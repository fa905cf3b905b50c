"""Layers and directions, once for all backends that bring functions for a single layer in one direction."""

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from rnnbench.arrays import Arrays
from rnnbench.backend import Array, Gradients, State
from rnnbench.network import CheckedNetwork
from rnnbench.params import Params
from rnnbench.spec import Spec
from rnnbench.threads import Limits


class LayerFunctions(Protocol):
    """One layer in one direction.  x (T, B, I), y (T, B, H), each part of a state (B, H), O instead of H for jordan.

    With ``reverse`` the recurrence runs from the last time step to the first and the final state is the one after step 0.
    All results are new arrays.
    """

    def pack(self, params: Params, /) -> Any:
        """Put one layer's parameters (named without suffix) into the form that the other functions read."""
        ...

    def forward(self, weights: Any, x: Array, state: State, reverse: bool, /) -> tuple[Array, State]: ...

    def record(self, weights: Any, x: Array, state: State, reverse: bool, /) -> tuple[Array, State, Any]: ...

    def backward(
        self, weights: Any, tape: Any, dy: Array, dstate: State, reverse: bool, /
    ) -> tuple[dict[str, Array], Array, State]:
        """Gradients of the parameters (named without suffix), of x and of the initial state."""
        ...


class StackedNetwork(CheckedNetwork):
    """A deep, possibly bidirectional network made of single-layer functions."""

    def __init__(
        self,
        spec: Spec,
        params: Mapping[str, np.ndarray],
        layers: LayerFunctions,
        arrays: Arrays,
        array_type: type,
        limits: Limits = contextlib.nullcontext,
    ) -> None:
        self._layers, self.arrays, self.array_type = layers, arrays, array_type
        super().__init__(spec, params, limits)

    def _set_params(self, params: Params) -> None:
        names = self.spec.layer_shapes(0)
        self._weights = [self._layers.pack({n: params[n + suffix] for n in names}) for suffix in self.spec.suffixes()]

    def _forward(self, x: Array, state: State) -> tuple[Array, State]:
        finals = []
        for layer in range(self.spec.num_layers):
            outputs = []
            for index, reverse in self._directions(layer):
                y, final = self._layers.forward(self._weights[index], x, _part(state, index), reverse)
                outputs.append(y)
                finals.append(final)
            x = self._joined(outputs)
        return x, self._stacked(finals)

    def _record(self, x: Array, state: State) -> tuple[Array, State, Any]:
        finals, tapes = [], []
        for layer in range(self.spec.num_layers):
            outputs = []
            for index, reverse in self._directions(layer):
                y, final, tape = self._layers.record(self._weights[index], x, _part(state, index), reverse)
                outputs.append(y)
                finals.append(final)
                tapes.append(tape)
            x = self._joined(outputs)
        return x, self._stacked(finals), (self._weights, tapes)

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        weights, tapes = content
        suffixes, size = self.spec.suffixes(), self.spec.state_size
        grads: dict[str, Array] = {}
        initial: list[State] = [()] * len(suffixes)
        for layer in reversed(range(self.spec.num_layers)):
            dx = None
            for index, reverse in self._directions(layer):
                first = (index % self.spec.directions) * size
                part = dy if self.spec.directions == 1 else dy[:, :, first : first + size]
                g, dx_part, initial[index] = self._layers.backward(
                    weights[index], tapes[index], part, _part(dstate, index), reverse
                )
                tapes[index] = None
                grads |= {name + suffixes[index]: value for name, value in g.items()}
                dx = dx_part if dx is None else self.arrays.add(dx, dx_part)
            dy = dx
        return Gradients({name: grads[name] for name in self.spec.param_shapes()}, dy, self._stacked(initial))

    def _directions(self, layer: int) -> list[tuple[int, bool]]:
        """(index into states and weights, runs backwards in time) of each direction of a layer."""
        first = layer * self.spec.directions
        return [(first + direction, direction == 1) for direction in range(self.spec.directions)]

    def _joined(self, outputs: list[Array]) -> Array:
        return outputs[0] if len(outputs) == 1 else self.arrays.concat(outputs, 2)

    def _stacked(self, states: list[State]) -> State:
        return tuple(
            self.arrays.concat([part.reshape((1, *part.shape)) for part in parts], 0) for parts in zip(*states, strict=True)
        )


def _part(state: State, index: int) -> State:
    return tuple(array[index] for array in state)
