# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs with sequences of different lengths: beyond the lengths, at them, in the order of rows, and in windows."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_layer, in_network, replaced, zeros
from rnnbench.check.mutants.truncation import Loop
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params


def beyond(lengths: np.ndarray, steps: int) -> np.ndarray:
    """Whether a step (T, B) is padding."""
    return np.arange(steps)[:, None] >= lengths


def in_runs(change: Callable[..., Any]) -> Planted:
    """``change(right, w, x, state, reverse, lengths)`` runs one layer where some row is shorter than T.

    ``right`` also runs without lengths.
    """

    def run(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, reverse: bool, *lengths: Any) -> Any:
        return change(right, w, x, state, reverse, *lengths) if lengths else right(w, x, state, reverse)

    return in_layer(forward=run, record=run)


def reading_lengths(change: Callable[[np.ndarray, int], np.ndarray]) -> Planted:
    """``change(lengths, T)`` returns the lengths that each layer reads instead."""
    return in_runs(lambda right, w, x, state, reverse, lengths: right(w, x, state, reverse, change(lengths, len(x))))


def with_y(change: Callable[..., np.ndarray]) -> Planted:
    """``change(y, through, lengths)`` returns a wrong y of a layer; ``through`` is y of a run through the padding."""

    def wrong(right: Any, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray) -> Any:
        y, *others = right(w, x, state, reverse, lengths)
        return (change(y, right(w, x, state, reverse)[0], lengths), *others)

    return in_runs(wrong)


def through_padding(y: np.ndarray, through: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    return np.where(beyond(lengths, len(y))[:, :, None], through, y)


def repeated(y: np.ndarray, through: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Fill y beyond a length with the last one, as a loop does that keeps the states of finished rows."""
    last = y[np.maximum(lengths, 1) - 1, np.arange(len(lengths))]
    return through_padding(y, last, lengths)


def final_at_the_end(right: Any, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray) -> Any:
    y, final, *tape = right(w, x, state, reverse, lengths)
    return (y, final if reverse else right(w, x, state, reverse)[1], *tape)


def final_of_the_last_row(right: Any, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray) -> Any:
    y, final, *tape = right(w, x, state, reverse, lengths)
    return (y, tuple(part[-1:].repeat(len(part), 0) for part in final), *tape)


def reverse_through_padding(right: Any, w: Params, x: np.ndarray, state: State, reverse: bool, lengths: np.ndarray) -> Any:
    """Start the reverse direction in the padding, and clear its y afterwards."""
    if not reverse:
        return right(w, x, state, reverse, lengths)
    y, *others = right(w, x, state, reverse)
    return (replaced(y, beyond(lengths, len(y))), *others)


class Kept(NamedTuple):
    """A tape with the lengths of its rows."""

    tape: Any
    lengths: np.ndarray


def in_bptt(change: Callable[..., Any]) -> Planted:
    """``change(right, w, tape, dy, dstate, reverse, lengths)`` is BPTT of one layer where some row is shorter than T."""

    def record(right: Any, layer: Any, w: Params, x: np.ndarray, state: State, reverse: bool, *lengths: Any) -> Any:
        y, final, tape = right(w, x, state, reverse, *lengths)
        return y, final, Kept(tape, *lengths) if lengths else tape

    def backward(right: Any, layer: Any, w: Params, tape: Any, *others: Any) -> Any:
        return change(right, w, tape.tape, *others, tape.lengths) if isinstance(tape, Kept) else right(w, tape, *others)

    return in_layer(record=record, backward=backward)


Arguments = Any
"""The arguments (w, tape, dy, dstate, reverse) of BPTT of one layer."""


def dx_repeated(right: Any, *arguments: Arguments) -> Any:
    lengths = arguments[-1]
    grads, dx, initial = right(*arguments[:-1])
    return grads, repeated(dx, dx, lengths), initial


def masked_gradients(right: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool, lengths: Any) -> Any:
    """Multiply the padding by zero and add it to the weights' gradients, so that NaN in it spreads."""
    grads, dx, initial = right(w, tape, dy, dstate, reverse)
    padding = beyond(lengths, len(dy))
    nothing = 0 * (dy[padding].sum() + tape[0][padding].sum())
    return {name: value + nothing for name, value in grads.items()}, dx, initial


def dy_beyond(right: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool, lengths: np.ndarray) -> Any:
    """Add dy of the first step beyond a length to the cotangent of the final h."""
    rows = np.flatnonzero(lengths < len(dy))
    leaked = dstate[0].copy()
    leaked[rows] += dy[lengths[rows], rows]
    return right(w, tape, dy, (leaked, *dstate[1:]), reverse)


def dstate_of(chosen: Callable[[np.ndarray, int], np.ndarray]) -> Planted:
    """``chosen(lengths, T)`` tells which rows lose the cotangent of their final state."""

    def wrong(right: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool, lengths: np.ndarray) -> Any:
        kept = tuple(replaced(part, chosen(lengths, len(dy))) for part in dstate)
        return right(w, tape, dy, kept, reverse)

    return in_bptt(wrong)


def shortened(tape: Any, lengths: np.ndarray) -> Any:
    """A layer's tape without the steps beyond other lengths."""
    x, steps = tape
    return x, [with_rows(step, lengths[step.rows] > step.t) for step in steps]


def with_rows(step: Any, kept: np.ndarray) -> Any:
    """Some of the rows of a step; the fields of a step are its time, arrays, tuples and mappings of them, and None."""

    def of(field: Any) -> Any:
        if isinstance(field, dict):
            return {name: of(part) for name, part in field.items()}
        return tuple(array[kept] for array in field) if isinstance(field, tuple) else field[kept]

    return step._replace(**{name: of(field) for name, field in step._asdict().items() if name != "t" and field is not None})


def one_step_less(right: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool, lengths: np.ndarray) -> Any:
    return right(w, shortened(tape, lengths - 1), dy, dstate, reverse)


def longest_first(lengths: np.ndarray) -> np.ndarray:
    return np.argsort(-lengths, kind="stable")


def ties_reversed(lengths: np.ndarray) -> np.ndarray:
    """Rows with the longest first, and rows of one length in the opposite order."""
    return np.lexsort((-np.arange(len(lengths)), -lengths))


def sorted_alone(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Leave the rows of a result in the order of their lengths."""
    return array[:, longest_first(lengths)]


def ties_swapped(array: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sort rows back by an order in which those of one length come the other way round."""
    back = np.empty_like(array)
    back[:, ties_reversed(lengths)] = array[:, longest_first(lengths)]
    return back


Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


def in_results(of_y: Change | None = None, of_final: Change | None = None) -> Planted:
    """Change y and the parts of the final state of calls with lengths."""

    def run(right: Any, net: Any, x: np.ndarray, state: State, *lengths: np.ndarray) -> Any:
        y, final, *tape = right(x, state, *lengths)
        if lengths and of_y:
            y = of_y(y, *lengths)
        if lengths and of_final:
            final = tuple(of_final(part, *lengths) for part in final)
        return (y, final, *tape)

    return in_network(_forward=run, _record=run)


def in_gradients(change: Callable[[Gradients, np.ndarray], Gradients]) -> Planted:
    """``change(grads, lengths)`` returns the results of BPTT of calls with lengths."""

    def record(right: Any, net: Any, x: np.ndarray, state: State, *lengths: np.ndarray) -> Any:
        y, final, content = right(x, state, *lengths)
        return y, final, Kept(content, *lengths) if lengths else content

    def backward(right: Any, net: Any, content: Any, *others: Any) -> Gradients:
        if not isinstance(content, Kept):
            return right(content, *others)
        return change(right(content.tape, *others), content.lengths)

    return in_network(_record=record, _backward=backward)


def last_row_of_no_steps(part: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Cut rows of no steps from the end of a batch; their final states are zero."""
    steps = int(np.flatnonzero(lengths)[-1]) + 1 if lengths.any() else 0
    return replaced(part, np.s_[:, steps:])


def keep_the_caller_s(right: Any, net: Any, x: np.ndarray, state: State | None = None, lengths: Any = None) -> Any:
    """Refer to the caller's lengths until backward."""
    y, final, tape = right(x, state, lengths)
    if isinstance(lengths, np.ndarray) and len(y) and (lengths < len(y)).any():
        tape.content = Kept(tape.content, lengths)
    return y, final, tape


def read_the_caller_s(right: Any, net: Any, content: Any, *others: Any) -> Gradients:
    if isinstance(content, Kept):
        weights, tapes = content.tape
        content = weights, [shortened(tape, content.lengths) for tape in tapes]
    return right(content, *others)


def in_calls(change: Callable[[np.ndarray, int, int], Any]) -> Planted:
    """``change(lengths, T, B)`` returns the lengths that forward and record read, before any check."""

    def run(right: Any, net: Any, x: np.ndarray, state: State | None = None, lengths: Any = None) -> Any:
        return right(x, state, lengths if lengths is None else change(np.asarray(lengths), *x.shape[:2]))

    return in_network(forward=run, record=run)


def last_step_of_equal_lengths(right: Any, net: Any, x: np.ndarray, state: State | None = None, lengths: Any = None) -> Any:
    y, *others = right(x, state, lengths)
    equal = lengths is not None and len(y) and np.min(lengths) == len(y)
    return (replaced(y, -1) if equal else y, *others)


_ROWS: dict[str, Planted] = {
    "lstm: final state is that at T": in_runs(final_at_the_end),
    "gru: final state of the last row for all": in_runs(final_of_the_last_row),
    "elman: y beyond a length is not cleared": with_y(
        lambda y, through, n: np.where(beyond(n, len(y))[:, :, None], through, y)
    ),
    "lstm: y beyond a length repeats the last one": with_y(repeated),
    "gru: dx beyond a length repeats the last one": in_bptt(dx_repeated),
    "gru: reverse direction starts in the padding": in_runs(reverse_through_padding),
    "elman: y of the padding multiplied by zero": with_y(lambda y, through, n: through_padding(y, 0 * through, n)),
    "gru: gradients of the padding multiplied by zero": in_bptt(masked_gradients),
    "lstm: dy beyond a length enters the gradients": in_bptt(dy_beyond),
    "lstm: dstate enters at T alone": dstate_of(lambda lengths, steps: lengths < steps),
    "gru: a row of no steps loses its dstate": dstate_of(lambda lengths, steps: lengths == 0),
    "elman: a row of no steps takes one": reading_lengths(lambda lengths, steps: np.maximum(lengths, 1)),
    "gru: a row of T steps loses its last one": reading_lengths(lambda lengths, steps: np.minimum(lengths, steps - 1)),
    "lstm: lengths off by one in BPTT alone": in_bptt(one_step_less),
    "lstm: layers above the first run through the padding": in_network(
        _run=lambda right, net, layer, function, x, state, lengths: right(layer, function, x, state, None if layer else lengths)
    ),
}

_ORDER: dict[str, Planted] = {
    "gru: rows taken for sorted, longest first": reading_lengths(lambda lengths, steps: -np.sort(-lengths)),
    "elman: y not sorted back": in_results(of_y=sorted_alone),
    "lstm: final state not sorted back": in_results(of_final=sorted_alone),
    "elman: dx not sorted back": in_gradients(lambda grads, n: grads._replace(x=sorted_alone(grads.x, n))),
    "lstm: initial state's gradient not sorted back": in_gradients(
        lambda grads, n: grads._replace(state=tuple(sorted_alone(part, n) for part in grads.state))
    ),
    "jordan: rows of one length swapped": in_results(ties_swapped, ties_swapped),
    "lstm: rows of no steps at the end lose their state": in_results(of_final=last_row_of_no_steps),
}

_CALLS: dict[str, Planted] = {
    "gru: the tape refers to the caller's lengths": in_network(record=keep_the_caller_s, _backward=read_the_caller_s),
    "lstm: forward alone ignores lengths": in_network(_forward=lambda right, net, x, state, *lengths: right(x, state)),
    "gru: lengths of T for all lose the last y": in_network(
        forward=last_step_of_equal_lengths, record=last_step_of_equal_lengths
    ),
    "gru: lengths are clipped, not refused": in_calls(lambda lengths, steps, batch: np.clip(lengths, 0, steps)),
    "elman: fractions of a step are cut off": in_calls(lambda lengths, steps, batch: lengths.astype(np.int64)),
    "gru: a missing length is T": in_calls(
        lambda lengths, steps, batch: np.append(lengths, [steps] * max(0, batch - len(lengths))).astype(lengths.dtype)
    ),
}


class LengthsOfTheSequence(Loop):
    """Give every window the lengths of the whole sequence, not those from its first step on."""

    def within(self, start: int, end: int) -> tuple[np.ndarray, ...]:
        return tuple(np.minimum(found, end - start) for found in self.lengths)


class DstateInTheLastPass(Loop):
    def of_rows_that_end(self, dstate: State, previous: int, end: int, steps: int) -> State:
        return dstate if end == steps else zeros(dstate)


class DstateInEveryPass(Loop):
    def of_rows_that_end(self, dstate: State, previous: int, end: int, steps: int) -> State:
        return dstate


class DstateOfNoSteps(Loop):
    """Leave out the cotangents of rows that end before the first step."""

    def ends(self, lengths: np.ndarray) -> np.ndarray:
        return lengths


_LOOPS: dict[str, Callable[..., Any]] = {
    "lengths not reduced by the window's start": LengthsOfTheSequence(),
    "dstate enters in the last pass alone": DstateInTheLastPass(),
    "dstate enters in every pass": DstateInEveryPass(),
    "dstate of rows of no steps enters in no pass": DstateOfNoSteps(),
}

MUTANTS = [Mutant(name, "lengths", (name.partition(":")[0],), backend) for name, backend in (_ROWS | _ORDER | _CALLS).items()]
MUTANTS += [Mutant(f"lstm, windows: {name}", "lengths", ("lstm",), Planted(), loop) for name, loop in _LOOPS.items()]
