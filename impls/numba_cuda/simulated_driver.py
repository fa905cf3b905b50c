"""The simulator's driver: counts allocations and waits as on a GPU, and captures launches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

Launch = Callable[[], None]


class Driver:
    """Counts ``allocations``, ``launches`` (including cleared memory) and ``synchronisations`` (waits of the host)."""

    def __init__(self) -> None:
        self.allocations = self.launches = self.synchronisations = 0
        self._graph: list[Launch] | None = None
        self._loaded: set[Any] = set()

    @property
    def capturing(self) -> bool:
        return self._graph is not None

    def memory(self, size: int) -> np.ndarray:
        """Allocate ``size`` bytes; zero bytes do not count."""
        self.allocations += size > 0
        return np.empty(size, np.uint8)

    def synchronise(self) -> None:
        self.synchronisations += 1

    def loaded(self, kernel: Any) -> bool:
        """Whether a kernel has been launched before."""
        return kernel in self._loaded

    def submit(self, run: Callable[..., None], kernel: Any, arguments: tuple[Any, ...], **how: int) -> None:
        """Run a kernel through ``run``, or capture its launch with the addresses of its arguments."""
        self._loaded.add(kernel)
        self._do(partial(run, kernel, _addresses(arguments), **how))

    def clear(self, array: np.ndarray) -> None:
        """Zero an array, in launch order."""
        self._do(partial(_addresses(array).fill, 0))

    def _do(self, launch: Launch) -> None:
        self.launches += 1
        if self._graph is None:
            launch()
        else:
            self._graph.append(launch)

    @contextmanager
    def captured(self) -> Iterator[list[Launch]]:
        """Append launches to a list instead of running them."""
        self._graph = launches = []
        try:
            yield launches
        finally:
            self._graph = None


DRIVER = Driver()


def _addresses(value: Any) -> Any:
    """Arguments as a GPU sees them: views of their memory that keep no lease alive."""
    if isinstance(value, tuple):
        parts = [_addresses(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if not isinstance(value, np.ndarray):
        return value
    owner: Any = value
    while isinstance(owner, np.ndarray) and owner.base is not None:
        owner = owner.base
    memory = getattr(owner, "memory", None)
    if memory is None:
        return value
    return np.ndarray(value.shape, value.dtype, memory, value.ctypes.data - memory.ctypes.data, value.strides)
