"""Tensors as NumPy arrays and back, in the same memory; packed sequences as padded ones and back."""

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from rnnbench.networks.spec import BFLOAT16

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
"""Names of the dtypes that run on numba_cpu."""


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The values of a dense CPU tensor of one of ``DTYPES``, without its history."""
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # numpy() does not know it
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def tensor_of(array: np.ndarray) -> torch.Tensor:
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def padded(data: torch.Tensor, batch_sizes: torch.Tensor, steps: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The sequences of packed data as (T, B, N), longest first, and their lengths."""
    return pad_packed_sequence(PackedSequence(data, batch_sizes), total_length=steps)


def packed(x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The packed data of sequences (T, B, N), longest first, and the batch sizes."""
    sequence = pack_padded_sequence(x, lengths)
    return sequence.data, sequence.batch_sizes
