"""Thread limits that apply only while a network runs."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl

from rnnbench.errors import ArgumentError

Limits = Callable[[], contextlib.AbstractContextManager[Any]]
"""Factory of a context manager around each run; ``contextlib.nullcontext`` keeps the setting of the process."""


def check_threads(threads: int | None) -> int | None:
    """Return ``threads`` as a Python int or None; raises ArgumentError unless it is None or an integer >= 1."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ArgumentError(f"threads is {threads!r}; expected an integer >= 1, or None for the process's setting")
    return int(threads)


def together(*limits: Limits) -> Limits:
    """Combine several limits."""

    @contextlib.contextmanager
    def combined() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for limit in limits:
                stack.enter_context(limit())
            yield

    return combined


def blas_limits(threads: int | None) -> Limits:
    """Limit the threads of all BLAS libraries loaded in this process; raises ArgumentError."""
    threads = check_threads(threads)
    if threads is None:
        return contextlib.nullcontext
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers

    @contextlib.contextmanager
    def limited() -> Iterator[None]:  # threadpoolctl's own limit() takes 0.2 ms, longer than a small network runs
        before = [library.num_threads for library in libraries]
        for library in libraries:
            library.set_num_threads(threads)
        try:
            yield
        finally:
            for library, number in zip(libraries, before, strict=True):
                library.set_num_threads(number)

    return limited


def blas_info() -> dict[str, Any]:
    """Return ``blas``, names and versions of the loaded BLAS libraries, and ``threads``, their largest number of threads."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    names = sorted({f"{pool['internal_api']} {pool['version']}" for pool in pools})  # the pools come in order of loading
    return {"blas": ", ".join(names), "threads": max((pool["num_threads"] for pool in pools), default=1)}
