# a bug takes the arguments of what it stands in for
"""How a bug is planted: the reference as a backend, in which one piece is wrapped by a function that makes it wrong.

Such a function gets the right method first and the object that it belongs to second, then the call's own arguments.
Nothing global is changed, so the reference stays right while a mutant of it runs.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from rnnbench.networks.arrays import NumpyArrays
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.threads import blas_limits

reference = reference_backend()

AREAS = (
    *("forward", "bptt", "truncation", "state", "layers", "directions"),
    *("layouts", "threads", "sizes", "widths", "calls", "extremes", "contract"),
)


class Mutant(NamedTuple):
    """A backend with one bug.  ``name`` says what is wrong; ``cells`` are those on whose trials it is to be found.

    ``tbptt``: what replaces ``rnnbench.tbptt`` while the mutant runs, for bugs of the loop over windows.
    ``raises``: the class of what it raises on right input, if that is the bug.
    """

    name: str
    area: str
    cells: tuple[str, ...]
    backend: Any
    tbptt: Callable[..., Any] | None = None
    raises: type[Exception] | None = None


class MutantNetwork(StackedNetwork):
    """A network of a mutant, to be told from the reference's."""


class Planted:
    """``numpy_ref`` with its arithmetic, its layer in one direction or the network around the layers replaced."""

    def __init__(
        self, *, arithmetic: Any = reference.Arithmetic, layer: Any = reference.Layer, network: Any = MutantNetwork
    ) -> None:
        self._arithmetic, self._layer, self._network = arithmetic, layer, network

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Any:
        layer = self._layer(spec, self._arithmetic())
        return self._network(spec, params, layer, NumpyArrays(spec.numpy_dtype), np.ndarray, blas_limits(threads))

    def __getattr__(self, name: str) -> Any:
        return getattr(reference, name)


def wrapped(kind: Any, **methods: Callable[..., Any]) -> Any:
    """A subclass in which ``methods(right, self, *arguments)`` stand around those of the same names."""

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


def in_forward_equation(change: Callable[..., tuple[np.ndarray, ...]]) -> Planted:
    """``change(a, b, carried, new, saved)`` gives the new state values; each is a tuple as in ``rnnbench.networks.cells``."""

    def equations(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
        known = right(cell, nonlinearity)

        def forward(a: Any, b: Any, carried: Any) -> Any:
            new, saved = known.forward(a, b, carried)
            return change(a, b, carried, new, saved), saved

        return known._replace(forward=forward)

    return in_arithmetic(equations=equations)


def in_backward_equation(change: Callable[..., tuple[Any, Any, Any]]) -> Planted:
    """``change(saved, carried, dnew, dinner, da, db, dcarried)`` gives the last three, wrong."""

    def equations(right: Any, arithmetic: Any, cell: Any, nonlinearity: str) -> Any:
        known = right(cell, nonlinearity)

        def backward(saved: Any, carried: Any, dnew: Any, dinner: Any) -> Any:
            return change(saved, carried, dnew, dinner, *known.backward(saved, carried, dnew, dinner))

        return known._replace(backward=backward)

    return in_arithmetic(equations=equations)


def in_weights(change: Callable[[Spec, Params], Params]) -> Planted:
    """``change(spec, params)`` gives what the layers read instead of the weights."""
    return in_network(_set_params=lambda right, net, params: right(params | change(net.spec, params)))


def in_arguments(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, x, state)`` gives what runs forward and records read instead."""

    def run(right: Any, net: Any, x: np.ndarray, state: State) -> Any:
        return right(*change(net.spec, x, state))

    return in_network(_forward=run, _record=run)


def in_results(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, y, final)`` gives what runs forward and records return instead."""

    def run(right: Any, net: Any, x: np.ndarray, state: State) -> Any:
        y, final, *tape = right(x, state)
        return (*change(net.spec, y, final), *tape)

    return in_network(_forward=run, _record=run)


def in_cotangents(change: Callable[..., tuple[np.ndarray, State]]) -> Planted:
    """``change(spec, dy, dstate)`` gives what BPTT reads instead."""
    return in_network(_backward=lambda right, net, tape, dy, dstate: right(tape, *change(net.spec, dy, dstate)))


def in_gradients(change: Callable[[Spec, Gradients], Gradients]) -> Planted:
    """``change(spec, grads)`` gives what BPTT returns instead."""
    return in_network(_backward=lambda right, net, tape, dy, dstate: change(net.spec, right(tape, dy, dstate)))


def replaced(array: np.ndarray, index: Any, value: Any = 0) -> np.ndarray:
    """A copy in which the elements at ``index`` are others, by default zeros."""
    array = array.copy()
    array[index] = value
    return array


def zeros(state: State) -> State:
    return tuple(np.zeros_like(part) for part in state)


def each_gate(spec: Spec, weights: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Weights (G*H, size) in which the rows of every gate are changed by themselves."""
    return np.concatenate([change(rows) for rows in np.split(weights, len(spec.kind.gates))])
