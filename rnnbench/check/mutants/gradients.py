# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in BPTT: correct outputs, wrong gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.mutants.hooks import (
    Mutant,
    Planted,
    in_arithmetic,
    in_backward_equation,
    in_gradients,
    in_layer,
    replaced,
    zeros,
)
from rnnbench.networks.cells import CELLS
from rnnbench.networks.contract import Gradients, State
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


class Saved(NamedTuple):
    """The values that the LSTM saves in each step."""

    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    tanh_c: np.ndarray

    def new_c(self, c: np.ndarray) -> np.ndarray:
        return self.f * c + self.i * self.g

    def through_h(self, dh: np.ndarray) -> np.ndarray:
        """The cotangent of c through h."""
        return dh * self.o * (1 - self.tanh_c * self.tanh_c)


def lstm(change: Callable[..., tuple[Any, np.ndarray]]) -> Planted:
    """``change(s, c, dh, dc, dz, before)`` returns wrong ``dz`` and ``before``.

    ``s``: the saved values.  ``dz``: the cotangents of the gates.  ``before``: the cotangent of the previous c.
    """

    def wrong(saved: Any, carried: Any, dnew: Any, dinner: Any, da: Any, db: Any, dcarried: Any) -> Any:
        dz, before = change(Saved(*saved), carried[0], *dnew, da, dcarried[0])
        return dz, dz, (before,)

    return in_backward_equation(wrong)


def with_gate(dz: Any, place: int, value: np.ndarray) -> Any:
    return (*dz[:place], value, *dz[place + 1 :])


def elman(derivative: Callable[[np.ndarray], np.ndarray]) -> Planted:
    """``derivative(h)`` returns a wrong derivative of the nonlinearity at its output h."""

    def wrong(saved: Any, carried: Any, dnew: Any, *right: Any) -> Any:
        dz = dnew[0] * derivative(saved[0])
        return (dz,), (dz,), ()

    return in_backward_equation(wrong)


def gru(change: Callable[..., tuple[Any, Any, np.ndarray]]) -> Planted:
    """``change(r, z, n, b_n, h, dh, da, db, dh_kept)`` returns wrong values for the last three."""

    def wrong(saved: Any, carried: Any, dnew: Any, dinner: Any, da: Any, db: Any, dcarried: Any) -> Any:
        *cotangents, before = change(*saved, carried[0], dnew[0], da, db, dcarried[0])
        return (*cotangents, (before,))

    return in_backward_equation(wrong)


def reset_before(change: Callable[..., tuple[Any, np.ndarray]]) -> Planted:
    """``change(r, z, n, h, dh, doperand, dz, dh_before)`` returns wrong values for the last two; the operand is r h."""

    def wrong(saved: Any, carried: Any, dnew: Any, dinner: Any, da: Any, db: Any, dcarried: Any) -> Any:
        dz, before = change(*saved, carried[0], dnew[0], dinner[0], da, dcarried[0])
        return dz, dz, (before,)

    return in_backward_equation(wrong)


def with_weights(change: Callable[[Params], Params]) -> Planted:
    """BPTT of one layer reads other weights than its forward pass."""
    return in_layer(backward=lambda right, layer, w, *rest: right(w | change(w), *rest))


def with_steps(change: Callable[[list[Any]], list[Any]]) -> Planted:
    """BPTT of one layer reads changed steps from the tape; the steps are in the order in which they ran.

    Steps of different rows are left as they are: arrays of one would not fit another.
    """

    def backward(right: Any, layer: Any, w: Params, tape: Any, *rest: Any) -> Any:
        x, steps = tape
        whole = all(isinstance(step.rows, slice) for step in steps)
        return right(w, (x, change(steps) if whole else steps), *rest)

    return in_layer(backward=backward)


def one_step_on(steps: list[Any]) -> list[Any]:
    following = [step.recurrent for step in steps[1:]] + [steps[-1].hidden]
    return [step._replace(recurrent=after) for step, after in zip(steps, following, strict=True)]


def without_initial_state(steps: list[Any]) -> list[Any]:
    return [steps[0]._replace(recurrent=np.zeros_like(steps[0].recurrent)), *steps[1:]]


def operands_from_h(steps: list[Any]) -> list[Any]:
    return [step._replace(operand=step.recurrent) for step in steps]


def with_x(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    """The weights' gradient reads a changed x."""
    return in_layer(backward=lambda right, layer, w, tape, *rest: right(w, (change(tape[0]), tape[1]), *rest))


def with_cotangents(change: Callable[[np.ndarray, State], tuple[np.ndarray, State]]) -> Planted:
    """Change dy and dstate of each layer."""
    return in_layer(backward=lambda right, layer, w, tape, dy, dstate, reverse: right(w, tape, *change(dy, dstate), reverse))


def with_results(change: Callable[[Params, np.ndarray, State], tuple[Params, np.ndarray, State]]) -> Planted:
    """Change the results of one layer's BPTT: the gradients of weights, x and the initial state."""
    return in_layer(backward=lambda right, layer, *arguments: change(*right(*arguments)))


def detached_after(limit: int) -> Planted:
    """Stop the cotangents of the state at multiples of ``limit`` steps."""

    def backward(right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> Any:
        x, steps = tape
        total, dx = None, np.zeros_like(x)
        while steps:
            first = (len(steps) - 1) // limit * limit
            part = steps[first:]
            del steps[first:]
            grads, of_x, dstate = right(w, (x, part.copy()), dy, dstate, reverse)
            for step in part:
                dx[step.t] = of_x[step.t]
            total = grads if total is None else {name: value + grads[name] for name, value in total.items()}
            dstate = zeros(dstate) if first else dstate
        return total, dx, dstate

    return in_layer(backward=backward)


def overwritten(tensor: str) -> Planted:
    """Each step of BPTT stores its part of a gradient, where it has to add it to that of the later steps."""

    def backward(right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> Any:
        x, steps = tape
        total, dx = {name: np.zeros_like(value) for name, value in w.items()}, np.zeros_like(x)
        while steps:
            step = steps.pop()
            grads, of_x, dstate = right(w, (x, [step]), dy, dstate, reverse)
            total = {name: value if name == tensor else total[name] + value for name, value in grads.items()}
            dx[step.t] = of_x[step.t]
        return total, dx, dstate

    return in_layer(backward=backward)


def initial_gradient_one_step_on(
    right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool
) -> Any:
    x, steps = tape
    _, _, after_first = right(w, (x, steps[1:]), dy, dstate, reverse)
    grads, dx, _ = right(w, tape, dy, dstate, reverse)
    return grads, dx, after_first


def dstate_at_the_start(right: Any, layer: Any, w: Params, tape: Any, dy: np.ndarray, dstate: State, reverse: bool) -> Any:
    grads, dx, initial = right(w, tape, dy, zeros(dstate), reverse)
    return grads, dx, tuple(a + b for a, b in zip(initial, dstate, strict=True))


def clipped(spec: Spec, grads: Gradients) -> Gradients:
    """Clip the weights' gradients to a norm of 5, as training loops do."""
    norm = np.sqrt(sum(np.sum(value**2) for value in grads.params.values()))
    factor = min(1, 5 / norm) if norm else 1
    return grads._replace(params={name: (value * factor).astype(value.dtype) for name, value in grads.params.items()})


def scaled(tensor: str, place: int, gates: int) -> Planted:
    """Scale one gate's rows of a gradient by 1.001."""

    def change(spec: Spec, grads: Gradients) -> Gradients:
        wrong = {}
        for name in grads.params:
            if name.startswith(tensor):
                parts = np.split(grads.params[name], gates)
                parts[place] = parts[place] * spec.numpy_dtype.type(1.001)
                wrong[name] = np.concatenate(parts)
        return grads._replace(params=grads.params | wrong)

    return in_gradients(change)


def half(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(array.dtype)


def relu_slope(change: Callable[[np.ndarray], np.ndarray]) -> Planted:
    return in_arithmetic(relu_slope=lambda right, _, h: change(h).astype(h.dtype))


def in_both(da: Any, db: Any, place: int, value: np.ndarray, kept: np.ndarray) -> Any:
    return with_gate(da, place, value), with_gate(db, place, value), kept


def divided(results: Any, by: int) -> Any:
    grads, dx, initial = results
    return {name: value / value.dtype.type(by) for name, value in grads.items()}, dx, initial


_LSTM = {
    "cotangent of c carried without f": lstm(lambda s, c, dh, dc, dz, before: (dz, before / s.f)),
    "cotangent of c carried with i for f": lstm(lambda s, c, dh, dc, dz, before: (dz, before / s.f * s.i)),
    "cotangent of c without what comes through h": lstm(lambda s, c, dh, dc, dz, before: (dz, dc * s.f)),
    "cotangent of c gets dh twice": lstm(lambda s, c, dh, dc, dz, before: (dz, before + s.through_h(dh) * s.f)),
    "cotangent of c carried from dh alone": lstm(lambda s, c, dh, dc, dz, before: (dz, s.through_h(dh) * s.f)),
    "derivative of tanh(c) left out": lstm(lambda s, c, dh, dc, dz, before: (dz, (dc + dh * s.o) * s.f)),
    "forget gate's gradient from the new c": lstm(
        lambda s, c, dh, dc, dz, before: (
            with_gate(dz, 1, before * s.new_c(c) * (1 - s.f)),
            before,
        )
    ),
    "output gate's gradient from c, not tanh(c)": lstm(
        lambda s, c, dh, dc, dz, before: (
            with_gate(dz, 3, dh * s.new_c(c) * s.o * (1 - s.o)),
            before,
        )
    ),
    "sigmoid's derivative taken as s": lstm(lambda s, c, dh, dc, dz, before: (with_gate(dz, 0, dz[0] / (1 - s.i)), before)),
    "tanh's derivative taken as 1 - |g|": lstm(
        lambda s, c, dh, dc, dz, before: (with_gate(dz, 2, dz[2] / (1 + abs(s.g))), before)
    ),
    "weights' gradients clipped to a norm of 5": in_gradients(clipped),
    "the tape's h in float16": with_steps(lambda steps: [step._replace(recurrent=half(step.recurrent)) for step in steps]),
    "gradients added up in float16": in_arithmetic(summed=lambda right, _, total, term, *n: half(right(total, term, *n))),
    "dx without the output gate's part": with_weights(
        lambda w: {"weight_ih": replaced(w["weight_ih"], slice(-len(w["weight_ih"]) // 4, None))}
    ),
    "nothing flows back through the forget gate's recurrent weights": with_weights(
        lambda w: {"weight_hh": replaced(w["weight_hh"], slice(len(w["weight_hh"]) // 4, len(w["weight_hh"]) // 2))}
    ),
    "the cotangent of the final c missing": with_cotangents(lambda dy, dstate: (dy, (dstate[0], 0 * dstate[1]))),
    "the cotangent of the final h missing": with_cotangents(lambda dy, dstate: (dy, (0 * dstate[0], dstate[1]))),
    "the cotangents of the final h and c swapped": with_cotangents(lambda dy, dstate: (dy, dstate[::-1])),
    "the initial state's gradients of h and c swapped": with_results(lambda grads, dx, initial: (grads, dx, initial[::-1])),
    "the initial c's gradient missing": with_results(lambda grads, dx, initial: (grads, dx, (initial[0], 0 * initial[1]))),
}

_GRU = {
    "bias_hh gets the gradient of bias_ih": gru(lambda r, z, n, b_n, h, dh, da, db, kept: (da, da, kept)),
    "bias_ih gets the gradient of bias_hh": gru(lambda r, z, n, b_n, h, dh, da, db, kept: (db, db, kept)),
    "h not kept by z on the way back": gru(lambda r, z, n, b_n, h, dh, da, db, kept: (da, db, 0 * kept)),
    "h kept by 1 - z on the way back": gru(lambda r, z, n, b_n, h, dh, da, db, kept: (da, db, dh - kept)),
    "reset gate's gradient without b_n": gru(
        lambda r, z, n, b_n, h, dh, da, db, kept: in_both(da, db, 0, da[2] * r * (1 - r), kept)
    ),
    "update gate's gradient from the new h": gru(
        lambda r, z, n, b_n, h, dh, da, db, kept: in_both(da, db, 1, (h - n) * z * dh * z * (1 - z), kept)
    ),
    "sigmoid's derivative of r left out": gru(lambda r, z, n, b_n, h, dh, da, db, kept: in_both(da, db, 0, da[2] * b_n, kept)),
}


_RESET_BEFORE = {
    "what comes through r h not carried back": reset_before(lambda r, z, n, h, dh, d, dz, before: (dz, before - d * r)),
    "carried back through h, not r h": reset_before(lambda r, z, n, h, dh, d, dz, before: (dz, before - d * r + d)),
    "reset gate's gradient without h": reset_before(
        lambda r, z, n, h, dh, d, dz, before: (with_gate(dz, 0, d * r * (1 - r)), before)
    ),
    "gradient of U_n reads h, not r h": with_steps(operands_from_h),
}

_ELMAN = {
    "tanh's derivative left out": elman(lambda h: np.ones_like(h)),
    "tanh's derivative as of sigmoid": elman(lambda h: h * (1 - h)),
    "relu's slope is 1 at 0": relu_slope(lambda h: h >= 0),
    "relu's slope is 0.01 below zero": relu_slope(lambda h: np.where(h > 0, 1, 0.01)),
    "recurrent weights transposed on the way back only": with_weights(lambda w: {"weight_hh": w["weight_hh"].T}),
    "input weights read column by column on the way back only": with_weights(
        lambda w: {"weight_ih": w["weight_ih"].T.reshape(w["weight_ih"].shape)}
    ),
    "gradient of U reads h of the same step": with_steps(one_step_on),
    "gradient of U leaves the initial state out": with_steps(without_initial_state),
    "gradient of W reads x of the step before": with_x(lambda x: np.roll(x, 1, 0)),
    "dy missing at the last step": with_cotangents(lambda dy, dstate: (replaced(dy, -1), dstate)),
    "dy missing at the first step": with_cotangents(lambda dy, dstate: (replaced(dy, 0), dstate)),
    "dy missing at a step in the middle": with_cotangents(lambda dy, dstate: (replaced(dy, len(dy) // 2), dstate)),
    "dy of the last step alone": with_cotangents(lambda dy, dstate: (replaced(dy, slice(0, -1)), dstate)),
    "dy reversed in time": with_cotangents(lambda dy, dstate: (dy[::-1], dstate)),
    "dy one step late": with_cotangents(lambda dy, dstate: (np.roll(dy, 1, 0), dstate)),
    "dy of the batch rows reversed": with_cotangents(lambda dy, dstate: (dy[:, ::-1], dstate)),
    "dstate missing": with_cotangents(lambda dy, dstate: (dy, zeros(dstate))),
    "dstate added twice": with_cotangents(lambda dy, dstate: (dy, tuple(2 * part for part in dstate))),
    "dstate added at every step": with_cotangents(lambda dy, dstate: (dy + dstate[0], zeros(dstate))),
    "dstate goes to the initial state": in_layer(backward=dstate_at_the_start),
    "the initial state's gradient missing": with_results(lambda grads, dx, initial: (grads, dx, zeros(initial))),
    "the initial state's gradient is one step later": in_layer(backward=initial_gradient_one_step_on),
    "dx missing at the last step": with_results(lambda grads, dx, initial: (grads, replaced(dx, -1), initial)),
    "dx missing at the first step": with_results(lambda grads, dx, initial: (grads, replaced(dx, 0), initial)),
    "weights' gradients are means over the batch": in_layer(
        backward=lambda right, layer, w, tape, dy, *rest: divided(right(w, tape, dy, *rest), dy.shape[1])
    ),
    "weights' gradients are means over time": in_layer(
        backward=lambda right, layer, w, tape, dy, *rest: divided(right(w, tape, dy, *rest), dy.shape[0])
    ),
    "gradients of bias_ih and bias_hh each half of it": with_results(
        lambda grads, dx, initial: ({n: g / 2 if n.startswith("bias") else g for n, g in grads.items()}, dx, initial)
    ),
    "gradient cut every 5 steps": detached_after(5),
}


_JORDAN = {
    "output weights read column by column on the way back only": with_weights(
        lambda w: {"weight_ho": w["weight_ho"].T.reshape(w["weight_ho"].shape)}
    ),
    "gradient of V reads h of the step before": with_steps(
        lambda steps: [step._replace(hidden=before.hidden) for step, before in zip(steps, [steps[0], *steps[:-1]], strict=True)]
    ),
}

MUTANTS = [
    Mutant(f"{cell}: {name}", "bptt", (cell,), backend)
    for cell, backends in {
        "lstm": _LSTM,
        "gru": _GRU,
        "gru_reset_before": _RESET_BEFORE,
        "elman": _ELMAN,
        "jordan": _JORDAN,
    }.items()
    for name, backend in backends.items()
]

MUTANTS += [
    Mutant(f"{cell}: gradient of {tensor} scaled by 1.001 in gate {gate}", "bptt", (cell,), scaled(tensor, place, len(gates)))
    for cell, gates in {cell: CELLS[cell].gates for cell in ("lstm", "gru")}.items()
    for place, gate in enumerate(gates)
    for tensor in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
]

MUTANTS += [
    Mutant(f"jordan: gradient of {tensor} scaled by 1.001", "bptt", ("jordan",), scaled(tensor, 0, 1))
    for tensor in ("weight_ho", "bias_ho")
]
