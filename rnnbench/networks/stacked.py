"""Deep and bidirectional networks made of single-layer functions, shared by all backends that provide such functions."""

import contextlib
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from rnnbench.networks.arrays import Arrays
from rnnbench.networks.checked import CheckedNetwork
from rnnbench.networks.contract import Array, Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec
from rnnbench.networks.threads import Limits


class LayerFunctions(Protocol):
    """The functions of one layer in one direction.

    x is (T, B, I), y is (T, B, H), each part of a state is (B, H); O instead of H for jordan.
    With ``reverse`` the recurrence runs from the last time step to the first, and the final state is that after step 0.
    All results are new arrays.

    ``takes_lengths``, an optional attribute: whether ``forward`` and ``record`` take the lengths of the rows, int64 (B,), as a
    last argument.  They get it only where some row is shorter than T; the tape then says so to ``backward``.

    ``states(tape, T, reverse)``, an optional function, returns the states after every step, each part (T, B, H) in the order of
    time, with zeros where a row has no step.
    """

    def pack(self, params: Params, /) -> Any:
        """Convert one layer's parameters, named without suffix, to the form that the other functions read."""
        ...

    def forward(self, weights: Any, x: Array, state: State, reverse: bool, lengths: Any = None, /) -> tuple[Array, State]: ...

    def record(
        self, weights: Any, x: Array, state: State, reverse: bool, lengths: Any = None, /
    ) -> tuple[Array, State, Any]: ...

    def backward(
        self, weights: Any, tape: Any, dy: Array, dstate: State, reverse: bool, /
    ) -> tuple[dict[str, Array], Array, State]:
        """Return the gradients of the parameters, named without suffix, of x and of the initial state."""
        ...


Runner = Callable[[Sequence[Callable[[], Any]], int, int], list[Any]]
"""``runner(calls, T, B)`` runs the calls of one layer's directions and returns their results in order."""


def one_by_one(calls: Sequence[Callable[[], Any]], steps: int, batch: int) -> list[Any]:
    return [call() for call in calls]


class StackedNetwork(CheckedNetwork):
    """A deep, possibly bidirectional network made of single-layer functions; ``runner`` may run directions in parallel."""

    def __init__(
        self,
        spec: Spec,
        params: Mapping[str, np.ndarray],
        layers: LayerFunctions,
        arrays: Arrays,
        array_type: type,
        limits: Limits = contextlib.nullcontext,
        runner: Runner = one_by_one,
    ) -> None:
        self._layers, self.arrays, self.array_type, self._runner = layers, arrays, array_type, runner
        self.takes_lengths, self.keeps_states = getattr(layers, "takes_lengths", False), hasattr(layers, "states")
        super().__init__(spec, params, limits)

    def _set_params(self, params: Params) -> None:
        names = self.spec.layer_shapes(0)
        self._weights = [self._layers.pack({n: params[n + suffix] for n in names}) for suffix in self.spec.suffixes()]

    def _forward(self, x: Array, state: State, lengths: np.ndarray | None = None) -> tuple[Array, State]:
        finals = []
        for layer in range(self.spec.num_layers):
            outputs, found = zip(*self._run(layer, self._layers.forward, x, state, lengths), strict=True)
            finals += found
            x = self._joined(outputs)
        return x, self._stacked(finals)

    def _record(self, x: Array, state: State, lengths: np.ndarray | None = None) -> tuple[Array, State, Any]:
        finals, tapes = [], []
        for layer in range(self.spec.num_layers):
            outputs, found, kept = zip(*self._run(layer, self._layers.record, x, state, lengths), strict=True)
            finals += found
            tapes += kept
            x = self._joined(outputs)
        return x, self._stacked(finals), (self._weights, tapes)

    def _backward(self, content: Any, dy: Array, dstate: State) -> Gradients:
        weights, tapes = content
        suffixes, size = self.spec.suffixes(), self.spec.state_size
        grads: dict[str, Array] = {}
        initial: list[State] = [()] * len(suffixes)
        for layer in reversed(range(self.spec.num_layers)):
            calls, sequence = [], dy.shape[:2]
            for (index, reverse), part in zip(self._directions(layer), _parts(dy, self.spec.directions, size), strict=True):
                arguments = (weights[index], tapes[index], part, _part(dstate, index), reverse)
                calls.append(functools.partial(self._layers.backward, *arguments))
                tapes[index] = None
            dx = None
            results = self._runner(calls, *sequence)
            for (index, _), (g, dx_part, before) in zip(self._directions(layer), results, strict=True):
                initial[index] = before
                grads |= {name + suffixes[index]: value for name, value in g.items()}
                dx = dx_part if dx is None else self.arrays.add(dx, dx_part)
            dy = dx
        return Gradients({name: grads[name] for name in self.spec.param_shapes()}, dy, self._stacked(initial))

    def _states(self, content: Any, steps: int) -> State:
        _, tapes = content
        layers: Any = self._layers
        directions = itertools.cycle((False, True)[: self.spec.directions])
        return self._stacked([layers.states(tape, steps, reverse) for tape, reverse in zip(tapes, directions, strict=False)])

    def _directions(self, layer: int) -> list[tuple[int, bool]]:
        """For each direction of a layer: its index into states and weights, and whether it runs backward in time."""
        first = layer * self.spec.directions
        return [(first + direction, direction == 1) for direction in range(self.spec.directions)]

    def _run(self, layer: int, function: Callable[..., Any], x: Array, state: State, lengths: np.ndarray | None) -> list[Any]:
        """Run ``forward`` or ``record`` for each direction of a layer."""
        shorter = () if lengths is None else (lengths,)
        calls = [
            functools.partial(function, self._weights[index], x, _part(state, index), reverse, *shorter)
            for index, reverse in self._directions(layer)
        ]
        return self._runner(calls, *x.shape[:2])

    def _joined(self, outputs: Sequence[Array]) -> Array:
        return outputs[0] if len(outputs) == 1 else self.arrays.concat(outputs, 2)

    def _stacked(self, states: list[State]) -> State:
        return tuple(
            self.arrays.concat([part.reshape((1, *part.shape)) for part in parts], 0) for parts in zip(*states, strict=True)
        )


def _part(state: State, index: int) -> State:
    return tuple(array[index] for array in state)


def _parts(dy: Array, directions: int, size: int) -> list[Array]:
    return [dy] if directions == 1 else [dy[:, :, :size], dy[:, :, size:]]
