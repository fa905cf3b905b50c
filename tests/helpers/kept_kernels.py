"""The audit of kernels that are kept on disk: what one file of tests compiles, another finds there."""

from typing import Any
from unittest import mock

from rnnbench.impls.numba_cuda import audit, cubins
from rnnbench.impls.numba_cuda.offline import HOPPER, Binary


def examine(configuration: audit.Configuration) -> audit.Audited:
    """As ``audit.examine``, in one of the audit's own processes."""
    with mock.patch.object(audit, "compile_kernel", compile_kernel):
        return audit.examine(configuration)


def compile_kernel(function: Any, signature: Any, threads: int) -> Binary:
    return cubins.compiled(function, signature, threads, HOPPER)
