"""What implementations on the CPU share: the contract for NumPy arrays in host memory, and the process's number of threads."""

import os

import numpy as np

from rnnbench.spec import Spec


def asarray(array: np.ndarray) -> np.ndarray:
    return np.asarray(array)


def to_numpy(array: np.ndarray) -> np.ndarray:
    return array


def synchronize() -> None:
    """Calls return when they are done."""


def process_threads(variable: str) -> int:
    """What an environment variable asks for, else as many threads as processors that this process may use."""
    asked = os.environ.get(variable, "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def supports(spec: Spec) -> str | None:
    return None
