"""The client side of a worker process that measures one backend."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypedDict

import msgspec

from rnnbench.measure.affinity import on_processors
from rnnbench.processes import worker_process
from rnnbench.processes.environment import worker_environment

START_LIMIT = 120.0
"""Time limit for a worker to import its libraries, in seconds."""

Refusal = tuple[Literal["unsupported", "error"], str]
"""Why a backend refuses a case: its own reason, or the message of the error that it raised."""


class StartUp(TypedDict):
    """Durations of import, load and first call, in seconds."""

    import_s: float
    load_s: float
    first_call_s: float


class Sampled(TypedDict):
    """Samples in seconds per call, and the disturbances during them.

    ``device_samples``: timed by the device's clock, if the backend has a device timer.
    """

    samples: list[Annotated[float, msgspec.Meta(gt=0)]]
    device_samples: NotRequired[list[Annotated[float, msgspec.Meta(ge=0)]]]
    events: dict[str, float] | None


class WorkerProcess(worker_process.WorkerProcess):
    """A worker process that runs one backend with a fixed number of threads.

    ``jit_cache``: folder of the compilers' caches.  ``code``: folder to import rnnbench from; None for the installed one.
    ``processors``: a list such as ``0,2-3``; None for those of this process.  ``env``: names of further environment
    variables to pass on.
    """

    answers: ClassVar[Mapping[str, Any]] = {
        "code": str | None,
        "supports": list[Refusal | None],
        "prepare": StartUp,
        "gate": list[tuple[str, float | None, float, str | None]],
        "calibrate": float,
        "sample": Sampled | list[Annotated[float, msgspec.Meta(gt=0)]],  # a worker of an older commit: samples only
        "memory": int,
        "expect": None,
    }

    def __init__(
        self,
        backend: str,
        threads: int,
        jit_cache: Path,
        code: Path | None = None,
        processors: str | None = None,
        env: Iterable[str] = (),
    ) -> None:
        environment = worker_environment(threads, env)
        environment["NUMBA_CACHE_DIR"] = str(jit_cache / "numba")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(jit_cache / "torchinductor")
        environment["JAX_COMPILATION_CACHE_DIR"] = str(jit_cache / "jax")
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # other workers share the GPU's memory
        if code is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
        with on_processors(processors):
            super().__init__("rnnbench.measure.worker", backend, environment)
