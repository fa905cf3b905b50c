"""The stand-in for the CUDA driver (``standin_driver/``): built, and what runs against it.

A process loads its driver once, so that what needs the stand-in runs in a process of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from rnnbench.impls.numba_cuda import device

SOURCES = Path(__file__).with_name("standin_driver")

HANGS = 3600
"""Seconds after which a process is taken to hang: on a busy machine it may take many minutes to compile kernels."""


class Ran(NamedTuple):
    """``log`` has a line for each allocation, load, launch and refusal of the driver."""

    code: int
    output: str
    errors: str
    log: list[str]

    @property
    def refusals(self) -> list[str]:
        return [line for line in self.log if line.startswith("refuse ")]


class StandIn:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def environment(self, log: Path) -> dict[str, str]:
        """Of a process whose driver is the stand-in."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("NUMBA_CUDA", "RNNBENCH_SIMULATE"))}
        path = os.pathsep.join([str(self.folder), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        return inherited | {"LD_LIBRARY_PATH": path, "STANDIN_LOG": str(log)}

    def python(self, *arguments: str | Path, log: Path, **environment: str) -> Ran:
        command = [sys.executable, "-W", "error", *arguments]
        done = subprocess.run(command, env=self.environment(log) | environment, capture_output=True, text=True, timeout=HANGS)
        return Ran(done.returncode, done.stdout, done.stderr, log.read_text().splitlines() if log.exists() else [])


def build(folder: Path) -> StandIn:
    """Compile the stand-in; skips where there is no C compiler, or nothing that would call it."""
    if reason := device.missing_compiler():
        pytest.skip(reason)
    if not sys.platform.startswith("linux"):
        pytest.skip(f"the stand-in for the CUDA driver is written for Linux; this is {sys.platform}")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler (cc or gcc) was found to build the stand-in for the CUDA driver")
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC", "-shared", "-pthread"]
    command = [compiler, *flags, "-o", folder / "libcuda.so.1", *sorted(SOURCES.glob("*.c"))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return StandIn(folder)
