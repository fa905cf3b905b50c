"""The environment variables of worker processes, the same for every command."""

import os
from collections.abc import Iterable

from rnnbench.errors import ArgumentError

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NPROC",  # for XLA
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
    "NUMBA_CACHE_DIR",  # a run sets its own, initially empty folder
    "CUDA_VISIBLE_DEVICES",
    "RNNBENCH_SIMULATE_CUDA",
    "RNNBENCH_RESULTS",
)
"""Variables passed from the user's environment to workers; ``--env`` adds further ones."""


def process_threads(variable: str) -> int:
    """Return the number of threads that an environment variable asks for, else the number of usable processors."""
    value = os.environ.get(variable, "")
    if value.isdecimal() and int(value) > 0:
        return int(value)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_environment(threads: int | None = None, env: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of a worker: ``PASSED_ON``, the variables named in ``env``, and the number of threads.

    ``threads=None`` takes the number from this process's variables, else 1.
    """
    found = {name: os.environ[name] for name in (*PASSED_ON, *env) if name in os.environ}
    return found | {name: str(threads or os.environ.get(name, 1)) for name in THREAD_VARIABLES}


def named(env: Iterable[str] | None) -> list[str]:
    """Check the variables named by ``--env`` and drop duplicates; raises ArgumentError if one is unset or reserved."""
    names = list(dict.fromkeys(env or ()))
    for name in names:
        if name in THREAD_VARIABLES:
            raise ArgumentError(f"--env is {name!r}; expected another variable: each case sets its number of threads")
        if name not in os.environ:
            raise ArgumentError(f"--env is {name!r}; expected the name of a variable that is set")
    return names
