"""How backends are found: by the entry-point groups in which installed packages register them, or by the path of a file."""

import importlib
import importlib.util
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

from rnnbench.errors import BackendBroken, BackendUnavailable, UnknownBackend
from rnnbench.networks.contract import FILE_PREFIX, Backend, unavailable

GROUP, PEERS, CHOOSERS = "rnnbench.backends", "rnnbench.peers", "rnnbench.choosers"


class Listing(NamedTuple):
    """A registered backend: its name and, where it cannot run here, the reason."""

    name: str
    reason: str | None

    @property
    def available(self) -> bool:
        return self.reason is None


def backends() -> list[Listing]:
    """List the registered backends, sorted by name.  Imports each one to learn whether it can run here."""
    return [Listing(name, _reason(name)) for name in sorted(registered(GROUP))]


def peers() -> list[Listing]:
    """List the same of the registered peers: implementations to measure against, which take part only where they are named."""
    return [Listing(name, _reason(name)) for name in sorted(registered(PEERS))]


def choosers() -> list[Listing]:
    """List the same of the registered choosers: they run others' networks, and take part only where they are named."""
    return [Listing(name, _reason(name)) for name in sorted(registered(CHOOSERS))]


def shipped(name: str) -> bool:
    """Whether a backend is one of this package's."""
    entry = registered(GROUP, PEERS, CHOOSERS).get(name)
    return entry is not None and entry.value.startswith("rnnbench.impls.")


def load_backend(name: str) -> Backend:
    """Import the backend registered as ``name``, or the module in the file ``name`` if it ends in .py.

    Raises UnknownBackend, or BackendUnavailable with what would mend it.
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
    except Exception as error:  # a library that is installed but broken may raise anything while it loads
        raise BackendBroken(f"{name} cannot be imported: {type(error).__name__}: {error}") from error
    try:
        reason = unavailable(module)
    except Exception as error:  # whatever it raises is why it cannot run
        raise BackendBroken(f"{name} cannot run here: unavailable raised {type(error).__name__}: {error}") from error
    if reason:
        raise BackendUnavailable(f"{name} cannot run here: {reason}")
    return _complete(module, name)


def reference_backend() -> Any:
    """The module of the reference, which offers its ``Layer`` and ``Arithmetic`` besides the contract."""
    return load_backend("numpy_ref")


def registered(*groups: str) -> dict[str, EntryPoint]:
    """Who is registered in these groups, by name, without importing any; raises UnknownBackend for two of one name."""
    found: dict[str, EntryPoint] = {}
    for entry in (entry for group in groups for entry in entry_points(group=group)):
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
    sys.modules[name] = module  # pickle, dataclasses and Numba look a function's module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does while it loads is its author's to mend
        raise BackendBroken(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return _complete(module, str(path))


def _complete(module: Any, shown: str) -> Any:
    """The module, once it is known to have all functions of the contract; raises UnknownBackend."""
    lacking = [name for name in ("load", "asarray", "to_numpy", "synchronize", "supports", "info") if not hasattr(module, name)]
    if lacking:
        raise UnknownBackend(f"{shown} is no backend: it lacks {', '.join(lacking)}")
    return module
