"""The contract between rnnbench and an implementation, and how implementations are found.

A backend is a module that fulfils ``Backend``; ``load`` gives a ``Network``.  Installed modules announce themselves in
the entry-point group ``rnnbench.backends``; any file that fulfils the contract can be loaded by its path.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from rnnbench.errors import BackendBroken, BackendUnavailable, UnknownBackend
from rnnbench.spec import Spec

GROUP, PEERS, CHOOSERS = "rnnbench.backends", "rnnbench.peers", "rnnbench.choosers"

FILE_PREFIX = "rnnbench_user_"
"""Of the names of modules that were loaded from files."""

CPU = "cpu"
"""What a backend that names no device computes on."""

Array = Any
"""A backend's own array: numpy.ndarray, torch.Tensor, a device array, ..."""

State = tuple[Array, ...]
"""``(h,)``, ``(h, c)`` for lstm, ``(y,)`` for jordan; each (L*D, B, H), O instead of H for jordan."""


class Gradients(NamedTuple):
    """What BPTT gives: ``params`` by parameter name, ``x`` (T, B, I), ``state`` shaped as the initial state."""

    params: dict[str, Array]
    x: Array
    state: State


class Network(Protocol):
    """Weights on the device, ready to run.  x is (T, B, I), y is (T, B, D*H), time first; D*O for jordan."""

    def forward(self, x: Array, state: State | None = None) -> tuple[Array, State]:
        """Inference: y and the final state.  ``state=None`` starts from zeros."""
        ...

    def record(self, x: Array, state: State | None = None) -> tuple[Array, State, Any]:
        """Training forward: y, the final state and the tape that ``backward`` needs.  A tape is used once; several may
        be alive.  Until it is used it may refer to x, which must not be changed meanwhile."""
        ...

    def backward(self, tape: Any, dy: Array, dstate: State | None = None) -> Gradients:
        """BPTT: gradients of sum(dy * y) + sum(dstate * final state).  ``dstate=None`` means zeros."""
        ...

    def params(self) -> dict[str, np.ndarray]:
        """A copy of the weights as NumPy arrays, in the layout that ``load`` takes."""
        ...

    def update(self, params: Mapping[str, np.ndarray]) -> None:
        """Replace the weights.  Tapes recorded before keep the weights they were recorded with."""
        ...


class DeviceTimer(Protocol):
    """Times what a backend submits to a device, by the device's own clock, such as events on the stream of the work."""

    def start(self) -> None:
        """Mark the place before what is submitted next; waits for nothing."""
        ...

    def stop(self) -> None:
        """Mark the place behind what was submitted last; waits for nothing."""
        ...

    def seconds(self) -> float:
        """Between the two marks, once the device has passed them."""
        ...


class Backend(Protocol):
    """What the module of an implementation offers.

    Optional besides: ``unavailable()``, why it cannot run here, or None; ``supports_phase(spec, phase)``, for a backend
    without BPTT; ``device_timer()``, a new ``DeviceTimer``, or None where there is no device to time.
    """

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
        """``threads=None`` means the process's setting."""
        ...

    def asarray(self, array: np.ndarray) -> Array: ...

    def to_numpy(self, array: Array) -> np.ndarray: ...

    def synchronize(self) -> None:
        """Return when all submitted work is done."""
        ...

    def supports(self, spec: Spec) -> str | None:
        """None, or the reason why not."""
        ...

    def info(self) -> dict[str, Any]:
        """Library versions, device, threads.  ``device`` is "cpu" or the name of what else it computes on: reports compare
        backends of one device.  Without it a backend counts as one on the CPU."""
        ...


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


def load_backend(name: str) -> Any:
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


def unavailable(module: Any) -> str | None:
    """Why an imported backend cannot run here: what its optional function ``unavailable()`` answers, else None."""
    ask = getattr(module, "unavailable", None)
    return _sentence("unavailable", ask()) if ask else None


def unsupported(module: Any, spec: Spec, phase: str) -> str | None:
    """Why a backend cannot run a phase of a network: what ``supports(spec)`` answers, then its optional function
    ``supports_phase(spec, phase)``, for a backend without BPTT; None where it can.  Raises TypeError for another answer."""
    reason = _sentence("supports", module.supports(spec))
    ask = getattr(module, "supports_phase", None)
    return _sentence("supports_phase", ask(spec, phase)) if reason is None and ask else reason


def device_of(facts: Mapping[str, Any]) -> str:
    """What a backend computes on, by what its ``info`` says."""
    return str(facts.get("device") or CPU)


def device_timer(module: Any) -> DeviceTimer | None:
    """A timer of the device that a backend computes on, where it offers one."""
    ask = getattr(module, "device_timer", None)
    return ask() if ask else None


def told(module: Any) -> dict[str, Any]:
    """What ``info()`` answers; raises BackendBroken where it raises, or answers with something else than facts."""
    try:
        facts = module.info()
    except Exception as error:  # whichever it is, there is a backend that cannot even tell its versions
        raise BackendBroken(f"{_shown(module)} cannot run here: info raised {type(error).__name__}: {error}") from error
    if not isinstance(facts, dict) or not all(isinstance(name, str) for name in facts):
        raise BackendBroken(f"{_shown(module)} cannot run here: info returned {facts!r:.100}; expected facts by name")
    return facts


def _shown(module: Any) -> str:
    """How a user calls a module: the file that was loaded, or its last name."""
    name = getattr(module, "__name__", repr(module))
    return str(module.__file__) if name.startswith(FILE_PREFIX) else name.rpartition(".")[2]


def _sentence(function: str, answer: Any) -> str | None:
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise TypeError(f"{function} returned {answer!r:.100}; expected None, or the reason why not")
    return answer


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
