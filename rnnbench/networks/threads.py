"""A number of threads that holds while a network runs, and no longer."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import threadpoolctl

from rnnbench.errors import ArgumentError

Limits = Callable[[], contextlib.AbstractContextManager[Any]]
"""Called around each run of a network; ``contextlib.nullcontext`` leaves the process's setting."""


def check_threads(threads: int | None) -> int | None:
    """``threads`` as Python's own integer; raises ArgumentError unless it is None or an integer >= 1."""
    if threads is None:
        return None
    if isinstance(threads, bool) or not isinstance(threads, int | np.integer) or threads < 1:
        raise ArgumentError(f"threads is {threads!r}; expected an integer >= 1, or None for the process's setting")
    return int(threads)


def together(*limits: Limits) -> Limits:
    """Several limits as one."""

    @contextlib.contextmanager
    def all_of_them() -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            for limit in limits:
                stack.enter_context(limit())
            yield

    return all_of_them


def blas_limits(threads: int | None) -> Limits:
    """Limits for the BLAS libraries that this process has loaded; raises ArgumentError."""
    threads = check_threads(threads)
    if threads is None:
        return contextlib.nullcontext
    libraries = threadpoolctl.ThreadpoolController().select(user_api="blas").lib_controllers

    @contextlib.contextmanager
    def limited() -> Iterator[None]:  # the controller's own limit() takes 0.2 ms, longer than a small network runs
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
    """``blas``, names and versions of the BLAS libraries in this process, and ``threads``, the most that one uses."""
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas"]
    names = sorted({f"{pool['internal_api']} {pool['version']}" for pool in pools})  # they are listed as they were loaded
    return {"blas": ", ".join(names), "threads": max((pool["num_threads"] for pool in pools), default=1)}
