"""Tensors as NumPy arrays and back, in the same memory; packed sequences as padded ones and back."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnbench.networks.bfloat16 import bfloat16

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
"""Names of the dtypes that run on numba_cpu."""


def conversions(dtype: str) -> tuple[Callable[[torch.Tensor], np.ndarray], Callable[[np.ndarray], torch.Tensor]]:
    """How a dense CPU tensor of this dtype becomes an array, without its history, and an array a tensor."""
    return (_bits_of, _of_bits) if dtype == "bfloat16" else (_array_of, torch.from_numpy)


def _array_of(tensor: torch.Tensor) -> np.ndarray:
    return (tensor.detach() if tensor.requires_grad else tensor).numpy()


def _bits_of(tensor: torch.Tensor) -> np.ndarray:  # numpy() does not know bfloat16
    return tensor.detach().view(torch.int16).numpy().view(bfloat16())


def _of_bits(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)


def padded(data: torch.Tensor, batch_sizes: torch.Tensor, steps: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The sequences of packed data as (T, B, N), longest first, and their lengths."""
    return pad_packed_sequence(PackedSequence(data, batch_sizes), total_length=steps)


def packed(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed data of sequences (T, B, N), longest first, and the batch sizes."""
    sequence = pack_padded_sequence(x, lengths)
    return sequence.data, sequence.batch_sizes
