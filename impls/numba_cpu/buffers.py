"""Arrays that are used again by the next call of the same shape, so that the steady state allocates and clears nothing."""

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

import numpy as np

_SHAPES_KEPT = 2
"""Of sequences: truncated BPTT meets two, its window and what is left at the end."""


class Buffers:
    """Arrays, handed out uninitialised and taken back.  Several threads may use it at once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._free: OrderedDict[tuple[int, int], dict[Any, list[np.ndarray]]] = OrderedDict()

    def take(self, sequence: tuple[int, int], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """An array for a call on a sequence of (T, B)."""
        with self._lock:
            free = self._of(sequence).get((shape, dtype))
            if free:
                return free.pop()
        return np.empty(shape, dtype)

    def give_back(self, sequence: tuple[int, int], arrays: Iterable[np.ndarray]) -> None:
        """Each array once, when nothing refers to it any longer."""
        with self._lock:
            free = self._of(sequence)
            for array in arrays:
                free.setdefault((array.shape, array.dtype), []).append(array)

    def _of(self, sequence: tuple[int, int]) -> dict[Any, list[np.ndarray]]:
        if sequence not in self._free:
            self._free[sequence] = {}
            while len(self._free) > _SHAPES_KEPT:
                self._free.popitem(last=False)
        self._free.move_to_end(sequence)
        return self._free[sequence]
