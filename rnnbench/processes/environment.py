"""What a backend's process sees of the user's environment: the same wherever it is asked, checked or measured."""

import os
from collections.abc import Iterable

from rnnbench.errors import ArgumentError

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # XLA's
)

PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "XDG_CACHE_HOME",
    "NUMBA_CACHE_DIR",  # a run gives its own, which is empty at first
    "CUDA_VISIBLE_DEVICES",
    "RNNBENCH_SIMULATE_CUDA",
    "RNNBENCH_RESULTS",
)
"""Of the user's environment, all that a backend's process sees besides what ``--env`` names."""


def process_threads(variable: str) -> int:
    """What an environment variable asks for, else as many threads as processors that this process may use."""
    asked = os.environ.get(variable, "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def surroundings(threads: int | None = None, env: Iterable[str] = ()) -> dict[str, str]:
    """The environment of a backend's process: ``PASSED_ON``, the variables named in ``env``, and its number of threads.

    ``threads=None``: what this process's variables say, else 1.
    """
    found = {name: os.environ[name] for name in (*PASSED_ON, *env) if name in os.environ}
    return found | {name: str(threads or os.environ.get(name, 1)) for name in THREAD_VARIABLES}


def named(env: Iterable[str] | None) -> list[str]:
    """The variables that ``--env`` names, each once; raises ArgumentError for one that is not set, or is a setting."""
    names = list(dict.fromkeys(env or ()))
    for name in names:
        if name in THREAD_VARIABLES:
            raise ArgumentError(f"--env is {name!r}; expected another variable: each case sets its number of threads")
        if name not in os.environ:
            raise ArgumentError(f"--env is {name!r}; expected the name of a variable that is set")
    return names
