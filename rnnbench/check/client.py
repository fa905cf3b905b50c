"""Client of a check worker: the process that tests one backend or runs the reference."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rnnbench.check.comparing import Finding
from rnnbench.check.shrinking import Smallest
from rnnbench.processes import worker_process
from rnnbench.processes.environment import worker_environment


class WorkerProcess(worker_process.WorkerProcess):
    """The worker process of one backend.

    It uses one thread unless a variable such as OMP_NUM_THREADS asks for more, so that parallel workers slow each other
    less.  ``env``: names of further environment variables to pass on.
    """

    answers: ClassVar[Mapping[str, Any]] = {
        "supports": str | None,
        "examine": list[Finding],
        "explain": list[Finding],
        "expect": None,
        "smallest": Smallest | None,
    }

    def __init__(self, backend: str, env: Iterable[str] = ()) -> None:
        super().__init__("rnnbench.check.worker", backend, worker_environment(env=env))
