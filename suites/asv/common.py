"""Base class of the asv benchmarks: the backend is the first parameter, set-up is not timed, calls are synchronised."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import rnnbench
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import make_input

BACKENDS = ("numpy_ref", "numba_cpu", "numba_cuda", "torch_nn", "torch_eager")
"""Backends to measure, the same on all machines and commits, to make results comparable; asv shows n/a if one cannot run."""


def loaded(backend: str) -> Any:
    """The backend's module; raises NotImplementedError, asv's n/a, where it cannot run here."""
    try:
        return rnnbench.load_backend(backend)
    except (rnnbench.BackendUnavailable, rnnbench.UnknownBackend) as error:  # unknown at older commits
        raise NotImplementedError(str(error)) from error


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def tracked(unit: str, setup: Callable[..., None] | None = None) -> Callable[[Any], Any]:
    """Decorate a track benchmark with its unit and an optional set-up of its own."""

    def mark(method: Any) -> Any:
        method.unit = unit
        if setup:
            method.setup = setup
        return method

    return mark


def needs_memory_counter(backend: str, value: int) -> None:
    from rnnbench.measure.memory import measurable

    if not measurable():
        raise NotImplementedError("this system has no resettable peak memory counter")


def relative_error(got: Iterable[np.ndarray], wanted: Iterable[np.ndarray]) -> float:
    """Norm of (got - wanted) over norm of wanted, over all arrays together."""
    error = norm = 0.0
    for one, other in zip(got, wanted, strict=True):
        error += float(np.sum(np.square(one - other)))
        norm += float(np.sum(np.square(other)))
    return math.sqrt(error / norm)


class NetworkBenchmark(ABC):
    """One network on each backend; a subclass defines the network and the parameter that varies.

    The class is abstract, so asv ignores it.  asv's peak memory is that of the whole process: it includes libraries, and the
    compiler if the JIT cache was empty.  ``extra_memory`` is the memory of one call alone.
    """

    timeout = 300  # seconds; the first set-up of a JIT backend compiles
    repeat = (5, 100, 1.0)  # asv times a single call per sample: at least 5 of them, and up to 100 within a second

    _ready: tuple[str, int] | None = None

    @abstractmethod
    def case(self, value: int) -> Case:
        """Return the case for one value of the varying parameter."""

    def setup(self, backend: str, value: int) -> None:
        """Load the network and run the timed calls once, so that nothing compiles during timing."""
        if self._ready == (backend, value):  # asv runs the set-up again before every timed call
            return
        self.of = self.case(value)
        if self.of.threads > processors():
            raise NotImplementedError(f"{self.of.threads} threads on {processors()} processors")
        self.backend = loaded(backend)
        reason = self.backend.supports(self.of.spec())
        if reason:
            raise NotImplementedError(reason)
        self.params = rnnbench.init_params(self.of.spec(), seed=0)
        self.inputs = make_input(self.of, seed=0)
        self.window = self.of.window or self.of.T
        self.load()
        if self.of.phase == "tbptt":
            self.tbptt()
        else:
            self.forward()
            self.step()
        self._ready = backend, value

    def load(self) -> None:
        self.net = self.backend.load(self.of.spec(), self.params, threads=self.of.threads)
        self.x, self.dy = self.backend.asarray(self.inputs.x), self.backend.asarray(self.inputs.dy)
        self.state, self.dstate = (tuple(map(self.backend.asarray, part)) for part in (self.inputs.state, self.inputs.dstate))

    def forward(self) -> None:
        self.net.forward(self.x, self.state)
        self.backend.synchronize()

    def step(self) -> None:
        _, _, tape = self.net.record(self.x, self.state)
        self.net.backward(tape, self.dy, self.dstate)
        self.backend.synchronize()

    def tbptt(self) -> None:
        rnnbench.tbptt(self.net, self.x, self.dy, self.window, state=self.state)
        self.backend.synchronize()

    def extra_memory(self, call: Callable[[], None]) -> int:
        """Peak resident bytes of a call above the loaded network; all code must have run before."""
        from rnnbench.measure.memory import peak_above

        self.load()  # a used network keeps the arrays of its last call
        return peak_above(call)

    def gradients(self, window: int) -> list[np.ndarray]:
        """Gradients of all parameters from truncated BPTT with this window, as float64; T means full BPTT."""
        _, _, grads = rnnbench.tbptt(self.net, self.x, self.dy, window, state=self.state)
        self.backend.synchronize()
        return [np.asarray(self.backend.to_numpy(grads.params[name]), np.float64) for name in self.params]

    def exact_gradients(self) -> list[np.ndarray]:
        """Gradients from full BPTT of the reference in float64, with the same weights and inputs."""
        reference = rnnbench.load_backend("numpy_ref")
        spec = self.of.spec()
        exact = rnnbench.Spec(spec.cell, spec.input_size, spec.hidden_size, dtype="float64")
        inputs = self.inputs.map(lambda array: array.astype(np.float64))
        net = reference.load(exact, {name: value.astype(np.float64) for name, value in self.params.items()})
        _, _, grads = rnnbench.tbptt(net, inputs.x, inputs.dy, self.of.T, state=inputs.state)
        return [grads.params[name] for name in self.params]
