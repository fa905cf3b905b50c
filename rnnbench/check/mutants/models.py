# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in what stands around a network: embedding, output layer, losses, dropout, clipping, optimisers, the carried state."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_parts, wrapped
from rnnbench.check.training import RIGHT, Tools
from rnnbench.models.equations import RULES
from rnnbench.models.model import Model, load_model
from rnnbench.models.optimisers import Adam, AdamW, Optimiser
from rnnbench.models.parts import OutputGradients, Rows


def in_model(**methods: Callable[..., Any]) -> Tools:
    """Wrap methods of a model, as ``hooks.wrapped`` does."""
    kind = wrapped(Model, **methods)

    def load(*arguments: Any) -> Any:
        model = load_model(*arguments)
        model.__class__ = kind
        return model

    return RIGHT._replace(load_model=load)


def in_optimisers(**methods: Callable[..., Any]) -> Tools:
    """Wrap methods of all optimisers that have them."""
    kinds = {}
    for name, kind in RIGHT.optimisers.items():
        kinds[name] = wrapped(kind, **{method: wrong for method, wrong in methods.items() if hasattr(kind, method)})
    return RIGHT._replace(optimisers=kinds)


def with_rule(name: str, update: Callable[..., Any]) -> Planted:
    """Replace the update of a rule."""

    def wrong(right: Any, parts: Any, rule: Any, *arguments: Any) -> None:
        right(rule._replace(update=update) if rule.name == name else rule, *arguments)

    return in_parts(update=wrong)


def overwritten(right: Any, parts: Any, indices: np.ndarray, dx: np.ndarray) -> Rows:
    found = right(indices, dx)
    table = dict(zip(indices.ravel(), dx.reshape(-1, dx.shape[2]), strict=True))  # the last of each
    return Rows(found.indices, np.array([table[index] for index in found.indices]))


def next_row(right: Any, parts: Any, indices: np.ndarray, dx: np.ndarray) -> Rows:
    found = right(indices, dx)
    return Rows(found.indices + 1, found.values)


def unmasked(right: Any, parts: Any, *arguments: Any) -> OutputGradients:
    *others, weights = arguments
    return right(*others, np.full_like(weights, 1 / weights.size))


def halved_cotangent(right: Any, parts: Any, *arguments: Any) -> OutputGradients:
    found = right(*arguments)
    return found._replace(y=found.y / 2, weight=found.weight / 2, bias=found.bias / 2)


def without(name: str) -> Callable[..., OutputGradients]:
    def wrong(right: Any, parts: Any, *arguments: Any) -> OutputGradients:
        found = right(*arguments)
        return found._replace(**{name: np.zeros_like(getattr(found, name))})

    return wrong


def target_moved(right: Any, parts: Any, y: Any, weight: Any, bias: Any, targets: np.ndarray, weights: Any) -> OutputGradients:
    return right(y, weight, bias, np.roll(targets, 1, 0), weights)


def as_activation(activation: str) -> Callable[..., Any]:
    """The gradient of another activation, with the right loss."""

    def wrong(right: Any, parts: Any, y: Any, weight: Any, bias: Any, given: str, *others: Any) -> OutputGradients:
        found = right(y, weight, bias, given, *others)
        return right(y, weight, bias, activation, *others)._replace(loss=found.loss)

    return wrong


def rows_left_alone(right: Any, parts: Any, rule: Any, parameter: Any, gradient: Any, slots: Any, *others: Any) -> None:
    """Rows without a gradient keep their moments and their value, as sparse variants of Adam have it."""
    if not isinstance(gradient, Rows):
        right(rule, parameter, gradient, slots, *others)
        return
    left = np.setdiff1d(np.arange(len(parameter)), gradient.indices)
    kept = [array[left].copy() for array in (parameter, *slots)]
    right(rule, parameter, gradient, slots, *others)
    for array, values in zip((parameter, *slots), kept, strict=True):
        array[left] = values


def slots_lost(right: Any, parts: Any, rule: Any, parameter: Any, gradient: Any, slots: Any, *others: Any) -> None:
    right(rule, parameter, gradient, [np.zeros_like(slot) for slot in slots], *others)


def one_sided(
    right: Any, parts: Any, rule: Any, parameter: Any, gradient: Any, slots: Any, constants: Any, scale: Any, limit: Any
) -> None:
    """Clip from above alone."""
    if not isinstance(gradient, Rows):
        right(rule, parameter, np.minimum(gradient * parameter.dtype.type(scale), limit), slots, constants, 1.0, np.inf)
    else:
        right(rule, parameter, gradient, slots, constants, scale, limit)


def unscaled(
    right: Any, parts: Any, rule: Any, parameter: Any, gradient: Any, slots: Any, constants: Any, scale: Any, limit: Any
) -> None:
    right(rule, parameter, gradient, slots, constants, 1.0, limit)


def adam_with_epsilon_in_the_root(parameter: Any, gradient: Any, slots: Any, c: Any) -> Any:
    _, (first, second) = RULES["adam"].update(parameter, gradient, slots, c)
    return c.kept * parameter - c.rate * first / np.sqrt(second * c.root * c.root + c.epsilon), (first, second)


def adam_with_the_step_before(parameter: Any, gradient: Any, slots: Any, c: Any) -> Any:
    _, (first, second) = RULES["adam"].update(parameter, gradient, slots, c)
    return c.kept * parameter - c.rate * first / (np.sqrt(slots[1]) * c.root + c.epsilon), (first, second)


def adam_of_absolute_gradients(parameter: Any, gradient: Any, slots: Any, c: Any) -> Any:
    first = c.beta1 * slots[0] + c.rest1 * gradient
    second = c.beta2 * slots[1] + c.rest2 * abs(gradient)
    return c.kept * parameter - c.rate * first / (np.sqrt(second) * c.root + c.epsilon), (first, second)


def uncorrected(*names: str) -> Tools:
    """Adam's constants without the correction for bias of these."""

    def wrong(right: Any, optimiser: Any) -> tuple[float, ...]:
        constants = list(right())
        if isinstance(optimiser, Adam):
            first, second = constants[:2]
            constants[4] *= 1 - first**optimiser.steps if "rate" in names else 1
            constants[5] *= np.sqrt(1 - second**optimiser.steps) if "root" in names else 1
        return tuple(constants)

    return in_optimisers(_constants=wrong)


def one_step_late(right: Any, optimiser: Any) -> tuple[float, ...]:
    optimiser._steps += 1
    try:
        return right()
    finally:
        optimiser._steps -= 1


def decay_without_rate(right: Any, optimiser: Any) -> tuple[float, ...]:
    constants = right()
    return (*constants[:-1], 1 - optimiser._weight_decay) if isinstance(optimiser, AdamW) else constants


def clipped_one_by_one(right: Any, optimiser: Optimiser, gradients: Any) -> Any:
    """Clip each parameter's gradient by its own norm."""
    limit = optimiser._clip_norm
    if limit is None:
        return right(gradients)

    def clipped(gradient: Any) -> Any:
        values = gradient.values if isinstance(gradient, Rows) else gradient
        values = values * min(1.0, limit / float(np.linalg.norm(values))) if np.any(values) else values
        return Rows(gradient.indices, values) if isinstance(gradient, Rows) else values

    optimiser._clip_norm = None
    try:
        return right({name: clipped(gradient) for name, gradient in gradients.items()})
    finally:
        optimiser._clip_norm = limit


def norm_without_rows(right: Any, parts: Any, gradients: Any) -> float:
    return right([gradient for gradient in gradients if not isinstance(gradient, Rows)])


def state_lost(right: Any, model: Any, inputs: Any, targets: Any, mask: Any = None, state: Any = None, **options: Any) -> Any:
    return right(inputs, targets, mask, None, **options)


def state_returned_as_given(
    right: Any, model: Any, inputs: Any, targets: Any, mask: Any = None, state: Any = None, **o: Any
) -> Any:
    found = right(inputs, targets, mask, state, **o)
    return found if state is None else found._replace(state=state)


def never_truncated(right: Any, model: Any, *arguments: Any, window: Any = None, stride: Any = None, **options: Any) -> Any:
    return right(*arguments, **options)


def last_pass_alone(right: Any, model: Any, total: OutputGradients, term: OutputGradients) -> OutputGradients:
    return term._replace(loss=total.loss + term.loss)


def mean_over_all(right: Any, model: Any, inputs: Any, targets: Any, mask: Any) -> Any:
    targets, weights, count = right(inputs, targets, mask)
    return targets, weights * weights.dtype.type(count / weights.size), count


def not_reloaded(right: Any, model: Any) -> None:
    if not model._networks:
        right()


def dropout_in_forward_alone(right: Any, model: Any, array: Any, mask: Any) -> Any:
    model.calls = getattr(model, "calls", 0) + 1
    return right(array, mask) if model.calls <= model.spec.rnn.num_layers - 1 else array


def dropout_unscaled(right: Any, model: Any, array: Any, mask: Any) -> Any:
    return right(array, np.minimum(mask, 1))


def masks_of_another_step(right: Any, model: Any, key: Any, *others: Any) -> Any:
    return right((*key[:-1], 99), *others)


_CELLS = ("lstm",)

_PARTS: dict[str, Planted] = {
    "embedding: gradient of a repeated index overwritten": in_parts(embedding_gradient=overwritten),
    "embedding: gradient of the next row": in_parts(embedding_gradient=next_row),
    "cross-entropy: mask ignored": in_parts(cross_entropy=unmasked),
    "cross-entropy: target of another step": in_parts(cross_entropy=target_moved),
    "cross-entropy: half the gradient": in_parts(cross_entropy=halved_cotangent),
    "cross-entropy: no gradient of the output bias": in_parts(cross_entropy=without("bias")),
    "cross-entropy: no gradient of the output weight": in_parts(cross_entropy=without("weight")),
    "cross-entropy: no gradient of y": in_parts(cross_entropy=without("y")),
    "squared errors: mask ignored": in_parts(squared_errors=unmasked),
    "squared errors: factor 2 missing": in_parts(squared_errors=halved_cotangent),
    "squared errors: derivative of the activation missing": in_parts(squared_errors=as_activation("identity")),
    "outputs: logits instead of probabilities": in_parts(
        outputs=lambda right, parts, y, w, b, kind: right(y, w, b, "identity")
    ),
    "outputs: no bias": in_parts(outputs=lambda right, parts, y, w, b, kind: right(y, w, 0 * b, kind)),
    "adam: epsilon inside the root": with_rule("adam", adam_with_epsilon_in_the_root),
    "adam: second moment of the step before": with_rule("adam", adam_with_the_step_before),
    "adam: second moment of absolute gradients": with_rule("adam", adam_of_absolute_gradients),
    "adam: rows without a gradient left alone": in_parts(update=rows_left_alone),
    "nesterov: plain momentum": with_rule("nesterov", RULES["momentum"].update),
    "momentum: nesterov's": with_rule("momentum", RULES["nesterov"].update),
    "optimiser: state not carried": in_parts(update=slots_lost),
    "clipping: value from above alone": in_parts(update=one_sided),
    "clipping: scale ignored": in_parts(update=unscaled),
    "clipping: norm without the embedding": in_parts(squared_norm=norm_without_rows),
    "accumulation: gradients of the last pass alone": in_parts(add=lambda right, parts, total, term: term),
}

_TOOLS: dict[str, Tools] = {
    "adam: no correction for bias": uncorrected("rate", "root"),
    "adam: first moment not corrected": uncorrected("rate"),
    "adam: second moment not corrected": uncorrected("root"),
    "adam: corrected for one step too many": in_optimisers(_constants=one_step_late),
    "adamw: decay not multiplied by the rate": in_optimisers(_constants=decay_without_rate),
    "clipping: each gradient by its own norm": in_optimisers(step=clipped_one_by_one),
    "state: not carried to the next batch": in_model(gradients=state_lost),
    "state: that before the batch is carried": in_model(gradients=state_returned_as_given),
    "truncation ignored": in_model(gradients=never_truncated),
    "output layer: gradients of the last pass alone": in_model(_sum=last_pass_alone),
    "loss: mean over masked targets too": in_model(_targets=mean_over_all),
    "update: the network keeps its weights": in_model(changed=not_reloaded),
    "dropout: not in BPTT": in_model(_scaled=dropout_in_forward_alone),
    "dropout: kept outputs not scaled up": in_model(_scaled=dropout_unscaled),
    "dropout: mask of another step": in_model(_masks=masks_of_another_step),
}

MUTANTS = [Mutant(f"model, {name}", "models", _CELLS, planted) for name, planted in _PARTS.items()]
MUTANTS += [Mutant(f"model, {name}", "models", _CELLS, Planted(), tools=tools) for name, tools in _TOOLS.items()]
