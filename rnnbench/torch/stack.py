"""All layers of a module: one layer after the other, with dropout between them, on padded or packed sequences."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence

from rnnbench.networks.spec import Spec
from rnnbench.torch import operators
from rnnbench.torch.arrays import DTYPES, packed, padded
from rnnbench.torch.autograd import run
from rnnbench.torch.layer import Layer

Tensors = Sequence[torch.Tensor]

RunLayer = Callable[..., Tensors]
"""``run(weights, x, state, lengths=None)`` runs a layer and returns y and the parts of the final state."""

_CELLS = {"LSTM": ("lstm", "tanh"), "GRU": ("gru", "tanh"), "RNN_TANH": ("elman", "tanh"), "RNN_RELU": ("elman", "relu")}


def layers_of(module: torch.nn.RNNBase, dtype: torch.dtype) -> list[RunLayer]:
    """New layers of a module, which compute in ``dtype`` on numba_cpu."""
    cell, nonlinearity = _CELLS[module.mode]
    width = (module.proj_size or module.hidden_size) * (1 + module.bidirectional)
    options: dict[str, Any] = {"nonlinearity": nonlinearity, "bidirectional": module.bidirectional, "bias": module.bias}
    options |= {"projection_size": module.proj_size or None, "dtype": DTYPES[dtype]}
    sizes = [module.input_size] + [width] * (module.num_layers - 1)
    return [functools.partial(run, Layer(Spec(cell, size, module.hidden_size, **options))) for size in sizes]


def run_stack(
    module: torch.nn.RNNBase, layers: Sequence[RunLayer], given: Any, hx: Any, weights: Tensors, dtype: torch.dtype
) -> tuple[Any, Any]:
    """Run a module's layers on numba_cpu; the arguments are those of its ``forward``, and fit."""
    is_packed = isinstance(given, PackedSequence)
    x: Any = given.data if is_packed else given
    state: Any = hx if hx is None or module.mode == "LSTM" else (hx,)
    of_input = x.dtype
    casts = weights[0].dtype is not dtype or of_input is not dtype  # autocast
    if casts:
        x, weights = x.to(dtype), [weight.to(dtype) for weight in weights]
    if state is not None and any(part.dtype is not dtype for part in state):
        state = [part.to(dtype) for part in state]
    y: Any
    if is_packed:
        y, final = _on_packed(module, layers, given._replace(data=x), state, weights)
    else:
        y, final = _on_padded(module, layers, x, state, weights)
    if casts and module.mode == "GRU":  # torch.nn.GRU returns its input's dtype there, the others autocast's
        y, final = y.to(of_input), [part.to(of_input) for part in final]
    return y, tuple(final) if module.mode == "LSTM" else final[0]


def in_a_graph(module: torch.nn.RNNBase, x: torch.Tensor, hx: Any) -> tuple[Any, Any]:
    """The same as operators that torch.compile and torch.export put into their graphs."""
    weights = [getattr(module, name) for name in module._flat_weights_names]
    cell, nonlinearity = _CELLS[module.mode]

    def operator(weights: Tensors, x: torch.Tensor, state: Tensors, lengths: None = None) -> Tensors:
        return operators.layer(x, state, weights, cell, nonlinearity, module.bidirectional, module.bias)

    state = hx if module.mode == "LSTM" or hx is None else (hx,)
    if state is None:
        batch = () if x.dim() == 2 else (x.shape[0 if module.batch_first else 1],)
        sizes = (module.proj_size or module.hidden_size, module.hidden_size)[: 1 + (module.mode == "LSTM")]
        state = [x.new_zeros((module.num_layers * (1 + module.bidirectional), *batch, size)) for size in sizes]
    y, final = _on_padded(module, [operator] * module.num_layers, x, state, weights)
    return y, tuple(final) if module.mode == "LSTM" else final[0]


def _on_padded(
    module: torch.nn.RNNBase, layers: Sequence[RunLayer], x: torch.Tensor, state: Tensors | None, weights: Tensors
) -> tuple[torch.Tensor, Tensors]:
    """Run all layers on x (T, B, I), (B, T, I) or (T, I)."""
    unbatched = x.dim() == 2
    if unbatched:
        x, state = x.unsqueeze(1), state and [part.unsqueeze(1) for part in state]
    elif module.batch_first:
        x = x.transpose(0, 1)
    y, final = _one_by_one(module, layers, x, state, weights)
    if unbatched:
        return y.squeeze(1), [part.squeeze(1) for part in final]
    return y.transpose(0, 1) if module.batch_first else y, final


def _on_packed(
    module: torch.nn.RNNBase, layers: Sequence[RunLayer], given: PackedSequence, state: Any, weights: Tensors
) -> tuple[PackedSequence, Tensors]:
    """Run all layers on a packed sequence, which is padded: numba_cpu takes lengths, and computes nothing for padding."""
    data, batch_sizes, order, back = given
    x, lengths = padded(data, batch_sizes)
    if state is not None and order is not None:
        state = [part.index_select(1, order) for part in state]
    y, final = _one_by_one(module, layers, x, state, weights, lengths)
    if back is not None:
        final = [part.index_select(1, back) for part in final]
    return PackedSequence(packed(y, lengths)[0], batch_sizes, order, back), final


def _one_by_one(
    module: torch.nn.RNNBase,
    layers: Sequence[RunLayer],
    x: torch.Tensor,
    state: Tensors | None,
    weights: Tensors,
    lengths: torch.Tensor | None = None,
) -> tuple[torch.Tensor, Tensors]:
    """Run all layers on x (T, B, I)."""
    on_host = None if lengths is None else lengths.numpy()
    if module.num_layers == 1:
        y, *final = layers[0](weights, x, state, on_host)
        return y, final
    drops, directions, each = (
        module.training and module.dropout > 0,
        1 + module.bidirectional,
        len(weights) // module.num_layers,
    )
    finals = []
    for k, layer in enumerate(layers):
        if k and drops:
            x = _dropped(x, module.dropout, lengths)
        own = state and [part[k * directions : (k + 1) * directions] for part in state]
        x, *final = layer(weights[k * each : (k + 1) * each], x, own, on_host)
        finals.append(final)
    return x, [torch.cat(parts) for parts in zip(*finals, strict=True)]


def _dropped(x: torch.Tensor, rate: float, lengths: torch.Tensor | None) -> torch.Tensor:
    """x with the elements at zero that torch.nn puts at zero: it drops out of packed data."""
    if lengths is None:
        return torch.dropout(x, rate, True)
    data, batch_sizes = packed(x, lengths)
    return padded(torch.dropout(data, rate, True), batch_sizes, len(x))[0]
