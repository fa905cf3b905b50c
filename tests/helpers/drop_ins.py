"""A module of torch.nn and its drop-in with the same weights, and calls of both."""

import copy
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import rnnbench.torch

STEPS, BATCH, INPUT, HIDDEN = 7, 4, 3, 5
LENGTHS = [3, 7, 1, 5]


def pair(name: str, dtype: torch.dtype = torch.float64, **options: Any) -> tuple[torch.nn.RNNBase, torch.nn.RNNBase]:
    torch.manual_seed(0)
    own = getattr(torch.nn, name)(INPUT, HIDDEN, dtype=dtype, **options)
    return own, rnnbench.torch.convert(copy.deepcopy(own))


def arguments(module: torch.nn.RNNBase, kind: str = "padded", seed: int = 1) -> tuple[torch.Tensor, Any, list[torch.Tensor]]:
    """An input, a state and the leaves of both; ``kind`` is padded, packed or unbatched."""
    torch.manual_seed(seed)
    options = {"dtype": module.weight_hh_l0.dtype, "requires_grad": True}
    count, batch = module.num_layers * (1 + module.bidirectional), () if kind == "unbatched" else (BATCH,)
    leaf = torch.randn(*((*batch, STEPS) if module.batch_first else (STEPS, *batch)), INPUT, **options)
    sizes = (module.proj_size or HIDDEN, HIDDEN)[: 1 + (module.mode == "LSTM")]
    state = tuple(torch.randn(count, *batch, size, **options) for size in sizes)
    given: Any = leaf
    if kind == "packed":
        given = pack_padded_sequence(leaf, LENGTHS, batch_first=module.batch_first, enforce_sorted=False)
    return given, state if module.mode == "LSTM" else state[0], [leaf, *state]


def tensors(results: Any) -> list[torch.Tensor]:
    """y and the parts of the final state."""
    y, final = results
    return [y.data if isinstance(y, PackedSequence) else y, *(final if isinstance(final, tuple) else (final,))]


def loss(results: Any) -> torch.Tensor:
    return sum((part**power).sum() for power, part in enumerate(tensors(results), 2))


def outcome(module: torch.nn.RNNBase, kind: str = "padded", seed: int = 1) -> list[torch.Tensor]:
    """y, the final state, and the gradients of input, state and parameters."""
    given, hx, leaves = arguments(module, kind, seed)
    torch.manual_seed(9)  # of dropout
    results = module(given, hx)
    return [*tensors(results), *torch.autograd.grad(loss(results), [*leaves, *module.parameters()])]
