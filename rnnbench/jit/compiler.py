"""Numba's compiler for the kernels: whether it is enabled, and caching between processes."""

import dataclasses
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
from numba import config, njit, types
from numba.core import sigutils
from numba.core.ccallback import CFunc

from rnnbench.errors import BackendUnavailable

_NO_CACHE = (
    "Numba finds no folder that it can write compiled code to, so every process compiles the kernels of numba_cpu anew, which "
    "takes seconds; set NUMBA_CACHE_DIR to one"
)


_COMPILING = (
    "numba_cpu compiles its kernels on the first call of a cell, for 10 seconds to a minute; `rnnbench warm` does so "
    "beforehand\n"
)


@dataclasses.dataclass
class CacheUse:
    """How many functions this process loaded from a folder of Numba's cache, and how many it had to compile."""

    loaded: int = 0
    compiled: int = 0


cache_use: dict[str, CacheUse] = {}
"""By folder."""


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


def external(function: Callable[..., Any], signature: Any, **options: Any) -> Any:
    """Compile a function now, or load it from Numba's cache; give a name by which compiled code calls it.

    Its callers hold a symbol and not its code, which they would otherwise compile again.  Each function needs its own name.
    """
    symbol = f"rnnbench_{function.__name__}"
    if symbol not in _exported:
        with _exporting:
            if symbol not in _exported:
                compiled = CFunc(function, sigutils.normalize_signature(signature), {}, {"nopython": True, **options})
                _keep_compiled_code(compiled)
                compiled.compile()
                llvm.add_symbol(symbol, compiled.address)
                _exported[symbol] = compiled
    return types.ExternalFunction(symbol, signature)


_exported: dict[str, CFunc] = {}
"""The functions behind the symbols, which compiled code may call until the process ends."""

_exporting = threading.Lock()


def cached(function: Callable[..., Any], **options: Any) -> Any:
    """Apply ``njit`` with options, and cache compiled code between processes.

    Without a writable cache folder it warns (NoCache) once per process, and compiles without a cache.
    """
    dispatcher = njit(**options)(function)
    _keep_compiled_code(dispatcher)
    return dispatcher


def _keep_compiled_code(compiled: Any) -> None:
    try:
        compiled.enable_caching()
    except RuntimeError:  # Numba found no writable folder
        _warn_once()
    else:
        _watch(compiled._cache)


def _watch(cache: Any) -> None:
    """Count what is loaded from Numba's cache and what is not there, and announce the first compilation."""
    load = cache.load_overload

    def load_overload(*arguments: Any) -> Any:
        found = load(*arguments)
        used = cache_use.setdefault(cache.cache_path, CacheUse())
        if found is None:
            used.compiled += 1
            _announce_once()
        else:
            used.loaded += 1
        return found

    cache.load_overload = load_overload


def _announce_once() -> None:
    global _announced
    if not _announced and sys.stderr is not None and sys.stderr.isatty():
        _announced = True
        sys.stderr.write(_COMPILING)


_announced = False


def _warn_once() -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(_NO_CACHE, NoCache, stacklevel=2)


_warned = False
