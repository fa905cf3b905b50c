"""Facts about the machine and the software, stored with every run."""

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec
import psutil
import threadpoolctl

import rnnbench
from rnnbench.machine import topology

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "numba-cuda", "torch", "jax", "jaxlib", "onnxruntime")

_GPU_FACTS = ("name", "driver_version", "memory.total")
_NVIDIA_SMI_LIMIT = 20.0
"""Time limit in seconds; without a persistent driver nvidia-smi takes a few."""


def environment(affinity: str | None = None) -> dict[str, Any]:
    """Return processor, memory, GPUs, operating system, versions and, in a git checkout, the commit.

    ``affinity``: the processors of the workers, such as 0,2-3; ``cores`` is then their number.
    These facts do not change during a run: a resumed run has to find the same.  They contain no host name, user name or
    path; unknown facts are None.
    """
    cpuinfo = _cpuinfo()
    cores = topology.siblings()
    return {
        "machine": machine_name(),
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": _cores(affinity),
        "affinity": affinity,
        "caches": msgspec.to_builtins(topology.caches()),
        "smt": None if cores is None else any(len(core) > 1 for core in cores),
        "vector_instructions": topology.vector_instructions(cpuinfo),
        "virtual_machine": topology.hypervisor(cpuinfo),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": gpus(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "implementation": sys.implementation.name,
        "versions": {"rnnbench": rnnbench.__version__} | _versions(),
        **_code_state(),
    }


def machine_name() -> str:
    """Return a folder name for this kind of machine: processor and number of cores."""
    words = re.sub(r"[^a-z0-9]+", "-", _cpu_model().lower()).strip("-")
    return f"{words[:40]}-{os.cpu_count()}c"


@functools.cache
def gpus() -> list[dict[str, str]] | None:
    """Return ``name``, ``driver_version`` and ``memory`` of each NVIDIA GPU; None without nvidia-smi.

    If nvidia-smi fails, the only entry is ``error`` with its message.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={','.join(_GPU_FACTS)}", "--format=csv,noheader"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_NVIDIA_SMI_LIMIT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [{"error": f"nvidia-smi: {type(error).__name__}"}]
    if answer.returncode:
        lines = (answer.stdout + answer.stderr).strip().splitlines()
        return [{"error": lines[0] if lines else f"nvidia-smi ended with exit code {answer.returncode}"}]
    return parsed_gpus(answer.stdout)


def parsed_gpus(answer: str) -> list[dict[str, str]]:
    """Parse nvidia-smi's output, one GPU per line."""
    rows = (line.rsplit(", ", len(_GPU_FACTS) - 1) for line in answer.splitlines() if line.strip())
    return [dict(zip(("name", "driver_version", "memory"), row, strict=True)) for row in rows]


def thread_pools() -> list[dict[str, Any]]:
    """Return the thread pools of NumPy's and SciPy's BLAS and of other libraries that this process has loaded.

    Keys: ``api`` ("blas" or "openmp"), ``library``, ``version``, ``threads`` and ``kernels``, the processor whose code it
    uses.  They describe this process, not the machine: further imports add pools.
    """
    import numpy as np  # noqa: F401  # loads its BLAS
    import scipy.linalg  # noqa: F401

    return [
        {
            "api": pool["user_api"],
            "library": pool["internal_api"],
            "version": pool["version"],
            "threads": pool["num_threads"],
            "kernels": pool.get("architecture"),
        }
        for pool in threadpoolctl.threadpool_info()
    ]


def _cores(affinity: str | None) -> int | None:
    if affinity is not None:
        return len(topology.cpu_list(affinity))
    return len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()


def _cpu_model() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def _cpuinfo() -> str:
    return topology.read_text(topology.PROC / "cpuinfo") or ""


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _code_state() -> dict[str, Any]:
    """Return ``commit`` and ``dirty`` of the checkout of this file; both None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
