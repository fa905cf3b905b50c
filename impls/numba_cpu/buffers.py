"""Buffers by shape of the sequence, reused by later calls: steady-state calls allocate only their results."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

_SHAPES_KEPT = 2
"""Number of sequence shapes whose buffers are kept: truncated BPTT needs two, its window and the shorter last one."""


class BufferPool:
    """Pool of buffers by (T, B) and kind of call, each holding all arrays that such a call needs.  Thread-safe."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._free: OrderedDict[tuple[int, int], dict[Hashable, list[Any]]] = OrderedDict()

    def take(self, sequence: tuple[int, int], kind: Hashable) -> Any | None:
        """Take a free buffer out of the pool; None where there is none."""
        with self._lock:
            free = self._of(sequence).get(kind)
            return free.pop() if free else None

    def give_back(self, sequence: tuple[int, int], kind: Hashable, buffer: Any) -> None:
        """Return a buffer to the pool, once, when nothing refers to its arrays any longer."""
        with self._lock:
            self._of(sequence).setdefault(kind, []).append(buffer)

    def _of(self, sequence: tuple[int, int]) -> dict[Hashable, list[Any]]:
        if sequence not in self._free:
            self._free[sequence] = {}
            while len(self._free) > _SHAPES_KEPT:
                self._free.popitem(last=False)
        self._free.move_to_end(sequence)
        return self._free[sequence]
