"""The contract of a backend: a module that fulfils ``Backend``, whose ``load`` returns a ``Network``."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from rnnbench.errors import BackendBroken
from rnnbench.networks.spec import Spec

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
