"""Numba's compiler for the kernels: whether it is enabled, and caching between processes."""

import warnings
from collections.abc import Callable
from typing import Any

from numba import config, njit

from rnnbench.errors import BackendUnavailable

_NO_CACHE = (
    "Numba finds no folder that it can write compiled code to, so every process compiles the kernels of numba_cpu anew, which "
    "takes seconds; set NUMBA_CACHE_DIR to one"
)


class NoCache(RuntimeWarning):
    """Compiled code cannot be cached for later processes."""


def unavailable() -> str | None:
    """Return why nothing can be compiled here, or None."""
    if getattr(config, "DISABLE_JIT"):  # noqa: B009  # set when Numba is imported
        return "NUMBA_DISABLE_JIT is set, and the kernels exist as compiled code alone: unset it"
    return None


def require_jit() -> None:
    """Raise BackendUnavailable if nothing can be compiled."""
    if reason := unavailable():
        raise BackendUnavailable(f"numba_cpu cannot run here: {reason}")


def cached(function: Callable[..., Any], **options: Any) -> Any:
    """Apply ``njit`` with options, and cache compiled code between processes.

    Without a writable cache folder it warns (NoCache) once per process, and compiles without a cache.
    """
    dispatcher = njit(**options)(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # Numba found no writable folder
        _warn_once()
    return dispatcher


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(_NO_CACHE, NoCache, stacklevel=2)


_warned = False
