"""The process in which one backend is examined, or the reference computes: what it is asked and answers."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from rnnbench.check.comparing import Finding
from rnnbench.check.shrinking import Smallest
from rnnbench.processes import worker_process
from rnnbench.processes.environment import worker_environment


class WorkerProcess(worker_process.WorkerProcess):
    """One backend, with one thread unless a variable such as OMP_NUM_THREADS asks for more: backends that run at once hinder
    each other less.  ``env``: variables that it sees besides the usual ones."""

    answers: ClassVar[Mapping[str, Any]] = {
        "supports": str | None,
        "examine": list[Finding],
        "explain": list[Finding],
        "expect": None,
        "smallest": Smallest | None,
    }

    def __init__(self, backend: str, env: Iterable[str] = ()) -> None:
        super().__init__("rnnbench.check.worker", backend, worker_environment(env=env))
