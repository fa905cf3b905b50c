"""The process that measures one backend: what it sees of the user's environment, and how many threads it has."""

import os
from pathlib import Path

from rnnbench import process
from rnnbench.measure.affinity import on_processors
from rnnbench.process import THREAD_VARIABLES

PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "VIRTUAL_ENV",
    "PYTHONPATH",
    "CUDA_VISIBLE_DEVICES",
    "RNNBENCH_SIMULATE_CUDA",
    "RNNBENCH_RESULTS",
)
"""Of the user's environment, all that a worker sees."""

START_LIMIT = 120.0
"""Seconds that a worker may take to import its libraries."""


class WorkerProcess(process.WorkerProcess):
    """One backend with a fixed number of threads and the caches of its compilers in a folder.

    ``code``: a folder whose package rnnbench it imports instead of the installed one.  ``processors``: a list such as
    ``0,2-3``; None for those of this process.
    """

    def __init__(
        self, backend: str, threads: int, jit_cache: Path, code: Path | None = None, processors: str | None = None
    ) -> None:
        environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        environment |= dict.fromkeys(THREAD_VARIABLES, str(threads))
        environment["NUMBA_CACHE_DIR"] = str(jit_cache / "numba")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(jit_cache / "torchinductor")
        environment["JAX_COMPILATION_CACHE_DIR"] = str(jit_cache / "jax")
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # it takes most of a GPU's memory, which others work in too
        if code is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
        with on_processors(processors):
            super().__init__("rnnbench.measure.worker", backend, environment)
