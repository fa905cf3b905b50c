"""The contract of a backend: a module that implements ``Backend`` and whose ``load`` returns a ``Network``."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from rnnbench.errors import BackendBroken
from rnnbench.networks.spec import Spec

FILE_PREFIX = "rnnbench_user_"
"""Prefix of the names of modules loaded from files."""

CPU = "cpu"
"""Default device of a backend."""

Array = Any
"""A backend's own array: numpy.ndarray, torch.Tensor, a device array, ..."""

State = tuple[Array, ...]
"""``(h,)``, ``(h, c)`` for lstm, ``(y,)`` for jordan; each (L*D, B, H), O instead of H for jordan."""


class Gradients(NamedTuple):
    """Gradients of ``params`` by parameter name, of ``x`` (T, B, I), and of the initial ``state`` in its shape."""

    params: dict[str, Array]
    x: Array
    state: State


class Network(Protocol):
    """A loaded network.  x is (T, B, I) and y is (T, B, D*H), time first; y is (T, B, D*O) for jordan.

    Two more methods are optional.  ``stream(batch_size=1, state=None)`` returns a ``rnnbench.networks.Stream``, which runs the
    network one step at a time.  ``states(tape)`` returns the states after every step, each part (L*D, T, B, H).

    ``lengths``: the number of steps of each sequence, integers (B,) from 0 to T in any order, on the host; None means T for
    all.  From its length on, a row of x is not read, its y is zero, and its dy is ignored and its dx zero.  Its final state is
    the state at its length, and the reverse direction starts at its last step.  Only backends with ``supports_lengths`` have
    the argument.
    """

    def forward(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State]:
        """Run inference; return y and the final state.  ``state=None`` means zeros."""
        ...

    def record(self, x: Array, state: State | None = None, lengths: Any = None) -> tuple[Array, State, Any]:
        """Run forward for training; return y, the final state and the tape for ``backward``.

        A tape serves one ``backward``; several tapes may be alive.  The tape may refer to x, so do not change x before
        ``backward``.
        """
        ...

    def backward(self, tape: Any, dy: Array, dstate: State | None = None) -> Gradients:
        """Run BPTT; return the gradients of sum(dy * y) + sum(dstate * final state).  ``dstate=None`` means zeros."""
        ...

    def params(self) -> dict[str, np.ndarray]:
        """Return a copy of the weights as NumPy arrays, in the layout that ``load`` takes."""
        ...

    def update(self, params: Mapping[str, np.ndarray]) -> None:
        """Replace the weights.  Existing tapes keep the weights they were recorded with."""
        ...


class DeviceTimer(Protocol):
    """A timer of submitted work by the device's own clock, such as events on the stream of the work."""

    def start(self) -> None:
        """Start timing at the next submission; does not wait."""
        ...

    def stop(self) -> None:
        """Stop timing after the last submission; does not wait."""
        ...

    def seconds(self) -> float:
        """Return the seconds between start and stop; the device must have passed both."""
        ...


class Backend(Protocol):
    """The functions of a backend module.

    Four more are optional.  ``unavailable()`` returns None, or the reason why the backend cannot run here.
    ``supports_phase(spec, phase)`` returns the same for one phase; a backend without BPTT needs it.
    ``supports_lengths(spec)`` returns the same for sequences of different lengths; a backend whose networks take ``lengths``
    needs it.  ``device_timer()`` returns a new ``DeviceTimer``, or None if there is no device to time.
    """

    def load(self, spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
        """Load a network with these weights.  ``threads=None`` keeps the setting of the process."""
        ...

    def asarray(self, array: np.ndarray) -> Array: ...

    def to_numpy(self, array: Array) -> np.ndarray: ...

    def synchronize(self) -> None:
        """Return when all submitted work is done."""
        ...

    def supports(self, spec: Spec) -> str | None:
        """Return None if the backend supports the network, else the reason why not."""
        ...

    def info(self) -> dict[str, Any]:
        """Return library versions, device and threads.

        ``device`` names the device, by default "cpu"; reports compare backends of the same device.
        """
        ...


def unavailable(module: Any) -> str | None:
    """Return the reason why an imported backend cannot run here, or None; asks its optional ``unavailable()``."""
    function = getattr(module, "unavailable", None)
    return _reason("unavailable", function()) if function else None


def unsupported(module: Any, spec: Spec, phase: str) -> str | None:
    """Return the reason why a backend cannot run a phase of a network, or None.

    Asks ``supports(spec)``, then the optional ``supports_phase(spec, phase)``.  Raises TypeError for an invalid answer.
    """
    reason = _reason("supports", module.supports(spec))
    function = getattr(module, "supports_phase", None)
    return _reason("supports_phase", function(spec, phase)) if reason is None and function else reason


def unsupported_lengths(module: Any, spec: Spec) -> str | None:
    """Return the reason why a backend cannot run sequences of different lengths, or None.

    Asks the optional ``supports_lengths(spec)``.  Raises TypeError for an invalid answer.
    """
    function = getattr(module, "supports_lengths", None)
    if function is None:
        return f"{_shown(module)} takes no lengths: it has no function supports_lengths."
    return _reason("supports_lengths", function(spec))


def device_of(facts: Mapping[str, Any]) -> str:
    """Return the device of a backend, given its ``info``."""
    return str(facts.get("device") or CPU)


def device_timer(module: Any) -> DeviceTimer | None:
    """Return a timer of the backend's device, or None if it has none."""
    function = getattr(module, "device_timer", None)
    return function() if function else None


def told(module: Any) -> dict[str, Any]:
    """Return the result of ``info()``; raises BackendBroken if it raises, or returns anything but a dict by name."""
    try:
        facts = module.info()
    except Exception as error:  # whichever it is, there is a backend that cannot even tell its versions
        raise BackendBroken(f"{_shown(module)} cannot run here: info raised {type(error).__name__}: {error}") from error
    if not isinstance(facts, dict) or not all(isinstance(name, str) for name in facts):
        raise BackendBroken(f"{_shown(module)} cannot run here: info returned {facts!r:.100}; expected facts by name")
    return facts


def _shown(module: Any) -> str:
    """The name of a module for users: its file, if it was loaded from one, or the last part of its name."""
    name = getattr(module, "__name__", repr(module))
    return str(module.__file__) if name.startswith(FILE_PREFIX) else name.rpartition(".")[2]


def _reason(function: str, answer: Any) -> str | None:
    if answer is not None and not (isinstance(answer, str) and answer.strip()):
        raise TypeError(f"{function} returned {answer!r:.100}; expected None, or the reason why not")
    return answer
