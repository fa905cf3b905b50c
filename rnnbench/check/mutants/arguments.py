# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in reading arguments: memory layouts, extreme values, empty sequences, and missing checks."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import (
    Mutant,
    Planted,
    in_arguments,
    in_arithmetic,
    in_cotangents,
    in_gradients,
    in_network,
    in_results,
    in_weights,
    zeros,
)
from rnnbench.networks.contract import State

Change = Callable[[np.ndarray], np.ndarray]


def memory_order(array: np.ndarray) -> np.ndarray:
    """Read the elements in memory order, as if that were C order."""
    return array.ravel("K").reshape(array.shape)


def strides_ignored(array: np.ndarray) -> np.ndarray:
    """Read the array as if it were contiguous."""
    contiguous = np.empty_like(array, order="C").strides
    if min(array.strides, default=0) <= 0:
        return array  # the contiguous range may lie outside the array's memory
    return np.lib.stride_tricks.as_strided(array, strides=contiguous)


def negative_strides_read_forward(array: np.ndarray) -> np.ndarray:
    return np.flip(array, tuple(axis for axis, stride in enumerate(array.strides) if stride < 0))


def start_of_the_base(array: np.ndarray) -> np.ndarray:
    """Read a view from the start of its base array."""
    base = array.base
    if not isinstance(base, np.ndarray) or base.dtype != array.dtype or base.size < array.size:
        return array
    return base.ravel()[: array.size].reshape(array.shape)


def reading_x(change: Change) -> Planted:
    return in_arguments(lambda spec, x, state: (change(x), state))


def reading_state(change: Change) -> Planted:
    return in_arguments(lambda spec, x, state: (x, tuple(change(part) for part in state)))


def reading_dy(change: Change) -> Planted:
    return in_cotangents(lambda spec, dy, dstate: (change(dy), dstate))


def reading_dstate(change: Change) -> Planted:
    return in_cotangents(lambda spec, dy, dstate: (dy, tuple(change(part) for part in dstate)))


def read_only_refused(array: np.ndarray) -> np.ndarray:
    if not array.flags.writeable:
        raise ValueError("buffer source array is read-only")
    return array


def negative_strides_refused(array: np.ndarray) -> np.ndarray:
    if min(array.strides, default=0) < 0:
        raise ValueError("some of the strides are negative")
    return array


class WeightsInMemoryOrder(Planted):
    def load(self, spec: Any, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Any:
        return super().load(spec, {name: memory_order(value) for name, value in params.items()}, threads=threads)


_LAYOUTS: dict[str, Planted] = {
    "elman: x in Fortran order misread": reading_x(memory_order),
    "elman: strides of x ignored": reading_x(strides_ignored),
    "elman: negative strides of x read forward": reading_x(negative_strides_read_forward),
    "lstm: state in Fortran order misread": reading_state(memory_order),
    "lstm: strides of the state ignored": reading_state(strides_ignored),
    "gru: dy in Fortran order misread": reading_dy(memory_order),
    "gru: strides of dy ignored": reading_dy(strides_ignored),
    "gru: negative strides of dy read forward": reading_dy(negative_strides_read_forward),
    "gru: dstate in Fortran order misread": reading_dstate(memory_order),
    "gru: a view of a longer dy read from its base": reading_dy(start_of_the_base),
    "elman: weights in Fortran order misread": WeightsInMemoryOrder(),
    "elman: y in memory batch first": in_results(lambda spec, y, final: (y.swapaxes(0, 1).reshape(y.shape), final)),
    "elman: y returned batch first": in_results(lambda spec, y, final: (y.swapaxes(0, 1), final)),
    "elman: y in float64": in_results(lambda spec, y, final: (y.astype("float64"), final)),
    "elman: gradients in float64": in_gradients(
        lambda spec, grads: grads._replace(params={name: g.astype("float64") for name, g in grads.params.items()})
    ),
    "elman: a gradient missing": in_gradients(
        lambda spec, grads: grads._replace(params={n: g for n, g in grads.params.items() if not n.startswith("bias_hh")})
    ),
}

_REFUSING: dict[str, Planted] = {
    "elman: read-only x refused": reading_x(read_only_refused),
    "elman: x with negative strides refused": reading_x(negative_strides_refused),
    "elman: read-only dy refused": reading_dy(read_only_refused),
}


def naive_sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(z) / (1 + np.exp(z))


def naive_tanh(z: np.ndarray) -> np.ndarray:
    return (np.exp(2 * z) - 1) / (np.exp(2 * z) + 1)


def tanh_of_difference(z: np.ndarray) -> np.ndarray:
    return (np.exp(z) - np.exp(-z)) / (np.exp(z) + np.exp(-z))


def flushed(array: np.ndarray) -> np.ndarray:
    return np.where(abs(array) < np.finfo(array.dtype).tiny, 0, array).astype(array.dtype)


def over_the_batch(right: Any, _: Any, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    """Add zero times the sum over all rows, so that NaN spreads."""
    return right(v, w, bias) + 0 * v.sum()


def cleared(array: np.ndarray) -> np.ndarray:
    return np.nan_to_num(array, nan=0)


def padding_skipped(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    """Repeat the previous y where x is all zeros, as if zeros marked the end of a sequence."""
    y, final, *tape = right(x, state, *lengths)
    for t in range(1, len(x)):
        y[t] = np.where(x[t].any(1, keepdims=True), y[t], y[t - 1])
    return (y, final, *tape)


_EDGE_CASES: dict[str, Planted] = {
    "lstm: sigmoid overflows to NaN": in_arithmetic(sigmoid=lambda right, _, z: naive_sigmoid(z)),
    "gru: tanh overflows to NaN": in_arithmetic(tanh=lambda right, _, z: naive_tanh(z)),
    "elman: tanh is infinity over infinity": in_arithmetic(tanh=lambda right, _, z: tanh_of_difference(z)),
    "elman: subnormal x flushed to zero": reading_x(flushed),
    "elman: NaN in x read as 0": reading_x(cleared),
    "gru: NaN in y returned as 0": in_results(lambda spec, y, final: (cleared(y), final)),
    "lstm: NaN in gradients returned as 0": in_gradients(
        lambda spec, grads: grads._replace(params={n: cleared(g) for n, g in grads.params.items()}, x=cleared(grads.x))
    ),
    "gru: NaN of one row reaches all": in_arithmetic(product=over_the_batch),
    "gru: a step whose x is all zeros is skipped as padding": in_network(_forward=padding_skipped, _record=padding_skipped),
}


def empty_refused(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    if getattr(x, "shape", (1,))[0] == 0:
        raise IndexError("index -1 is out of bounds for axis 0 with size 0")
    return right(x, state, *lengths)


def empty_from_zeros(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    y, final, *tape = right(x, state, *lengths)
    return (y, final if len(x) else zeros(final), *tape)


def empty_of_one_step(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    y, *others = right(x, state, *lengths)
    return (y if len(x) else np.zeros((1, *y.shape[1:]), y.dtype), *others)


def empty_without_dstate(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State | None = None) -> Any:
    grads = right(tape, dy, dstate)
    return grads if len(dy) else grads._replace(state=zeros(grads.state))


_EMPTY: dict[str, Planted] = {
    "lstm: the final state of an empty sequence is zero": in_network(forward=empty_from_zeros, record=empty_from_zeros),
    "lstm: an empty sequence has one y": in_network(forward=empty_of_one_step, record=empty_of_one_step),
    "lstm: an empty sequence loses dstate": in_network(backward=empty_without_dstate),
}


def of_width(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    """Cut or repeat x to the input size."""
    return right(np.take(x, range(net.spec.input_size), 2, mode="wrap") if getattr(x, "ndim", 0) == 3 else x, state, *lengths)


def of_dtype(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    return right(x.astype(net.spec.dtype) if isinstance(x, np.ndarray) else x, state, *lengths)


def of_one_row(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    """Use the first row of a state with another batch size for every row."""
    if state is not None and all(getattr(part, "ndim", 0) == 3 and part.shape[1] != x.shape[1] for part in state):
        state = tuple(np.repeat(part[:, :1], x.shape[1], 1) for part in state)
    return right(x, state, *lengths)


def of_length(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State | None = None) -> Any:
    """Cut or repeat dy to the number of steps of the tape."""
    steps = getattr(tape, "steps", 0)
    return right(tape, np.resize(dy, (steps, *dy.shape[1:])) if steps and getattr(dy, "ndim", 0) == 3 else dy, dstate)


def used_again(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State | None = None) -> Any:
    content = getattr(tape, "content", None)
    kept = (content[0], [(x, list(steps)) for x, steps in content[1]]) if isinstance(content, tuple) else content
    grads = right(tape, dy, dstate)
    tape.content = kept
    return grads


def of_any_network(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State | None = None) -> Any:
    if hasattr(tape, "network"):
        tape.network = net
    return right(tape, dy, dstate)


def filled(right: Any, net: Any, params: Any) -> None:
    """Replace missing weights by zeros."""
    shapes = net.spec.param_shapes()
    right({name: params.get(name, np.zeros(shape, net.spec.dtype)) for name, shape in shapes.items()})


def reshaped(right: Any, net: Any, params: Any) -> None:
    """Accept weights of any shape with the right number of elements."""
    shapes = net.spec.param_shapes()
    fit = {name: value.reshape(shapes[name]) for name, value in params.items() if value.size == np.prod(shapes.get(name, ()))}
    right(dict(params) | fit)


_CONTRACT: dict[str, Planted] = {
    "gru: x of any width accepted": in_network(forward=of_width, record=of_width),
    "gru: x of any dtype accepted": in_network(forward=of_dtype, record=of_dtype),
    "gru: a state of another batch accepted": in_network(forward=of_one_row, record=of_one_row),
    "gru: dy of any length accepted": in_network(backward=of_length),
    "gru: a tape can be used twice": in_network(backward=used_again),
    "gru: another network's tape accepted": in_network(backward=of_any_network),
    "gru: missing weights are zeros": in_network(update=filled),
    "gru: weights of another shape accepted": in_network(update=reshaped),
}

MUTANTS = [
    Mutant(name, area, (name.partition(":")[0],), backend)
    for area, backends in {"layouts": _LAYOUTS, "edge cases": _EDGE_CASES, "contract": _CONTRACT | _EMPTY}.items()
    for name, backend in backends.items()
]
MUTANTS += [
    Mutant(name, "layouts", (name.partition(":")[0],), backend, raises=ValueError) for name, backend in _REFUSING.items()
]
MUTANTS += [
    Mutant(
        "lstm: an empty sequence raises",
        "contract",
        ("lstm",),
        in_network(forward=empty_refused, record=empty_refused),
        raises=IndexError,
    ),
    Mutant(
        "gru: weights kept in float64",
        "forward",
        ("gru",),
        in_weights(lambda spec, params: {name: value.astype("float64") for name, value in params.items()}),
    ),
]
