"""All layers of a module: one layer after the other, with dropout between them, on padded or packed sequences."""

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

_CELLS = {"LSTM": ("lstm", "tanh"), "GRU": ("gru", "tanh"), "RNN_TANH": ("elman", "tanh"), "RNN_RELU": ("elman", "relu")}


def layers_of(module: torch.nn.RNNBase, dtype: torch.dtype) -> list[Layer]:
    """New layers of a module, which compute in ``dtype``."""
    cell, nonlinearity = _CELLS[module.mode]
    width = (module.proj_size or module.hidden_size) * (1 + module.bidirectional)
    options: dict[str, Any] = {"nonlinearity": nonlinearity, "bidirectional": module.bidirectional, "bias": module.bias}
    options |= {"projection_size": module.proj_size or None, "dtype": DTYPES[dtype]}
    return [
        Layer(Spec(cell, width if k else module.input_size, module.hidden_size, **options)) for k in range(module.num_layers)
    ]


def run_stack(
    module: torch.nn.RNNBase, layers: Sequence[Layer], given: Any, hx: Any, weights: Tensors, dtype: torch.dtype
) -> tuple[Any, Any]:
    """Run a module's layers on numba_cpu; the arguments are those of its ``forward``, and fit."""
    state: Any = hx if hx is None or module.mode == "LSTM" else (hx,)
    is_packed = isinstance(given, PackedSequence)
    x: Any = given.data if is_packed else given
    if casts := weights[0].dtype is not dtype or x.dtype is not dtype:  # autocast
        own_dtype, x, weights = x.dtype, x.to(dtype), [weight.to(dtype) for weight in weights]
    if state is not None and (casts or state[0].dtype is not dtype):
        state = [part.to(dtype) for part in state]
    y: Any
    if is_packed:
        y, final = _on_packed(module, layers, given._replace(data=x), state, weights)
    else:
        y, final = _on_padded(module, x, state, weights, lambda k, *arguments: run(layers[k], *arguments))
    if casts and module.mode == "GRU":  # torch.nn.GRU returns its input's dtype there, the others autocast's
        y, final = y.to(own_dtype), [part.to(own_dtype) for part in final]
    return y, tuple(final) if module.mode == "LSTM" else final[0]


def in_a_graph(module: torch.nn.RNNBase, x: torch.Tensor, hx: Any) -> tuple[Any, Any]:
    """The same as operators that torch.compile and torch.export put into their graphs."""
    weights = [getattr(module, name) for name in module._flat_weights_names]
    cell, nonlinearity = _CELLS[module.mode]

    def run_operator(k: int, weights: Tensors, x: torch.Tensor, state: Any) -> Tensors:
        return operators.layer(x, state, weights, cell, nonlinearity, module.bidirectional, module.bias)

    unbatched = x.dim() == 2
    batch = 1 if unbatched else x.shape[0 if module.batch_first else 1]
    if hx is None:
        count = module.num_layers * (1 + module.bidirectional)
        sizes = (module.proj_size or module.hidden_size, module.hidden_size)[: 1 + (module.mode == "LSTM")]
        state = [x.new_zeros((count, batch, size)) for size in sizes]
        state = [part[:, 0] for part in state] if unbatched else state
    else:
        state = hx if module.mode == "LSTM" else (hx,)
    y, final = _on_padded(module, x, state, weights, run_operator)
    return y, tuple(final) if module.mode == "LSTM" else final[0]


def _on_padded(
    module: torch.nn.RNNBase, x: torch.Tensor, state: Tensors | None, weights: Tensors, run_layer: Callable[..., Tensors]
) -> tuple[torch.Tensor, Tensors]:
    """Run all layers on x (T, B, I), (B, T, I) or (T, I)."""
    unbatched = x.dim() == 2
    if unbatched:
        x, state = x.unsqueeze(1), state and [part.unsqueeze(1) for part in state]
    elif module.batch_first:
        x = x.transpose(0, 1)
    y, final = _one_by_one(module, x, state, weights, run_layer, lambda x: torch.dropout(x, module.dropout, True))
    if unbatched:
        return y.squeeze(1), [part.squeeze(1) for part in final]
    return y.transpose(0, 1) if module.batch_first else y, final


def _on_packed(
    module: torch.nn.RNNBase, layers: Sequence[Layer], given: PackedSequence, state: Any, weights: Tensors
) -> tuple[PackedSequence, Tensors]:
    """Run all layers on a packed sequence, which is padded: numba_cpu takes lengths, and computes nothing for padding."""
    data, batch_sizes, order, back = given
    x, lengths = padded(data, batch_sizes)
    if state is not None and order is not None:
        state = [part.index_select(1, order) for part in state]
    steps = lengths.numpy()

    def run_layer(k: int, weights: Tensors, x: torch.Tensor, state: Any) -> Tensors:
        return run(layers[k], weights, x, state, steps)

    def dropped(x: torch.Tensor) -> torch.Tensor:  # the same elements as in torch.nn, which drops out of packed data
        data = torch.dropout(packed(x, lengths)[0], module.dropout, True)
        return padded(data, batch_sizes, len(x))[0]

    y, final = _one_by_one(module, x, state, weights, run_layer, dropped)
    if back is not None:
        final = [part.index_select(1, back) for part in final]
    return PackedSequence(packed(y, lengths)[0], batch_sizes, order, back), final


def _one_by_one(
    module: torch.nn.RNNBase,
    x: torch.Tensor,
    state: Tensors | None,
    weights: Tensors,
    run_layer: Callable[..., Tensors],
    dropped: Callable[[torch.Tensor], torch.Tensor],
) -> tuple[torch.Tensor, Tensors]:
    """Run all layers on x (T, B, I)."""
    if module.num_layers == 1:
        y, *final = run_layer(0, weights, x, state)
        return y, final
    drops, directions, each = (
        module.training and module.dropout > 0,
        1 + module.bidirectional,
        len(weights) // module.num_layers,
    )
    finals = []
    for k in range(module.num_layers):
        own = state and [part[k * directions : (k + 1) * directions] for part in state]
        x, *final = run_layer(k, weights[k * each : (k + 1) * each], x, own)
        finals.append(final)
        if drops and k + 1 < module.num_layers:
            x = dropped(x)
    return x, [torch.cat(parts) for parts in zip(*finals, strict=True)]
