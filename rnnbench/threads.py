"""A number of threads that holds while a network runs, and no longer."""

import contextlib
from collections.abc import Callable
from typing import Any

import threadpoolctl

from rnnbench.errors import ArgumentError

Limits = Callable[[], contextlib.AbstractContextManager[Any]]
"""Called around each run of a network; ``contextlib.nullcontext`` leaves the process's setting."""


def check_threads(threads: int | None) -> None:
    """Raise ArgumentError unless ``threads`` is None or an integer >= 1."""
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, int) or threads < 1):
        raise ArgumentError(f"threads is {threads!r}; expected an integer >= 1, or None for the process's setting")


def blas_limits(threads: int | None) -> Limits:
    """Limits for the BLAS libraries that this process has loaded; raises ArgumentError."""
    check_threads(threads)
    if threads is None:
        return contextlib.nullcontext
    pools = threadpoolctl.ThreadpoolController()
    return lambda: pools.limit(limits=threads, user_api="blas")


def blas_info() -> dict[str, Any]:
    """``blas``, names and versions of the BLAS libraries in this process, and ``threads``, the most that one uses."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    names = dict.fromkeys(f"{pool['internal_api']} {pool['version']}" for pool in pools)
    return {"blas": ", ".join(names), "threads": max((pool["num_threads"] for pool in pools), default=1)}
