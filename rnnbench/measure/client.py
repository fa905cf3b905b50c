"""The process that measures one backend: what it is asked and answers, and how many threads it has."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NotRequired, TypedDict

import msgspec

from rnnbench.measure.affinity import on_processors
from rnnbench.processes import worker_process
from rnnbench.processes.environment import surroundings

START_LIMIT = 120.0
"""Seconds that a worker may take to import its libraries."""

Refusal = tuple[Literal["unsupported", "error"], str]
"""Why a backend does not take part in a case: its own reason, or the words of what it raised when it was asked."""


class StartUp(TypedDict):
    """Seconds of import, load and first call."""

    import_s: float
    load_s: float
    first_call_s: float


class Sampled(TypedDict):
    """Seconds per call of each sample, also by the clock of a device where the backend has one, and what the machine did."""

    samples: list[Annotated[float, msgspec.Meta(gt=0)]]
    device_samples: NotRequired[list[Annotated[float, msgspec.Meta(ge=0)]]]
    events: dict[str, float] | None


class WorkerProcess(worker_process.WorkerProcess):
    """One backend with a fixed number of threads and the caches of its compilers in a folder.

    ``code``: a folder whose package rnnbench it imports instead of the installed one.  ``processors``: a list such as
    ``0,2-3``; None for those of this process.  ``env``: variables that it sees besides the usual ones.
    """

    answers: ClassVar[Mapping[str, Any]] = {
        "code": str | None,
        "supports": list[Refusal | None],
        "prepare": StartUp,
        "gate": list[tuple[str, float | None, float, str | None]],
        "calibrate": float,
        "sample": Sampled
        | list[Annotated[float, msgspec.Meta(gt=0)]],  # the samples alone: of a worker that runs the code of an older commit
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
        environment = surroundings(threads, env)
        environment["NUMBA_CACHE_DIR"] = str(jit_cache / "numba")
        environment["TORCHINDUCTOR_CACHE_DIR"] = str(jit_cache / "torchinductor")
        environment["JAX_COMPILATION_CACHE_DIR"] = str(jit_cache / "jax")
        environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # it takes most of a GPU's memory, which others work in too
        if code is not None:
            environment["PYTHONPATH"] = os.pathsep.join([str(code), *filter(None, [os.environ.get("PYTHONPATH")])])
        with on_processors(processors):
            super().__init__("rnnbench.measure.worker", backend, environment)
