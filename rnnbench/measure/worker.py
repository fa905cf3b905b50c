"""The worker process that runs one backend.

``python -m rnnbench.measure.worker BACKEND REQUESTS REPLIES``, the last two file descriptors.  The protocol is that of
``rnnbench.processes.worker_process``.
"""

import functools
import gc
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check.comparing import compared
from rnnbench.check.expected_files import load_expected, save_expected
from rnnbench.check.problem import Prepared, Problem, called
from rnnbench.check.tolerance import closed_form, window_cost
from rnnbench.measure.affinity import affinity_violation
from rnnbench.measure.client import Refusal
from rnnbench.measure.disturbances import Watch
from rnnbench.measure.input_rotation import InputRotation
from rnnbench.measure.memory import peak_above
from rnnbench.measure.sampling import canary
from rnnbench.measure.source_digest import code_digest
from rnnbench.measure.thread_use import cores_used, threads_set
from rnnbench.networks.contract import CPU, DeviceTimer, device_of, device_timer, told
from rnnbench.networks.registry import load_backend
from rnnbench.processes.worker_process import serve
from rnnbench.suite.case import Case, refusal

WARM_UP_CALLS = 3


class Worker:
    """One backend in this process; each public method answers the request of the same name."""

    def __init__(self, name: str) -> None:
        self._watch = Watch()
        started = time.perf_counter()
        self._backend = load_backend(name)
        self._import_seconds = time.perf_counter() - started
        gc.collect()
        gc.freeze()  # else the libraries' objects are scanned before every sample, which takes longer than it
        self._prepared: Prepared | None = None
        self._rotation: InputRotation | None = None
        self._sampled = False
        self._cpu_seconds = self._wall_seconds = 0.0  # over a case's samples

    def info(self) -> dict[str, Any]:
        return told(self._backend)

    def code(self) -> str | None:
        """Return a digest of the backend's source; None for a backend of rnnbench."""
        return code_digest(self._backend)

    def supports(self, cases: list[Case]) -> list[Refusal | None]:
        """Return why the backend refuses each case; None for a supported one."""
        return [self._refusal(case) for case in cases]

    def prepare(self, problem: Problem) -> dict[str, float]:
        """Load the network and call it once; return the seconds of import, load and first call."""
        self._watch.look()
        self._prepared, self._rotation, self._sampled = None, None, False
        self._cpu_seconds = self._wall_seconds = 0.0
        self._problem = problem
        inputs, params = problem.inputs(), problem.params()
        started = time.perf_counter()
        self._prepared = Prepared(self._backend, problem, inputs, params)
        self._backend.synchronize()
        loaded = time.perf_counter()
        self._call()
        return {
            "import_s": self._import_seconds,
            "load_s": loaded - started,
            "first_call_s": time.perf_counter() - loaded,
        }

    def gate(self, problem: Problem, reference: str) -> list[tuple[Any, ...]]:
        """Call the prepared network, which is the one timed, and compare every tensor with the file that ``expect`` wrote."""
        findings = compared(called(self._ready(), problem), load_expected(Path(reference)), problem.case.dtype)
        return [(finding.tensor, finding.error, finding.tolerance, finding.reason) for finding in findings]

    def calibrate(self) -> float:
        """Return the seconds of one warm call."""
        for _ in range(WARM_UP_CALLS - 1):
            self._rotated_call()
        started = time.perf_counter()
        self._rotated_call()
        return time.perf_counter() - started

    def sample(self, loops: int, count: int = 1, processors: str | None = None) -> dict[str, Any]:
        """Take ``count`` samples with the garbage collector off.

        ``samples``: seconds per call, each the mean of ``loops`` calls.  ``device_samples``: after each of them the same by
        the device's clock, of ``loops`` further calls with one synchronisation at the end; empty without a device timer.
        ``events``: the disturbances, with ``canary_s``, the slowest canary reading beside the samples.
        Raises RuntimeError for a wrong number of threads, for threads that may run outside ``processors``, and for calls
        that are not computed (``InputRotation.fault``).
        """
        first, self._sampled = not self._sampled, True
        if first:
            gc.collect()  # takes longer than most samples
        # other workers ran meanwhile; a long call warms itself up
        for _ in range(WARM_UP_CALLS - 1 if first else min(1, loops - 1)):
            self._rotated_call()
        self._watch.begin()
        gc.disable()
        try:
            started, cpu_started = time.perf_counter(), time.process_time()
            readings, samples, on_device = [canary()], [], []
            for _ in range(count):
                samples.append(self._seconds(loops))
                readings.append(canary())
                if self._timer:
                    on_device.append(self._device_seconds(self._timer, loops))
            self._cpu_seconds += time.process_time() - cpu_started
            self._wall_seconds += time.perf_counter() - started
        finally:
            gc.enable()
        events = self._watch.events()
        threads = self._ready().case.threads
        # GPU backends are not compared by host threads, and a driver may wait on its own core
        problem = cores_used(threads, self._cpu_seconds, self._wall_seconds) if self._on_cpu else None
        if first:
            problem = problem or threads_set(threads)
            problem = problem or (affinity_violation(processors) if processors else None) or self._inputs().fault()
        if problem:
            raise RuntimeError(problem)
        return {
            "samples": [seconds / loops for seconds in samples],
            "device_samples": [seconds / loops for seconds in on_device],
            "events": events and {**events, "canary_s": max(readings)},
        }

    def memory(self, problem: Problem) -> int:
        """Return the peak resident bytes of one call above the loaded network; all code has run before on a tiny problem."""
        tiny = replace(
            problem, case=msgspec.structs.replace(problem.case, T=2, B=1, window=problem.case.window and 1, stride=None)
        )
        self._load(tiny).call()
        self._prepared = self._rotation = None
        prepared = self._load(problem)

        def call() -> None:
            prepared.call()
            self._backend.synchronize()

        return peak_above(call)

    def cache_use(self) -> dict[str, tuple[int, int]]:
        """Return by folder of Numba's cache how many functions were loaded from it, and how many compiled into it."""
        compiler = sys.modules.get("rnnbench.jit.compiler")
        return {folder: (used.loaded, used.compiled) for folder, used in compiler.cache_use.items()} if compiler else {}

    def expect(self, problem: Problem, reference: str) -> None:
        """Write the reference's results and the tolerances in closed form to a file."""
        save_expected(Path(reference), closed_form(problem))

    def window_cost(self, problem: Problem) -> dict[str, float]:
        return window_cost(problem)

    def _refusal(self, case: Case) -> Refusal | None:
        try:
            reason = refusal(self._backend, case)
        except Exception as error:  # a backend may raise anything
            return "error", f"{type(error).__name__}: {error}"
        return ("unsupported", reason) if reason else None

    def _load(self, problem: Problem) -> Prepared:
        return Prepared(self._backend, problem, problem.inputs(), problem.params())

    def _ready(self) -> Prepared:
        if self._prepared is None:
            raise RuntimeError("asked to run before a case was prepared")
        return self._prepared

    def _seconds(self, loops: int) -> float:
        started = time.perf_counter()
        for _ in range(loops):
            self._rotated_call()
        return time.perf_counter() - started

    @functools.cached_property
    def _on_cpu(self) -> bool:
        return device_of(told(self._backend)) == CPU

    @functools.cached_property
    def _timer(self) -> DeviceTimer | None:
        return device_timer(self._backend)

    def _device_seconds(self, timer: DeviceTimer, loops: int) -> float:
        """Time ``loops`` calls by the device's clock; raises RuntimeError for a time that is negative or not finite."""
        inputs = self._inputs()
        timer.start()
        for _ in range(loops):
            inputs.call()
        timer.stop()
        self._backend.synchronize()
        seconds = timer.seconds()
        if not 0 <= seconds < math.inf:
            raise RuntimeError(f"the device timer gave {seconds} s; expected 0 or more")
        return seconds

    def _rotated_call(self) -> None:
        self._inputs().call()
        self._backend.synchronize()

    def _inputs(self) -> InputRotation:
        if self._rotation is None:
            prepared = self._ready()
            self._rotation = InputRotation(prepared, self._problem.inputs())
        return self._rotation

    def _call(self) -> None:
        self._ready().call()
        self._backend.synchronize()


if __name__ == "__main__":
    serve(Worker)
