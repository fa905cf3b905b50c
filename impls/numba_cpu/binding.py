"""Copies of functions with free names bound, under names that Numba's cache tells apart.

Numba's cache keeps compiled code between processes.  It identifies functions by name and source file, and does not notice
changes in the functions that they call, so the name of each copy includes what is bound and a digest of all sources.  The name
also includes the dtype: of two processes that save two signatures under one name at the same time, one could load the
other's code.

The functions that they call need names of their own too.  Numba tells functions of one name apart by a counter, which starts
anew in every process.  Compiled by two processes, two callees of one name and signature can thus share a symbol; a third
process that loads both callers from the cache links both to the first.
"""

import functools
import hashlib
import types
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from numba.extending import register_jitable

from rnnbench.jit.target import Target


def variant(dtype: np.dtype, target: Target) -> str:
    """The part of a name that identifies a dtype, a target and the sources."""
    return f"{dtype.name}_{target.bytes}x{target.registers}{'_dots' * target.dots}_{_digest()}"


def inlined(dtype: np.dtype) -> Callable[[Any], Any]:
    """A decorator: LLVM copies the function into the functions of ``dtype`` that call it.

    Each is compiled once.  Numba's own inlining (``inline="always"``) would infer its types again at each call.
    """
    return lambda function: register_jitable(forceinline=True)(named(function, f"{dtype.name}_{_digest()}"))


def bound(function: Any, key: str, names: dict[str, Any]) -> Any:
    """A copy of ``function`` with ``names`` among its globals, named after the function and ``key``."""
    copy = types.FunctionType(function.__code__, {**function.__globals__, **names}, f"{function.__name__}_{key}")
    copy.__qualname__ = copy.__name__
    copy.__module__ = function.__module__
    return copy


def named(function: Any, key: str) -> Any:
    """Add ``key`` to the name of a function, plain or jitted but not yet compiled, whose code depends on what it encloses."""
    plain = getattr(function, "py_func", function)
    plain.__name__ = plain.__qualname__ = f"{plain.__name__}_{key}"
    return function


@functools.cache
def _digest() -> str:
    packages = ("rnnbench.impls.numba_cpu", "rnnbench.jit")
    sources = [source for package in packages for source in resources.files(package).iterdir()]
    sources += [resources.files("rnnbench.networks") / "cells.py", resources.files("rnnbench.models") / "equations.py"]
    texts = [source.read_bytes() for source in sorted(sources, key=lambda s: s.name) if source.name.endswith(".py")]
    return hashlib.sha256(b"".join(texts)).hexdigest()[:12]
