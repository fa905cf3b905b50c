"""On-disk cache of machine code: each kernel is compiled once, on any machine, with or without a GPU.

``KEY.json`` describes a kernel and names its cubin, ``HASH.cubin``, by content.  Files are written once and never changed, so
any number of processes may read and write at the same time.  The key covers everything that the machine code depends on: the
sources of this package and of the cells, values that the kernel encloses, argument types, launch bounds, the target device,
numba-cuda and the compiler libraries.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place, and no compiled module:
# pyright: reportAttributeAccessIssue=false

import functools
import hashlib
import inspect
import json
import os
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np
from llvmlite import ir
from numba.cuda import types as numba_types

from rnnbench.impls.numba_cuda.offline import Binary, compile_kernel
from rnnbench.networks import cells, spec
from rnnbench.networks.spec import Spec
from rnnbench.results.disk import replace

FOLDER = "RNNBENCH_CUBINS"
"""Environment variable with the folder of the cache; by default within Numba's cache, else beside this file."""

COMPILERS = "compilers.json"
"""File in a folder copied from another machine that names the compiler libraries used there, so that other versions here do not
cause recompilation."""

_HASH = 24
"""Number of hexadecimal digits in a file name."""


def folder() -> Path:
    """The folder of the cache."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    return Path(os.environ.get("NUMBA_CACHE_DIR") or Path(__file__).with_name("__pycache__"), "cubins")


def compiled(function: Callable[..., None], signature: Any, threads: int, capability: tuple[Any, ...]) -> Binary:
    """``compile_kernel`` of the same arguments, from disk if present.

    Warns about a broken file, and compiles the kernel again; warns about a kernel that cannot be written, each time.
    """
    described = {
        "kernel": identity(function),
        "arguments": str(signature.args),
        "threads": threads,
        "capability": list(capability),
        "versions": versions(),
        "sources": sources(),
    }
    path = folder() / f"{_hash(json.dumps(described).encode())}.json"
    found = _read(path)
    if found is None:
        found = compile_kernel(function, signature, threads, capability)
        _write(path, found, described)
    return found


def identity(value: Any) -> Any:
    """Identity of a function among all that the same sources create, as JSON: its position and all values it encloses.

    Raises TypeError for a value that it cannot distinguish from others of its type.
    """
    if isinstance(value, (np.generic, np.dtype, numba_types.Type, ir.Type, Spec)):
        return [type(value).__name__, str(value)]
    if isinstance(value, (str, int, float, type(None))):
        return value
    if isinstance(value, (tuple, list)):
        return [type(value).__name__, *map(identity, value)]
    if isinstance(value, (type, BuiltinFunctionType)):
        return [value.__module__, value.__qualname__]
    if isinstance(value, ModuleType):
        return ["module", value.__name__]
    if isinstance(value, FunctionType):
        code = value.__code__
        enclosed = inspect.getclosurevars(value).nonlocals
        file = Path(code.co_filename)
        place = file.name if file in _modules() else _hash(file.read_bytes())
        return [
            place,
            code.co_firstlineno,
            value.__qualname__,
            *([name, identity(enclosed[name])] for name in sorted(enclosed)),
        ]
    for attribute in ("py_func", "_defn"):  # of a device function, of an intrinsic
        if hasattr(value, attribute):
            return [attribute, identity(getattr(value, attribute))]
    raise TypeError(f"a kernel encloses a {type(value).__module__}.{type(value).__qualname__}, which has no identity")


@functools.cache
def sources() -> str:
    """Hash of the sources of all modules that create kernels, and of the modules they depend on."""
    return _hash(b"".join(path.read_bytes() for path in _modules()))


_OTHERS = {"ahead.py", "audit.py", "event_timer.py", "bringup.py"}
"""Modules without kernels of networks; a kernel in one of them is identified by the whole file."""


def _modules() -> list[Path]:
    ours = [path for path in sorted(Path(__file__).parent.glob("*.py")) if path.name not in _OTHERS]
    return [*ours, Path(cells.__file__), Path(spec.__file__)]


def versions() -> dict[str, Any]:
    """Versions of numba-cuda and of the compiler libraries: those that ``COMPILERS`` names, or else those found here."""
    brought = folder() / COMPILERS
    return {"numba-cuda": version("numba-cuda"), **(json.loads(brought.read_text()) if brought.exists() else compilers())}


@functools.cache
def compilers() -> dict[str, Any]:
    """Versions of the compiler libraries found here."""
    from cuda.bindings import nvjitlink, nvvm

    return {"nvvm": list(nvvm.ir_version()), "nvjitlink": list(nvjitlink.version())}


def _read(path: Path) -> Binary | None:
    """A stored kernel; None where it is missing or broken."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        kept = json.loads(text)["binary"]
        cubin = path.with_name(f"{kept['cubin']}.cubin").read_bytes()
        if _hash(cubin) != kept["cubin"]:
            raise ValueError("its cubin is not what was written")
        return Binary(**kept | {"cubin": cubin})
    except (OSError, ValueError, LookupError, TypeError) as error:
        warnings.warn(f"{path} is broken ({error}): the kernel is compiled anew", stacklevel=2)
        return None


def _write(path: Path, binary: Binary, described: dict[str, Any]) -> None:
    name = _hash(binary.cubin)
    kept = binary._asdict() | {"cubin": name}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path.with_name(f"{name}.cubin"), [binary.cubin])
        replace(path, [json.dumps(described | {"binary": kept}).encode()])
    except OSError as error:
        warnings.warn(f"{path} cannot be written ({error.strerror}): the kernel is not kept", stacklevel=2)


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_HASH]
