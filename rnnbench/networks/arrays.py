"""Array operations for stacking layers, joining directions and truncating BPTT, on any backend's arrays."""

from collections.abc import Sequence
from typing import Any, Literal, Protocol

import array_api_compat
import numpy as np

from rnnbench.errors import ArgumentError


class Arrays(Protocol):
    """Operations on a backend's own arrays; all return new arrays and leave their arguments unchanged."""

    def zeros(self, shape: tuple[int, ...]) -> Any: ...

    def concat(self, arrays: Sequence[Any], axis: int) -> Any: ...

    def add(self, a: Any, b: Any) -> Any: ...


class NumpyArrays:
    """Operations on NumPy arrays of one dtype."""

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype

    def zeros(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.zeros(shape, self.dtype)

    def concat(self, arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
        return np.concatenate(arrays, axis)

    def add(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        with numpy_errors():
            return a + b


class StandardArrays:
    """Operations on arrays of any library that array-api-compat supports (NumPy, PyTorch, CuPy, JAX, ...).

    ``like``: an array with the library, dtype and device to use.  Raises ArgumentError for any other object.
    """

    def __init__(self, like: Any) -> None:
        if not array_api_compat.is_array_api_obj(like):
            raise ArgumentError(
                f"arrays are {type(like).__module__}.{type(like).__name__}; expected arrays of the array API standard, "
                "or a network with an attribute `arrays` (rnnbench.networks.arrays.Arrays)"
            )
        self._like: Any = like
        self._namespace = array_api_compat.array_namespace(like)

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self._namespace.zeros(shape, dtype=self._like.dtype, device=array_api_compat.device(self._like))

    def concat(self, arrays: Sequence[Any], axis: int) -> Any:
        return self._namespace.concat(arrays, axis=axis)

    def add(self, a: Any, b: Any) -> Any:
        return a + b


def arrays_of(network: Any, like: Any) -> Arrays:
    """Return the network's ``arrays`` if it has them, else the operations of the library of ``like``."""
    return getattr(network, "arrays", None) or StandardArrays(like)


NUMPY_ERRORS: dict[str, Literal["ignore", "warn"]] = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""NumPy's default handling of floating-point exceptions."""


def numpy_errors() -> np.errstate:
    """Restore NumPy's default handling of floating-point exceptions, so that a caller's errstate makes no call fail.

    Exceptions that the caller ignores stay ignored.
    """
    current: Any = np.geterr()
    settings: dict[str, Any] = {
        kind: "ignore" if current[kind] == "ignore" else default for kind, default in NUMPY_ERRORS.items()
    }
    return np.errstate(**settings)


def check_plain(name: str, array: Any) -> None:
    """Raise ArgumentError for a subclass of numpy.ndarray, such as a masked array or one with units.

    The arithmetic would lose the information that the subclass adds.  A numpy.memmap adds none and is accepted.
    """
    if isinstance(array, np.ndarray) and type(array) not in (np.ndarray, np.memmap):
        kind = type(array)
        raise ArgumentError(
            f"{name} is a {kind.__module__}.{kind.__name__}; expected a plain numpy.ndarray: "
            "the information that the subclass adds would be lost"
        )
