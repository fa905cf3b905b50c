"""Time of a new process until its first result: imports, compilation, the first training step."""

import functools
import subprocess
import sys
from typing import Any

from .common import BACKENDS, loaded  # noqa: TID251  # asv imports this folder under its bare name

IMPORT = "import rnnbench; backend = rnnbench.load_backend({backend!r})"

FIRST_STEP = """
import rnnbench
from rnnbench.suite.inputs import make_input
from rnnbench.suite.case import Case

case = Case("lstm", "step", T=16, B=4, I=32, H=32)
inputs = make_input(case)
backend = rnnbench.load_backend({backend!r})
net = backend.load(case.spec(), rnnbench.init_params(case.spec(), seed=0), threads=1)
_, _, tape = net.record(backend.asarray(inputs.x))
net.backward(tape, backend.asarray(inputs.dy))
backend.synchronize()
"""

EMPTY_CACHE = """
import os, tempfile

cache = tempfile.TemporaryDirectory()
os.environ["NUMBA_CACHE_DIR"] = cache.name
"""


@functools.cache  # asv runs the set-up again before every process that it times
def fill_cache(backend: str) -> None:
    """Run the first step once, to fill the cache of compiled code."""
    subprocess.run([sys.executable, "-c", FIRST_STEP.format(backend=backend)], check=True)


def with_filled_cache(method: Any) -> Any:
    method.setup = fill_cache
    return method


class StartUp:
    """Time in a new process, in seconds, without the start of Python.

    The two benchmarks of the first step differ only for backends with a JIT compiler.
    """

    timeout = 300
    repeat = 3  # processes
    warmup_time = 0  # every sample is a new process, so warming up has no effect

    param_names = ("backend",)
    params = (BACKENDS,)

    def setup(self, backend: str) -> None:
        loaded(backend)

    def timeraw_import(self, backend: str) -> str:
        return IMPORT.format(backend=backend)

    @with_filled_cache
    def timeraw_first_step(self, backend: str) -> str:
        """First step with the compiled code of earlier processes."""
        return FIRST_STEP.format(backend=backend)

    def timeraw_first_step_compiling(self, backend: str) -> tuple[str, str]:
        """First step with an empty cache of compiled code."""
        return FIRST_STEP.format(backend=backend), EMPTY_CACHE
