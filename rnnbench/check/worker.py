"""The worker process that tests one backend: ``python -m rnnbench.check.worker BACKEND REQUESTS REPLIES``."""

from rnnbench.check.examiner import Examiner
from rnnbench.networks.registry import load_backend
from rnnbench.processes.worker_process import serve

if __name__ == "__main__":
    serve(lambda name: Examiner(load_backend(name)))
