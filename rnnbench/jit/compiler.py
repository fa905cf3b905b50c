"""Numba's compiler as the kernels need it: whether it compiles at all, and where it keeps what it has compiled."""

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
    """Compiled code cannot be kept for later processes."""


def unavailable() -> str | None:
    """Why nothing can be compiled here, or None."""
    if getattr(config, "DISABLE_JIT"):  # noqa: B009  # set when Numba is imported
        return "NUMBA_DISABLE_JIT is set, and the kernels exist as compiled code alone: unset it"
    return None


def require_jit() -> None:
    """Raise BackendUnavailable where nothing can be compiled."""
    if reason := unavailable():
        raise BackendUnavailable(f"numba_cpu cannot run here: {reason}")


def cached(function: Callable[..., Any], **options: Any) -> Any:
    """``njit`` with options; what it compiles is kept between processes where there is a place for it.

    Where there is none it warns (NoCache), once a process, and compiles all the same.
    """
    dispatcher = njit(**options)(function)
    try:
        dispatcher.enable_caching()
    except RuntimeError:  # no locator of Numba's found a folder
        _warn_once()
    return dispatcher


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(_NO_CACHE, NoCache, stacklevel=2)


_warned = False
