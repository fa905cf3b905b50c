"""BufferPool that are used again by the next call of the same shape, so that the steady state allocates and clears nothing."""

from collections import OrderedDict
from collections.abc import Hashable
from threading import Lock
from typing import Any

_SHAPES_KEPT = 2
"""Of sequences: truncated BPTT meets two, its window and what is left at the end."""


class BufferPool:
    """All arrays that a kind of call on a sequence of (T, B) needs, as one object.  Several threads may take and give back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._free: OrderedDict[tuple[int, int], dict[Hashable, list[Any]]] = OrderedDict()

    def take(self, sequence: tuple[int, int], kind: Hashable) -> Any | None:
        """One that was given back, or None."""
        with self._lock:
            free = self._of(sequence).get(kind)
            return free.pop() if free else None

    def give_back(self, sequence: tuple[int, int], kind: Hashable, room: Any) -> None:
        """Once, when nothing refers to its arrays any longer."""
        with self._lock:
            self._of(sequence).setdefault(kind, []).append(room)

    def _of(self, sequence: tuple[int, int]) -> dict[Hashable, list[Any]]:
        if sequence not in self._free:
            self._free[sequence] = {}
            while len(self._free) > _SHAPES_KEPT:
                self._free.popitem(last=False)
        self._free.move_to_end(sequence)
        return self._free[sequence]
