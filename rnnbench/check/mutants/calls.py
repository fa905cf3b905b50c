# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs that a single call does not show: in later calls, updated weights, threads and shared arrays."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, MutantNetwork, Planted, in_layer, in_network, reference, replaced, wrapped
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


def gradients_added_up(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Gradients:
    """Never clear the buffers of the weights' gradients."""
    grads = right(tape, dy, dstate)
    before = net.__dict__.get("sums")
    net.sums = {name: value + before[name] for name, value in grads.params.items()} if before else grads.params
    return grads._replace(params={name: value.copy() for name, value in net.sums.items()})


def from_the_last_state(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    """Start from the final state of the last call, if it has the same batch size."""
    last = net.__dict__.get("last", state)
    y, net.last, *tape = right(x, last if last[0].shape == state[0].shape else state, *lengths)
    return (y, net.last, *tape)


def none_for_the_last_state(right: Any, net: Any, x: np.ndarray, state: State | None = None, *lengths: Any) -> Any:
    """Without a state, start from the final state of the last call, if it has the same batch size."""
    last = net.__dict__.get("last")
    carried = state is None and last and last[0].shape[1] == x.shape[1]
    y, net.last, *tape = right(x, last if carried else state, *lengths)
    return (y, net.last, *tape)


def every_third_wrong(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    """Return a wrong element in every third call, like a race between threads."""
    y, *others = right(x, state, *lengths)
    net.runs = net.__dict__.get("runs", 0) + 1
    return (y if net.runs % 3 else replaced(y, (-1, -1, -1)), *others)


class OneTape(MutantNetwork):
    """Every backward uses the tape of the latest record."""

    def _record(self, x: np.ndarray, state: State, *lengths: Any) -> Any:
        y, final, self._latest = super()._record(x, state, *lengths)
        return y, final, None

    def _backward(self, content: Any, dy: np.ndarray, dstate: State) -> Gradients:
        weights, tapes = self._latest
        return super()._backward((weights, [(x, list(steps)) for x, steps in tapes]), dy, dstate)


def own(net: Any, name: str, array: np.ndarray) -> np.ndarray:
    """Copy results into a buffer of the network, by name and shape, that every call overwrites."""
    kept = net.__dict__.setdefault(f"{name} {array.shape}", np.empty(array.shape, array.dtype))
    kept[...] = array
    return kept


def own_x(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    return right(own(net, "x", x), state, *lengths)


def own_y(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    y, *others = right(x, state, *lengths)
    return (own(net, "y", y), *others)


def own_final(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    y, final, *tape = right(x, state, *lengths)
    return (y, tuple(own(net, f"final {place}", part) for place, part in enumerate(final)), *tape)


def own_gradients(right: Any, net: Any, *arguments: Any) -> Gradients:
    grads = right(*arguments)
    return grads._replace(params={name: own(net, name, value) for name, value in grads.params.items()})


def own_dx(right: Any, net: Any, *arguments: Any) -> Gradients:
    grads = right(*arguments)
    return grads._replace(x=own(net, "dx", grads.x))


def tape_of_the_caller_s_state(
    right: Any, layer: Any, w: Params, x: np.ndarray, state: State, reverse: bool, *lengths: Any
) -> Any:
    """The tape's first step refers to the caller's state instead of a copy."""
    y, final, (x, steps) = right(w, x, state, reverse, *lengths)
    return y, final, (x, [steps[0]._replace(recurrent=state[0][steps[0].rows]), *steps[1:]])


def tape_of_y(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, reverse: bool, *lengths: Any) -> Any:
    """The tape refers to the y that was returned to the caller, unless sequences have lengths."""
    y, final, (x, steps) = right(w, x, state, reverse, *lengths)
    if lengths:
        return y, final, (x, steps)
    before = [step.t for step in steps[:-1]]
    rest = [step._replace(recurrent=y[t]) for t, step in zip(before, steps[1:], strict=True)]
    return y, final, (x, [steps[0], *rest])


def update_keeping(kept: Callable[[str], bool]) -> Planted:
    """Keep the values of ``load`` for the parameters whose name satisfies ``kept``."""

    def set_params(right: Any, net: Any, params: Params) -> None:
        first = net.__dict__.setdefault("first", params)
        right({name: (first if kept(name) else params)[name] for name in params})

    return in_network(_set_params=set_params)


def with_new_weights(right: Any, net: Any, content: Any, dy: np.ndarray, dstate: State) -> Gradients:
    """BPTT reads the current weights instead of those of the tape."""
    return right((net._weights, content[1]), dy, dstate)


def remember_load(right: Any, net: Any, params: Params) -> None:
    net.__dict__.setdefault("of_load", params)
    right(params)


def params_of_load(right: Any, net: Any) -> Params:
    return {name: value.copy() for name, value in net.of_load.items()}


def keep_the_caller_s(right: Any, net: Any, params: Mapping[str, np.ndarray]) -> None:
    """The network refers to the caller's arrays instead of copies."""
    right(params)
    net._params = dict(params)
    net._set_params(net._params)


def into_x(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    results = right(x, state, *lengths)
    x *= 2
    return results


def into_state(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    results = right(x, state, *lengths)
    state[0][...] = results[1][0]
    return results


def into_dy(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
    results = right(tape, dy, dstate)
    dy[-1] += 1
    return results


def into_dstate(right: Any, net: Any, tape: Any, dy: np.ndarray, dstate: State) -> Any:
    results = right(tape, dy, dstate)
    dstate[0][...] = results.state[0]
    return results


class Threaded(Planted):
    """A bug that appears only with more than one thread."""

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Any:
        right = Planted().load(spec, params, threads=threads)
        return super().load(spec, params, threads=threads) if threads is not None and threads > 1 else right


def second_half_left_out(right: Any, _: Any, cotangents: np.ndarray, operands: np.ndarray) -> np.ndarray:
    """The second thread's partial sums are lost."""
    return right(replaced(cotangents, slice(len(cotangents) // 2, None)), operands)


def last_row_left_out(right: Any, net: Any, x: np.ndarray, state: State, *lengths: Any) -> Any:
    """Rows are divided into equal parts, and the remainder is not computed."""
    y, final, *tape = right(x, state, *lengths)
    return (replaced(y, (slice(None), slice(y.shape[1] // 2 * 2, None))), final, *tape)


def last_row_of_dx_left_out(right: Any, net: Any, *arguments: Any) -> Any:
    grads = right(*arguments)
    return grads._replace(x=replaced(grads.x, (slice(None), slice(grads.x.shape[1] // 2 * 2, None))))


class SpoilsY(reference.Layer):
    """BPTT uses the y returned by record as its workspace."""

    def record(self, *arguments: Any) -> Any:
        y, final, tape = super().record(*arguments)
        return y, final, (tape, y)

    def backward(self, w: Params, tape: Any, *rest: Any) -> Any:
        (tape, y) = tape
        results = super().backward(w, tape, *rest)
        y[...] = 0
        return results


_CALLS: dict[str, Planted] = {
    "gru: weights' gradients added to those of the calls before": in_network(_backward=gradients_added_up),
    "lstm: a call goes on from the last one's state": in_network(_forward=from_the_last_state, _record=from_the_last_state),
    "lstm: without a state a call goes on from the last one's": in_network(
        forward=none_for_the_last_state, record=none_for_the_last_state
    ),
    "elman: every third call spoils the last element of y": in_network(_forward=every_third_wrong, _record=every_third_wrong),
    "gru: the latest tape serves every backward": Planted(network=OneTape),
    "lstm: all tapes share one copy of x": in_network(_record=own_x),
    "elman: y is overwritten by the next call": in_network(_forward=own_y),
    "lstm: the final state is overwritten by the next record": in_network(_record=own_final),
    "elman: weights' gradients are overwritten by the next backward": in_network(_backward=own_gradients),
    "elman: dx is overwritten by the next backward": in_network(_backward=own_dx),
    "gru: the tape refers to the caller's state": in_layer(record=tape_of_the_caller_s_state),
    "gru: the tape refers to the caller's y": in_layer(record=tape_of_y),
    "elman: an update keeps the old biases": update_keeping(lambda name: name.startswith("bias")),
    "gru: an update keeps the old recurrent weights": update_keeping(lambda name: name.startswith("weight_hh")),
    "lstm: an update reaches the first layer alone": update_keeping(lambda name: "_l0" not in name),
    "lstm: an update leaves the reverse direction as it was": update_keeping(lambda name: name.endswith("_reverse")),
    "jordan: an update changes nothing": update_keeping(lambda name: True),
    "gru: a tape is read with the weights of a later update": in_network(_backward=with_new_weights),
    "elman: params() are those of load after an update": in_network(_set_params=remember_load, params=params_of_load),
    "elman: params() are the network's own arrays": in_network(params=lambda right, net: net._params),
    "elman: the network reads the caller's own weights": in_network(update=keep_the_caller_s),
    "elman: x overwritten": in_network(_forward=into_x, _record=into_x),
    "gru: initial state overwritten": in_network(_forward=into_state, _record=into_state),
    "gru: dy overwritten": in_network(_backward=into_dy),
    "lstm: dstate overwritten": in_network(_backward=into_dstate),
    "lstm: forward alone ignores the initial state": in_network(
        _forward=lambda right, net, x, state, *lengths: right(x, tuple(np.zeros_like(part) for part in state), *lengths)
    ),
    "lstm: record alone leaves out the last step's y": in_network(
        _record=lambda right, net, *arguments: (lambda y, *rest: (replaced(y, -1), *rest))(*right(*arguments))
    ),
    "lstm: backward zeroes the y that record returned": Planted(layer=SpoilsY),
}


_THREADS: dict[str, Planted] = {
    "lstm: two threads leave out an odd row": Threaded(
        network=wrapped(MutantNetwork, _forward=last_row_left_out, _record=last_row_left_out)
    ),
    "gru: two threads leave an odd row of dx out": Threaded(network=wrapped(MutantNetwork, _backward=last_row_of_dx_left_out)),
    "lstm: two threads lose one's share of the gradients": Threaded(
        arithmetic=wrapped(reference.Arithmetic, outer=second_half_left_out)
    ),
}

MUTANTS = [
    Mutant(name, area, (name.partition(":")[0],), backend)
    for area, backends in {"calls": _CALLS, "threads": _THREADS}.items()
    for name, backend in backends.items()
]
