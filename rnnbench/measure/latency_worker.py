"""The worker process that times single steps of one backend's streams.

``python -m rnnbench.measure.latency_worker BACKEND REQUESTS REPLIES``, as ``rnnbench.processes.worker_process`` starts it.
"""

import gc
import sys
import time
from array import array
from typing import Any

import msgspec
import numpy as np

from rnnbench.check.problem import Problem
from rnnbench.check.streaming import streamed
from rnnbench.check.tolerance import closed_form
from rnnbench.measure.latency import WARM_UP_STEPS, Distribution, distribution
from rnnbench.networks.contract import told, unsupported
from rnnbench.networks.params import init_params
from rnnbench.networks.registry import load_backend
from rnnbench.processes.worker_process import serve
from rnnbench.suite.case import Case

_INPUTS = 64
"""Number of different x_t, which steps read in turn."""

_COMPARED = 8
"""Number of steps that are compared with the reference before any is timed."""


class LatencyWorker:
    """One backend in this process; each public method answers the request of the same name."""

    def __init__(self, name: str) -> None:
        self._backend: Any = load_backend(name)

    def info(self) -> dict[str, Any]:
        return told(self._backend)

    def refusal(self, case: Case) -> str | None:
        """Return why the backend has no stream for a case, or None."""
        if reason := unsupported(self._backend, case.spec(), "forward"):
            return reason
        if case.bidirectional:
            return "A bidirectional network has no stream."
        return None if hasattr(self._network(case), "stream") else "Its networks have no stream."

    def steps(self, case: Case, count: int, frame: float, seed: int) -> Distribution:
        """Time ``count`` steps, each until ``synchronize`` returns; raises ValueError if the check's promise is broken."""
        backend, net, spec = self._backend, self._network(case), case.spec()
        random = np.random.default_rng(seed)
        x = random.standard_normal((_INPUTS, case.B, case.I)).astype(spec.numpy_dtype)
        inputs = [backend.asarray(x_t) for x_t in x]
        self._compare(case)
        stream = net.stream(case.B)
        self._times(stream, inputs, WARM_UP_STEPS)
        gc.collect()
        gc.disable()
        try:
            before = _preemptions()
            times = self._times(stream, inputs, count)
            return distribution(times, frame, _preemptions() - before)
        finally:
            gc.enable()

    def _times(self, stream: Any, inputs: list[Any], count: int) -> np.ndarray:
        """Seconds of each step."""
        step, synchronize, clock = stream.step, self._backend.synchronize, time.perf_counter_ns
        times = array("q", bytes(8 * count))
        for number in range(count):
            x_t = inputs[number % _INPUTS]
            started = clock()
            step(x_t)
            synchronize()
            times[number] = clock() - started
        return np.frombuffer(times, np.int64) * 1e-9

    def _compare(self, case: Case) -> None:
        problem = Problem(msgspec.structs.replace(case, T=_COMPARED))
        worst = max(streamed(self._backend, problem, closed_form(problem)), key=lambda finding: finding.ratio)
        if not worst.passed:
            error = "" if worst.error is None else f"{worst.error:.2g}, tolerance {worst.tolerance:.2g}"
            raise ValueError(f"steps differ from forward by {error or worst.reason} ({worst.tensor})")

    def _network(self, case: Case) -> Any:
        return self._backend.load(case.spec(), init_params(case.spec(), 0), threads=case.threads)


def _preemptions() -> int:
    """How often the system has taken the processor away from this thread so far; 0 where it does not say."""
    if sys.platform != "linux":
        return 0
    import resource

    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


if __name__ == "__main__":
    serve(LatencyWorker)
