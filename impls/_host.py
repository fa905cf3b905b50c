"""The part of the contract that is the same for all implementations on NumPy arrays in host memory."""

import numpy as np

from rnnbench.spec import Spec


def asarray(array: np.ndarray) -> np.ndarray:
    return np.asarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Calls return when they are done."""


def supports(spec: Spec) -> str | None:
    return None
