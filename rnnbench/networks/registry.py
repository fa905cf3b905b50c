"""Registry of backends: by entry point of installed packages, or by the path of a file."""

import functools
import importlib
import importlib.util
import sys
import time
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from rnnbench.errors import BackendBroken, BackendUnavailable, UnknownBackend
from rnnbench.networks.contract import FILE_PREFIX, Backend, unavailable
from rnnbench.networks.names import CHOOSERS, GROUP, PEERS

SETTLED = 2_000_000_000
"""Nanoseconds after a change to a folder of packages in which an installation may still add files to the new package."""


class Listing(NamedTuple):
    """A registered backend; ``reason`` says why it cannot run here, or is None."""

    name: str
    reason: str | None

    @property
    def available(self) -> bool:
        return self.reason is None


def backends() -> list[Listing]:
    """List the registered backends, sorted by name; imports each one to find out whether it can run here."""
    return [Listing(name, _reason(name)) for name in sorted(registered(GROUP))]


def peers() -> list[Listing]:
    """List the registered peers, as ``backends`` does.

    Peers are implementations to compare with; they take part only if they are named.
    """
    return [Listing(name, _reason(name)) for name in sorted(registered(PEERS))]


def choosers() -> list[Listing]:
    """List the registered choosers, as ``backends`` does.

    Choosers run the networks of other backends; they take part only if they are named.
    """
    return [Listing(name, _reason(name)) for name in sorted(registered(CHOOSERS))]


def shipped(name: str) -> bool:
    """Whether a backend is part of this package."""
    entry = registered(GROUP, PEERS, CHOOSERS).get(name)
    return entry is not None and entry.value.startswith("rnnbench.impls.")


def load_backend(name: str) -> Backend:
    """Import the backend registered as ``name``, or the module in the file ``name`` if it ends in .py.

    Raises UnknownBackend, or BackendUnavailable, whose message says how to fix it.
    """
    if name.endswith(".py"):
        return _load_file(Path(name))
    known = registered(GROUP, PEERS, CHOOSERS)
    if name not in known:
        raise UnknownBackend(f"unknown backend {name!r}; registered are {', '.join(sorted(known))}")
    try:
        module = importlib.import_module(known[name].value)
    except BackendUnavailable:
        raise
    except Exception as error:  # a broken library may raise anything on import
        raise BackendBroken(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        reason = unavailable(module)
    except Exception as error:  # any exception means that the backend cannot run
        raise BackendBroken(f"{name} cannot run here: unavailable raised {type(error).__name__}: {error}") from error
    if reason:
        raise BackendUnavailable(f"{name} cannot run here: {reason}")
    return _complete(module, name)


def reference_backend() -> Any:
    """Import the reference backend, which also has the classes ``Layer`` and ``Arithmetic``."""
    return load_backend("numpy_ref")


def registered(*groups: str) -> dict[str, EntryPoint]:
    """Return the entry points of these groups by name, without importing them; raises UnknownBackend for a duplicate name."""
    path = tuple(map(_state, sys.path))
    being_changed = any(state and time.time_ns() - state[-1] < SETTLED for state in path)
    search = _registered.__wrapped__ if being_changed else _registered
    return dict(search(entry_points, groups, path))


def _state(place: str) -> tuple[int, ...]:
    """What changes with a folder of packages, as importlib.metadata sees it: a package comes or goes."""
    try:
        found = Path(place).stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_mtime_ns


@functools.lru_cache(maxsize=16)  # a search reads the entry points of all installed packages
def _registered(
    search: Callable[..., Any], groups: tuple[str, ...], path: tuple[tuple[int, ...], ...]
) -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for entry in (entry for group in groups for entry in search(group=group)):
        other = found.setdefault(entry.name, entry)
        if other.value != entry.value:
            raise UnknownBackend(f"backend {entry.name!r} is registered twice: {other.value} and {entry.value}; uninstall one")
    return found


def _reason(name: str) -> str | None:
    try:
        load_backend(name)
    except (BackendUnavailable, UnknownBackend) as error:
        return " ".join(str(error).split())
    return None


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise UnknownBackend(f"no file {str(path)!r}; expected a registered backend or the path of a module")
    name = f"{FILE_PREFIX}{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pickle, dataclasses and Numba look up a function's module by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the file may raise anything on import
        raise BackendBroken(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return _complete(module, str(path))


def _complete(module: Any, shown: str) -> Any:
    """Return the module if it has all functions of a backend; raises UnknownBackend otherwise."""
    lacking = [name for name in ("load", "asarray", "to_numpy", "synchronize", "supports", "info") if not hasattr(module, name)]
    if lacking:
        raise UnknownBackend(f"{shown} is not a backend: it lacks {', '.join(lacking)}")
    return module
