"""Gradients of a layer: BPTT of numba_cpu, and torch's own operations for gradients of gradients."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rnnbench.networks.spec import Spec
from rnnbench.torch.arrays import packed, padded
from rnnbench.torch.layer import Layer
from rnnbench.torch.untraced import untraced

_torch: Any = torch._C
_saved_tensors_hooks = _torch._autograd._top_saved_tensors_default_hooks


def run(
    layer: Layer, weights: Sequence[torch.Tensor], x: torch.Tensor, state: Sequence[torch.Tensor] | None, lengths: Any = None
) -> tuple[torch.Tensor, ...]:
    """Return y and the parts of the final state, differentiable where gradients are enabled and some argument wants one."""
    if torch.is_grad_enabled():
        tensors = (x, *(state or ()), *weights)
        if any(tensor.requires_grad for tensor in tensors):
            return _Differentiable.apply(layer, lengths, len(state or ()), *tensors)
    return layer.forward(weights, x, state, lengths)


class _Differentiable(torch.autograd.Function):
    """A layer under autograd.

    The tape serves the first backward pass.  Later ones, after ``retain_graph``, record again.  So does the first where hooks
    for saved tensors are active: checkpointing and offloading expect that nothing but saved tensors takes memory.
    """

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, layer: Layer, lengths: np.ndarray | None, parts: int, x: torch.Tensor, *tensors: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        state, weights = tensors[:parts] or None, tensors[parts:]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, *tensors)  # autograd refuses backward if one of them has changed
        ctx.layer, ctx.lengths, ctx.parts, ctx.recorded = layer, lengths, parts, None
        if _saved_tensors_hooks(False) is None:
            results, ctx.recorded = layer.record(weights, x, state, lengths)
            return results
        return layer.forward(weights, x, state, lengths)

    @staticmethod
    @untraced
    def backward(ctx: Any, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        layer, lengths, parts = ctx.layer, ctx.lengths, ctx.parts
        x, *tensors = ctx.saved_tensors
        state, weights = tensors[:parts] or None, tensors[parts:]
        wanted = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():  # create_graph
            return None, None, None, *_differentiable_gradients(layer.spec, (x, *tensors), parts, lengths, cotangents, wanted)
        recorded, ctx.recorded = ctx.recorded, None
        if recorded is None:
            _, recorded = layer.record(weights, x, state, lengths)
        dx, *others = layer.backward(recorded, *_whole(layer.spec, x, cotangents))
        dstate, dweights = others[: len(others) - len(weights)], others[len(others) - len(weights) :]
        return None, None, None, dx, *dstate[:parts], *dweights


def _whole(
    spec: Spec, x: torch.Tensor, cotangents: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor, list[torch.Tensor] | None]:
    """The cotangents of y and of the final state, with zeros for None; None for the state if all its parts are None."""
    steps, batch, _ = x.shape
    dy, *dfinal = cotangents
    dy = x.new_zeros((steps, batch, spec.features)) if dy is None else dy
    if all(part is None for part in dfinal):
        return dy, None
    shapes = spec.state_shapes(batch)
    return dy, [x.new_zeros(shape) if part is None else part for part, shape in zip(dfinal, shapes, strict=True)]


def _differentiable_gradients(
    spec: Spec,
    tensors: Sequence[torch.Tensor],
    parts: int,
    lengths: np.ndarray | None,
    cotangents: Sequence[torch.Tensor | None],
    wanted: Sequence[bool],
) -> list[torch.Tensor | None]:
    """Gradients by torch's operations, which can be differentiated again; oneDNN's cannot."""
    inputs = [tensor for tensor, needed in zip(tensors, wanted, strict=True) if needed]
    x, *others = tensors
    with torch.enable_grad(), _without_onednn():
        results = by_torch(spec, others[parts:], x, others[:parts], lengths)
        given = [(result, part) for result, part in zip(results, cotangents, strict=True) if part is not None]
        results, cotangents = zip(*given, strict=True)
        found = iter(torch.autograd.grad(results, inputs, cotangents, create_graph=True, allow_unused=True))
    return [next(found) if needed else None for needed in wanted]


_onednn = threading.Lock()


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    """Turn oneDNN off in this process; torch.backends.mkldnn.flags would also set precisions, and warn."""
    with _onednn:
        before = _torch._get_mkldnn_enabled()
        _torch._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            _torch._set_mkldnn_enabled(before)


def by_torch(
    spec: Spec, weights: Sequence[torch.Tensor], x: torch.Tensor, state: Sequence[torch.Tensor], lengths: np.ndarray | None
) -> tuple[torch.Tensor, ...]:
    """A layer in torch's own operations."""
    name = spec.cell if spec.cell != "elman" else f"rnn_{spec.nonlinearity}"
    batch = x.shape[1]
    state = state or [x.new_zeros(shape) for shape in spec.state_shapes(batch)]
    options = (spec.bias, 1, 0.0, False, spec.bidirectional)
    hx = tuple(state) if spec.cell == "lstm" else state[0]
    if lengths is None:
        return getattr(torch, name)(x, hx, weights, *options, False)
    data, batch_sizes = packed(x, torch.from_numpy(lengths))
    y, *final = getattr(torch, name)(data, batch_sizes, hx, weights, *options)
    return padded(y, batch_sizes, len(x))[0], *final
