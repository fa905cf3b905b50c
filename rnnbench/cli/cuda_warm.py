"""``rnnbench cuda-warm``: compile the CUDA kernels that a run needs before there is a GPU, and keep them on disk."""

import argparse
import re
from typing import Any

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError
from rnnbench.suite.case import Case

FIRST_RUN = "first-run"
"""What ``rnnbench gpu`` runs, which is no suite."""


def cuda_warm(options: argparse.Namespace, progress: Any) -> int:
    """Compile, and say where the kernels are and how large; returns the exit code."""
    from rnnbench.cli.common import OK
    from rnnbench.impls.numba_cuda import ahead, cubins

    capability = _capability(options.capability)
    cases = [case for name in options.wanted for case in _cases(name)]
    ahead.compile_all(cases, capability, progress.count)
    progress.clear()
    kept = list(cubins.folder().glob("*.cubin"))
    terminal.show(f"{len(kept)} kernels, {sum(path.stat().st_size for path in kept) / 1e6:.1f} MB: {cubins.folder()}")
    return OK


def _cases(name: str) -> list[Case]:
    if name == FIRST_RUN:
        from rnnbench.impls.numba_cuda.bringup import cases

        return cases()
    from rnnbench.suite.suite import load_suite

    return list(load_suite(name).cases)


def _capability(text: str) -> tuple[int, int]:
    if not re.fullmatch(r"\d+\.\d", text):
        raise ArgumentError(f"compute capability {text!r}; expected a major and a minor number, e.g. 9.0")
    major, minor = map(int, text.split("."))
    return major, minor
