"""Truncated backpropagation through time for any Network."""

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.arrays import Arrays, arrays_of
from rnnbench.networks.contract import Array, Gradients, Network, State
from rnnbench.networks.lengths import checked_lengths

Cut = Callable[[Array, int, int], Array]
"""``cut(sequence, start, stop)`` returns the steps from ``start`` up to ``stop``."""

Cotangents = Callable[[Array, int], Array]
"""``cotangents(y, first)`` returns the cotangents of the outputs y (steps, B, D*H) from step ``first`` on."""


def tbptt(
    net: Network,
    x: Array,
    dy: Array | Cotangents,
    window: int,
    stride: int | None = None,
    state: State | None = None,
    dstate: State | None = None,
    lengths: Any = None,
) -> tuple[Array, State, Gradients]:
    """Run a sequence with truncated BPTT; return y (T, B, D*H), the final state and the summed gradients.

    ``x``: the input (T, B, I).
    ``dy``: the cotangents of y (T, B, D*H), or a function that computes them, for example from a loss.  The function is
    called as ``dy(y, first)`` once per pass, in order of time.  It gets the outputs of the new steps and the index of the
    first one, returns their cotangents, and must not change y.
    ``window`` (k2): the number of steps that a gradient flows back.
    ``stride`` (k1): the number of steps between backward passes, 1 <= stride <= window; by default the window.
    ``state``: the initial state; None means zeros.
    ``dstate``: the cotangent of the final state; None means zeros.
    ``lengths``: the number of steps of each sequence (B,), from 0 to T; None means T for all.  The windows are those of the
    batch; the cotangent of a row's final state enters in the pass in which the row ends.

    Passes run at t = stride, 2*stride, ... and at T.  The pass at t takes the cotangents of the steps since the previous
    pass.  It starts from the exact forward state at step max(0, t - window), as a constant.  The gradients of all passes
    are summed; the initial state's gradient sums only the passes that reach step 0.  For window >= T and stride >= T the
    result equals full BPTT, bit for bit.

    Only one tape of at most ``window`` steps is alive at a time.  A bidirectional network cannot be cut in time; it is
    refused unless one pass covers the sequence.  Raises ArgumentError.
    Williams and Peng 1990, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories".
    """
    window, stride = _check(net, x, dy, window, stride)
    steps = x.shape[0]
    if steps <= stride:
        return _single_pass(net, x, dy, state, dstate, lengths)
    arrays, cut, within = arrays_of(net, x), _cutter(net), _Lengths(lengths, steps, x.shape[1])
    known: dict[int, State | None] = {0: state}
    outputs: list[Array] = []
    total = _GradientSum(arrays, cut)
    previous = 0
    while previous < steps:
        end = min(previous + stride, steps)
        start = max(0, end - window)
        known = _advance(net, x, known, start, cut, within)
        y, final, tape = net.record(cut(x, start, end), known[start], *within.of(start, end))
        if start < previous:  # a view would keep all of y
            y = arrays.concat([cut(y, previous - start, end - start)], 0)
        outputs.append(y)
        cotangent = _cotangents(dy, y, previous) if callable(dy) else cut(dy, previous, end)
        if start < previous:
            before = arrays.zeros((previous - start, *cotangent.shape[1:]))
            cotangent = arrays.concat([before, cotangent], 0)
        grads = net.backward(tape, cotangent, within.of_rows_that_end(dstate, previous, end, arrays))
        del tape, y
        total.add(grads, start, end)
        known[end] = state = final
        previous = end
    return arrays.concat(outputs, 0), state, total.result()  # type: ignore[return-value]  # the loop ran


def _check(net: Any, x: Array, dy: Array | Cotangents, window: int, stride: int | None) -> tuple[int, int]:
    """Check the arguments; return window and stride as Python integers."""
    if isinstance(window, bool) or not isinstance(window, int | np.integer) or window < 1:
        raise ArgumentError(f"window is {window!r}; expected an integer >= 1")
    if stride is None:
        stride = window
    if isinstance(stride, bool) or not isinstance(stride, int | np.integer) or not 1 <= stride <= window:
        raise ArgumentError(f"stride is {stride!r}; expected an integer from 1 to window = {window}")
    if not hasattr(x, "shape"):
        raise ArgumentError(f"x is a {type(x).__name__}; expected an array of the network's backend")
    if len(x.shape) != 3:
        raise ArgumentError(f"x has shape {tuple(x.shape)}; expected (T, B, I)")
    if not callable(dy):
        if not hasattr(dy, "shape"):
            raise ArgumentError(
                f"dy is a {type(dy).__name__}; expected an array of the network's backend, or a function of y and a step"
            )
        if len(dy.shape) != 3 or tuple(x.shape[:2]) != tuple(dy.shape[:2]):
            raise ArgumentError(f"dy has shape {tuple(dy.shape)}; expected (T, B, D*H) with the T and B of x {tuple(x.shape)}")
    # the contract requires no attribute `spec`; without one the network is assumed to have one direction
    if stride < x.shape[0] and getattr(net, "spec", None) and net.spec.bidirectional:
        raise ArgumentError(
            f"window is {window} and stride {stride} for T = {x.shape[0]}; expected both >= T: "
            "a bidirectional network cannot be cut in time"
        )
    return int(window), int(stride)


def _single_pass(
    net: Network, x: Array, dy: Array | Cotangents, state: State | None, dstate: State | None, lengths: Any
) -> tuple[Array, State, Gradients]:
    y, final, tape = net.record(x, state) if lengths is None else net.record(x, state, lengths)
    return y, final, net.backward(tape, _cotangents(dy, y, 0) if callable(dy) else dy, dstate)


def _cotangents(function: Cotangents, y: Array, first: int) -> Array:
    found = function(y, first)
    if type(found) is not type(y) or tuple(found.shape) != tuple(y.shape):
        got = f"shape {tuple(found.shape)}" if hasattr(found, "shape") else f"class {type(found).__name__}"
        raise ArgumentError(
            f"dy(y, {first}) gave a result of {got}; expected a {type(y).__name__} of the shape of y, {tuple(y.shape)}"
        )
    return found


def _cutter(net: Any) -> Cut:
    """Return a function that cuts sequences under the network's own limits, if it has any, whatever the caller has set."""
    limits = getattr(net, "limits", contextlib.nullcontext)

    def cut(sequence: Array, start: int, stop: int) -> Array:
        with limits():
            return sequence[start:stop]

    return cut


class _Lengths:
    """The lengths of a batch, as each pass sees them."""

    def __init__(self, lengths: Any, steps: int, batch: int) -> None:
        self._steps = steps
        self._lengths = None if lengths is None else checked_lengths(lengths, steps, batch)

    def of(self, start: int, end: int) -> tuple[np.ndarray, ...]:
        """The lengths within the steps from start to end, as the last arguments of a call."""
        return () if self._lengths is None else (np.clip(self._lengths - start, 0, end - start),)

    def of_rows_that_end(self, dstate: State | None, previous: int, end: int, arrays: Arrays) -> State | None:
        """The cotangent of the final state, with zeros in all rows that do not end in the steps from previous to end."""
        if self._lengths is None or dstate is None:
            return dstate if end == self._steps else None
        ends = np.maximum(self._lengths, 1)  # a row of no steps belongs to the first pass
        chosen = (previous < ends) & (ends <= end)
        return tuple(_with_rows_of(part, chosen, arrays) for part in dstate) if chosen.any() else None


def _with_rows_of(part: Array, chosen: np.ndarray, arrays: Arrays) -> Array:
    """A state (L*D, B, H) with zeros in the rows that are not chosen."""
    zeros = arrays.zeros((part.shape[0], 1, part.shape[2]))
    return arrays.concat([part[:, row : row + 1] if of_pass else zeros for row, of_pass in enumerate(chosen)], 1)


def _advance(
    net: Network, x: Array, known: dict[int, State | None], step: int, cut: Cut, within: _Lengths
) -> dict[int, State | None]:
    """Add the exact forward state at ``step`` to the known states; drop those that no later pass starts from."""
    nearest = max(position for position in known if position <= step)
    if nearest < step:
        _, known[step] = net.forward(cut(x, nearest, step), known[nearest], *within.of(nearest, step))
    return {position: state for position, state in known.items() if position >= step}


class _GradientSum:
    """Gradients summed over passes; finished steps of dx, which no later pass reaches, are set aside."""

    def __init__(self, arrays: Arrays, cut: Cut) -> None:
        self._arrays, self._cut = arrays, cut
        self._finished: list[Array] = []
        self._total: Gradients | None = None
        self._start = 0

    def add(self, grads: Gradients, start: int, end: int) -> None:
        if self._total is None:
            self._total = grads
            return
        add, cut, done = self._arrays.add, self._cut, self._total
        params = {name: add(value, grads.params[name]) for name, value in done.params.items()}
        state = done.state
        if start == 0:
            state = tuple(add(a, b) for a, b in zip(state, grads.state, strict=True))
        reached = start - self._start
        self._finished.append(self._arrays.concat([cut(done.x, 0, reached)], 0))  # a view would keep all of dx
        overlap = len(done.x) - reached
        parts = [add(cut(done.x, reached, len(done.x)), cut(grads.x, 0, overlap))] if overlap else []
        later = cut(grads.x, overlap, len(grads.x))
        self._total = Gradients(params, self._arrays.concat([*parts, later], 0), state)
        self._start = start

    def result(self) -> Gradients:
        assert self._total is not None
        x = self._arrays.concat([*self._finished, self._total.x], 0)
        return Gradients(self._total.params, x, self._total.state)
