"""Whether weights have changed since they were copied."""

import ctypes
import weakref
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

_SMALL = 1 << 20
"""Weights of at most so many bytes are compared as a whole at every call, which takes tens of microseconds at most."""

_MANY_ROWS = 16
"""Minimum number of rows (T * B) of calls that take much longer than a comparison of the weights as a whole."""

_SAMPLED = 256
"""Number of elements of each weight that other calls compare."""

_differ = ctypes.CDLL(None).memcmp
_differ.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)


class _Copy(NamedTuple):
    """The address, the size in bytes and the values (N,) of a copy."""

    address: int
    size: int
    values: np.ndarray


class Copies:
    """Copies of tensors, and what the tensors were when they were copied.

    A tensor's version counts the changes that torch knows of.  It does not change with what a program writes to ``data`` or to
    an array that shares its memory, as training loops do.  So contents are compared too, bit by bit: as a whole where that
    takes little time in comparison with the call, else 256 elements of each large tensor, others at each call.  A change of
    single elements of a large weight, of which torch does not know, can be missed until a longer call.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], copies: Iterable[np.ndarray]) -> None:
        self._copies = [_Copy(copy.ctypes.data, copy.nbytes, copy.reshape(-1)) for copy in copies]
        self._small = sum(copy.size for copy in self._copies) <= _SMALL
        self._calls = 0
        self._remember(tensors)

    def differ(self, tensors: Sequence[torch.Tensor], rows: int) -> bool:
        """Whether the tensors differ from the copies, for a call on so many rows."""
        if not self._small and rows < _MANY_ROWS and self._known(tensors):
            return self._samples_differ(tensors)
        if any(_contents_differ(tensor, copy) for tensor, copy in zip(tensors, self._copies, strict=True)):
            return True
        if not self._small:
            self._remember(tensors)
        return False

    def _remember(self, tensors: Sequence[torch.Tensor]) -> None:
        self._seen = [(weakref.ref(tensor), tensor.data_ptr(), _version(tensor)) for tensor in tensors]

    def _known(self, tensors: Sequence[torch.Tensor]) -> bool:
        """Whether these are the tensors that were compared last, unchanged as far as torch knows."""
        return all(
            seen() is tensor and address == tensor.data_ptr() and version == _version(tensor) and tensor.is_contiguous()
            for tensor, (seen, address, version) in zip(tensors, self._seen, strict=True)
        )

    def _samples_differ(self, tensors: Sequence[torch.Tensor]) -> bool:
        self._calls += 1
        for tensor, copy in zip(tensors, self._copies, strict=True):
            if copy.size <= _SMALL // 16:
                differ = _contents_differ(tensor, copy)
            else:
                step = -(-copy.values.size // _SAMPLED)
                bits, samples = _BITS[copy.values.itemsize], slice(self._calls % step, None, step)
                own = tensor.detach().view(bits[0]).numpy().reshape(-1)[samples]
                differ = (own != copy.values.view(bits[1])[samples]).any()
            if differ:
                return True
        return False


def _contents_differ(tensor: torch.Tensor, copy: _Copy) -> bool:
    tensor = tensor if tensor.is_contiguous() else tensor.contiguous()
    return _differ(tensor.data_ptr(), copy.address, copy.size) != 0


_BITS = {2: (torch.int16, np.int16), 4: (torch.int32, np.int32), 8: (torch.int64, np.int64)}
"""Integers of as many bytes: NaN equals itself, and 0 differs from -0."""


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version  # an inference tensor counts none
