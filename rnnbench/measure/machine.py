"""Facts about the machine and the software, as they are stored with every run."""

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

import rnnbench

PACKAGES = ("numpy", "scipy", "numba", "llvmlite", "numba-cuda", "torch", "jax", "jaxlib", "onnxruntime")


def environment() -> dict[str, Any]:
    """The processor, memory, operating system, versions, and the commit where rnnbench runs from a git checkout.

    Holds no host name, user name or path.
    """
    return {
        "machine": machine_name(),
        "cpu": _cpu_model(),
        "architecture": platform.machine(),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
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


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE)
        if found:
            return found[1].strip()
    return platform.processor() or platform.machine()


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
