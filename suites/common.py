"""What all asv benchmarks share: a backend as the first parameter, set-up outside the timing, calls that wait."""

from abc import ABC, abstractmethod
from typing import Any

import rnnbench
from rnnbench.inputs import make_input
from rnnbench.store import Case

BACKENDS = ("numpy_ref", "numba_cpu", "numba_cuda", "torch_nn", "torch_eager")
"""The same list everywhere, so that results of different machines and commits lie side by side; asv shows n/a for those
that cannot run."""


class NetworkBenchmark(ABC):
    """One network on each backend; a subclass says which, and what varies.  Abstract, so asv passes it over.

    Peak memory is, as asv takes it, the whole process's: libraries, and the compiler where the JIT cache was empty.
    """

    timeout = 300  # seconds; the first set-up of a JIT backend compiles

    @abstractmethod
    def case(self, value: int) -> Case:
        """The case for one value of what varies."""

    def setup(self, backend: str, value: int) -> None:
        """Load the network and run what is timed once, so that nothing compiles later."""
        case = self.case(value)
        self.backend = self._loaded(backend)
        spec = case.spec()
        reason = self.backend.supports(spec)
        if reason:
            raise NotImplementedError(reason)
        self.net = self.backend.load(spec, rnnbench.init_params(spec, seed=0), threads=case.threads)
        inputs = make_input(case, seed=0)
        self.x, self.dy = self.backend.asarray(inputs.x), self.backend.asarray(inputs.dy)
        self.state = self._arrays(inputs.state)
        self.dstate = self._arrays(inputs.dstate)
        self.window = case.window or case.T
        if case.phase == "tbptt":
            self.tbptt()
        else:
            self.forward()
            self.step()

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

    def _arrays(self, parts: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(self.backend.asarray(part) for part in parts)

    @staticmethod
    def _loaded(backend: str) -> Any:
        try:
            return rnnbench.load_backend(backend)
        except (rnnbench.BackendUnavailable, rnnbench.UnknownBackend) as error:  # unknown: an older commit is measured
            raise NotImplementedError(str(error)) from error
