"""A layer as an operator of torch, for graphs: torch.compile, torch.export and AOTAutograd call it by name.

An operator keeps nothing between calls, so its backward pass records again: a training step costs one more forward pass than
outside of a graph.
"""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rnnbench.networks.spec import Spec
from rnnbench.torch.arrays import DTYPES
from rnnbench.torch.layer import Layer

_LAYERS_KEPT = 64
"""Number of layers, by the addresses of their weights, whose networks are kept."""


_OPTIONS = "str cell, str nonlinearity, bool bidirectional, bool bias"


@torch.library.custom_op(
    "rnnbench::layer", mutates_args=(), schema=f"(Tensor x, Tensor[] state, Tensor[] weights, {_OPTIONS}) -> Tensor[]"
)
def layer(
    x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], cell: str, nonlinearity: str, bidirectional: bool, bias: bool
) -> list[Tensor]:
    """Run a layer in one or both directions on x (T, B, I) from a state; return y and the parts of the final state.

    ``cell``, ``nonlinearity``, ``bidirectional`` and ``bias`` are those of ``rnnbench.Spec``; sizes are those of the weights.
    """
    if not x.numel():
        return _empty(x, state)
    spec = _spec(x, weights, cell, nonlinearity, bidirectional, bias)
    return list(_layer(spec, weights).forward(weights, x, state))


@layer.register_fake
def _(x: Tensor, state: Any, weights: Any, cell: str, nonlinearity: str, bidirectional: bool, bias: bool) -> list[Tensor]:
    return _empty(x, state)


@torch.library.custom_op(
    "rnnbench::layer_backward",
    mutates_args=(),
    schema=f"(Tensor x, Tensor[] state, Tensor[] weights, Tensor[] cotangents, {_OPTIONS}) -> Tensor[]",
)
def layer_backward(
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    cotangents: Sequence[Tensor],
    cell: str,
    nonlinearity: str,
    bidirectional: bool,
    bias: bool,
) -> list[Tensor]:
    """Return the gradients of x, of the parts of the state and of the weights.

    ``cotangents``: those of the results of ``layer``.
    """
    if not x.numel():
        return [torch.zeros_like(tensor) for tensor in (x, *state, *weights)]
    own = _layer(_spec(x, weights, cell, nonlinearity, bidirectional, bias), weights)
    _, recorded = own.record(weights, x, state)
    return list(own.backward(recorded, cotangents[0], cotangents[1:]))


@layer_backward.register_fake
def _(x: Tensor, state: Any, weights: Any, cotangents: Any, *options: Any) -> list[Tensor]:
    return [torch.empty(tensor.shape, dtype=tensor.dtype, device=tensor.device) for tensor in (x, *state, *weights)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, state, weights, *ctx.options = inputs
    ctx.parts = len(state)
    ctx.save_for_backward(x, *state, *weights)


def _gradients(ctx: Any, cotangents: list[Tensor]) -> tuple[Any, ...]:
    x, *others = ctx.saved_tensors
    state, weights = others[: ctx.parts], others[ctx.parts :]
    dx, *found = layer_backward(x, state, weights, cotangents, *ctx.options)
    return dx, found[: ctx.parts], found[ctx.parts :], None, None, None, None


layer.register_autograd(_gradients, setup_context=_keep)


def _empty(x: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
    directions, _, size = state[0].shape
    return [x.new_empty((*x.shape[:2], directions * size)), *(x.new_empty(part.shape) for part in state)]


def _spec(x: Tensor, weights: Sequence[Tensor], cell: str, nonlinearity: str, bidirectional: bool, bias: bool) -> Spec:
    hidden_size, width = weights[0].shape[0] // len(Spec(cell, 1, 1).kind.gates), weights[1].shape[1]
    options = {"bidirectional": bidirectional, "bias": bias, "projection_size": width if width < hidden_size else None}
    return Spec(cell, weights[0].shape[1], hidden_size, nonlinearity=nonlinearity, dtype=DTYPES[x.dtype], **options)


def _layer(spec: Spec, weights: Sequence[Tensor]) -> Layer:
    return _layer_of(spec, tuple(tensor.data_ptr() for tensor in weights))


@functools.lru_cache(maxsize=_LAYERS_KEPT)
def _layer_of(spec: Spec, addresses: tuple[int, ...]) -> Layer:
    return Layer(spec)
