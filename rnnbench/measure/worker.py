"""The process that runs one backend: ``python -m rnnbench.measure.worker BACKEND REQUESTS REPLIES`` (two file descriptors).

It answers one JSON line to each JSON line.  Standard output is not used, so nothing that a library prints there can be
taken for an answer.  An exception is an answer too: {"error": ...}; the next request finds the process as it was.
"""

import gc
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from rnnbench.backend import load_backend
from rnnbench.check import Expected, Prepared, Problem, compared, expected, outputs, window_cost
from rnnbench.measure.memory import peak_above

WARM_UP_CALLS = 3


class Worker:
    """One backend in this process; each public method answers the request of its name."""

    def __init__(self, name: str) -> None:
        started = time.perf_counter()
        self._backend = load_backend(name)
        self._import_seconds = time.perf_counter() - started
        gc.collect()
        gc.freeze()  # what the libraries made stays; looking through it before every sample took longer than the sample
        self._prepared: Prepared | None = None

    def info(self) -> dict[str, Any]:
        return self._backend.info()

    def prepare(self, problem: Problem) -> dict[str, float]:
        """Load the network and call it once; seconds of import, load and first call."""
        self._prepared = None
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
        """Compare every tensor with the reference in a file that ``expect`` wrote."""
        with np.load(reference, allow_pickle=False) as file:
            names = [name.removeprefix("value ") for name in file.files if name.startswith("value ")]
            tolerances = {name: float(file[f"tolerance {name}"]) for name in names}
            wanted = Expected({name: file[f"value {name}"] for name in names}, tolerances)
        return [tuple(f) for f in compared(outputs(self._backend, problem), wanted, problem.case.dtype)]

    def calibrate(self) -> float:
        """Seconds of one warm call."""
        for _ in range(WARM_UP_CALLS - 1):
            self._call()
        started = time.perf_counter()
        self._call()
        return time.perf_counter() - started

    def sample(self, loops: int, count: int) -> list[float]:
        """``count`` samples of seconds per call, each the mean of ``loops`` calls, the garbage collector off."""
        for _ in range(WARM_UP_CALLS - 1):
            self._call()
        samples = []
        gc.collect()
        gc.disable()
        try:
            for _ in range(count):
                started = time.perf_counter()
                for _ in range(loops):
                    self._call()
                samples.append((time.perf_counter() - started) / loops)
        finally:
            gc.enable()
        return samples

    def memory(self, problem: Problem) -> int:
        """Peak resident bytes of one call above the loaded network, all code having run before on a tiny problem."""
        tiny = replace(
            problem, case=msgspec.structs.replace(problem.case, T=2, B=1, window=problem.case.window and 1, stride=None)
        )
        self._load(tiny).call()
        self._prepared = None
        prepared = self._load(problem)

        def call() -> None:
            prepared.call()
            self._backend.synchronize()

        return peak_above(call)

    def expect(self, problem: Problem, reference: str) -> None:
        """Write the reference's outputs and tolerances to a file."""
        wanted = expected(problem)
        arrays = {f"value {name}": value for name, value in wanted.values.items()}
        arrays |= {f"tolerance {name}": np.float64(value) for name, value in wanted.tolerances.items()}
        with Path(reference).open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]

    def window_cost(self, problem: Problem) -> dict[str, float]:
        return window_cost(problem)

    def _load(self, problem: Problem) -> Prepared:
        return Prepared(self._backend, problem, problem.inputs(), problem.params())

    def _call(self) -> None:
        if self._prepared is None:
            raise RuntimeError("asked to run before a case was prepared")
        self._prepared.call()
        self._backend.synchronize()


def serve(worker: Worker, requests: Any, replies: Any) -> None:
    """Answer requests until the other side closes."""
    for line in requests:
        request = json.loads(line)
        arguments = request["arguments"]
        if "problem" in arguments:
            arguments["problem"] = msgspec.convert(arguments["problem"], Problem)
        try:
            answer = {"answer": getattr(worker, request["call"])(**arguments)}
        except Exception as error:  # the parent stores it as the backend's failure and goes on
            answer = {"error": f"{type(error).__name__}: {error}"}
        _write(replies, answer)


def _write(replies: Any, answer: dict[str, Any]) -> None:
    replies.write(msgspec.json.encode(answer) + b"\n")
    replies.flush()


def main() -> None:
    name, requests, replies = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    with os.fdopen(requests, "rb") as incoming, os.fdopen(replies, "wb") as outgoing:
        try:
            worker = Worker(name)
        except Exception as error:
            _write(outgoing, {"error": f"{type(error).__name__}: {error}"})
            return
        _write(outgoing, {"answer": worker.info()})
        serve(worker, incoming, outgoing)


if __name__ == "__main__":
    main()
