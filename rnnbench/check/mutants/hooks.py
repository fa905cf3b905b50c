"""Hooks for planting bugs: the reference as a backend with one method wrapped by a faulty function.

The faulty function gets the correct method, its object, and then the arguments of the call.  Nothing global changes, so the
reference stays correct while a mutant runs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.training import Tools
from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.threads import blas_limits

reference = reference_backend()
Parts: Any = type(reference.parts("float32"))

AREAS = (
    *("forward", "bptt", "truncation", "state", "layers", "directions"),
    *("layouts", "threads", "sizes", "widths", "calls", "edge cases", "contract", "lengths", "models", "streams", "states"),
)


class Mutant(NamedTuple):
    """A backend with one bug.

    ``name``: the bug.  ``area``: one of AREAS.  ``cells``: the cells whose trials must find it.
    ``tbptt``: a replacement for ``rnnbench.tbptt`` while the mutant runs, for bugs in the loop over windows.
    ``raises``: the exception class, if the bug is an exception on valid input.
    ``tools``: what trains models while the mutant runs, for bugs in models and optimisers.
    """

    name: str
    area: str
    cells: tuple[str, ...]
    backend: Any
    tbptt: Callable[..., Any] | None = None
    raises: type[Exception] | None = None
    tools: Tools | None = None


class MutantNetwork(StackedNetwork):
    """A network of a mutant; the class distinguishes it from the reference's."""


class Planted:
    """``numpy_ref`` with another arithmetic, single-direction layer, network, or parts of models."""

    def __init__(
        self,
        *,
        arithmetic: Any = reference.Arithmetic,
        layer: Any = reference.Layer,
        network: Any = MutantNetwork,
        parts: Any = Parts,
    ) -> None:
        self._arithmetic, self._layer, self._network, self._parts = arithmetic, layer, network, parts

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Any:
        layer = self._layer(spec, self._arithmetic())
        return self._network(spec, params, layer, NumpyArrays(spec.numpy_dtype), np.ndarray, blas_limits(threads))

    def parts(self, dtype: str, *, threads: int | None = None) -> Any:
        return self._parts(dtype, threads)

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)


def wrapped(kind: Any, **methods: Callable[..., Any]) -> Any:
    """Return a subclass whose methods call ``methods[name](right, self, *arguments)``; ``right`` is the original method."""

    def around(name: str, wrong: Callable[..., Any]) -> Callable[..., Any]:
        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            right = functools.partial(getattr(kind, name), self)
            return wrong(right, self, *arguments, **options)

        return method

    return type("Wrong", (kind,), {name: around(name, wrong) for name, wrong in methods.items()})


def in_arithmetic(**methods: Callable[..., Any]) -> Planted:
    return Planted(arithmetic=wrapped(reference.Arithmetic, **methods))


def in_layer(**methods: Callable[..., Any]) -> Planted:
    return Planted(layer=wrapped(reference.Layer, **methods))


def in_network(**methods: Callable[..., Any]) -> Planted:
    return Planted(network=wrapped(MutantNetwork, **methods))


def in_parts(**methods: Callable[..., Any]) -> Planted:
    return Planted(parts=wrapped(Parts, **methods))


def in_forward_equation(change: Callable[..., tuple[np.ndarray, ...]]) -> Planted:
    """``change(a, b, carried, new, saved)`` returns the new state values; all are tuples as in ``rnnbench.networks.cells``."""

    def equations(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
        known = right(cell, nonlinearity)

        def forward(a: Any, b: Any, carried: Any) -> Any:
            new, saved = known.forward(a, b, carried)
            return change(a, b, carried, new, saved), saved

        return known._replace(forward=forward)

    return in_arithmetic(equations=equations)


def in_backward_equation(change: Callable[..., tuple[Any, Any, Any]]) -> Planted:
    """``change(saved, carried, dnew, dinner, da, db, dcarried)`` returns wrong values for the last three."""

    def equations(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
        known = right(cell, nonlinearity)

        def backward(saved: Any, carried: Any, dnew: Any, dinner: Any) -> Any:
            return change(saved, carried, dnew, dinner, *known.backward(saved, carried, dnew, dinner))

        return known._replace(backward=backward)

    return in_arithmetic(equations=equations)


def in_weights(change: Callable[[Spec, Params], Params]) -> Planted:
    """``change(spec, params)`` returns the weights that the layers read instead."""
    return in_network(_set_params=lambda right, net, params: right(params | change(net.spec, params)))


def in_arguments(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, x, state)`` returns the arguments that forward and record read instead."""

    def run(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
        return right(*change(net.spec, x, state), *lengths)

    return in_network(_forward=run, _record=run)


def in_results(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, y, final)`` returns the results of forward and record."""

    def run(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
        y, final, *tape = right(x, state, *lengths)
        return (*change(net.spec, y, final), *tape)

    return in_network(_forward=run, _record=run)


def in_cotangents(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, dy, dstate)`` returns the cotangents that BPTT reads instead."""
    return in_network(_backward=lambda right, net, tape, dy, dstate: right(tape, *change(net.spec, dy, dstate)))


def in_gradients(change: Callable[[Spec, Gradients], Gradients]) -> Planted:
    """``change(spec, grads)`` returns the results of BPTT."""
    return in_network(_backward=lambda right, net, tape, dy, dstate: change(net.spec, right(tape, dy, dstate)))


def replaced(array: np.ndarray, index: Any, value: Any = 0) -> np.ndarray:
    """Copy an array and set the elements at ``index``, by default to zero."""
    array = array.copy()
    array[index] = value
    return array


def zeros(state: State) -> State:
    return tuple(np.zeros_like(part) for part in state)


def each_gate(spec: Spec, weights: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Apply ``change`` to the rows of each gate of weights (G*H, size)."""
    return np.concatenate([change(rows) for rows in np.split(weights, len(spec.kind.gates))])
