"""Tensors as NumPy arrays and back, in the same memory."""

import numpy as np
import torch

from rnnbench.networks.spec import BFLOAT16

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}
"""Names of the dtypes that run on numba_cpu."""


def array_of(tensor: torch.Tensor) -> np.ndarray:
    """The values of a dense CPU tensor of one of ``DTYPES``, without its history."""
    tensor = tensor.detach()
    if tensor.dtype is torch.bfloat16:  # numpy() does not know it
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def tensor_of(array: np.ndarray) -> torch.Tensor:
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
