"""Facts about the machine and the software, as they are stored with every run."""

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
"""Seconds; without a persistent driver it takes a few to answer."""


def environment(affinity: str | None = None) -> dict[str, Any]:
    """The processor, memory, GPUs, operating system, versions, and the commit where rnnbench runs from a git checkout.

    ``affinity``: the processors that workers are given, as in 0,2-3; their number then is ``cores``.
    These are facts that stay while a run lasts: one that goes on later has to find the same.  Holds no host name, user
    name or path; what the system does not tell is None.
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
    """A short name for this kind of machine, fit for a folder: processor and number of cores."""
    words = re.sub(r"[^a-z0-9]+", "-", _cpu_model().lower()).strip("-")
    return f"{words[:40]}-{os.cpu_count()}c"


@functools.cache
def gpus() -> list[dict[str, str]] | None:
    """``name``, ``driver_version`` and ``memory`` of each NVIDIA GPU; None without nvidia-smi.

    Where nvidia-smi fails there is one entry, ``error``, with what it said.
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
        said = (answer.stdout + answer.stderr).strip().splitlines()
        return [{"error": said[0] if said else f"nvidia-smi ended with exit code {answer.returncode}"}]
    return parsed_gpus(answer.stdout)


def parsed_gpus(answer: str) -> list[dict[str, str]]:
    """The GPUs in nvidia-smi's answer, one a line."""
    rows = (line.rsplit(", ", len(_GPU_FACTS) - 1) for line in answer.splitlines() if line.strip())
    return [dict(zip(("name", "driver_version", "memory"), row, strict=True)) for row in rows]


def thread_pools() -> list[dict[str, Any]]:
    """The BLAS libraries of NumPy and SciPy, and others that this process has loaded.

    Of each ``api`` ("blas" or "openmp"), ``library``, ``version``, ``threads`` and ``kernels``, the processor it has chosen
    its code for.  A fact about this process, not the machine: it changes with every import.
    """
    import numpy as np  # noqa: F401  # these bring their BLAS
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
    """``commit`` and ``dirty`` of the checkout that holds this file; both None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}
    return {"commit": commit.stdout.strip(), "dirty": bool(status.stdout.strip())}
