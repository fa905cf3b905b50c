"""Compilation of a network's kernels to readable PTX, without a GPU or driver."""

from typing import Any

import numpy as np

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda.device import missing_compiler, simulated
from rnnbench.impls.numba_cuda.offline import assumed_device
from rnnbench.networks.spec import Spec


def compile_ptx(spec: Spec, compute_capability: tuple[int, int] = (9, 0)) -> dict[str, str]:
    """PTX by kernel name, for the spec's cell, nonlinearity and dtype; kernels do not depend on sizes.

    Needs the compiler libraries of numba-cuda, but no driver; raises BackendUnavailable without them, and in the simulator.
    """
    reason = "the simulator has no compiler; unset NUMBA_ENABLE_CUDASIM" if simulated() else missing_compiler()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot compile here: {reason}")
    from numba.cuda.compiler import compile_ptx as compile_kernel

    with assumed_device(compute_capability):
        return {
            name: compile_kernel(kernel.function, signature, cc=compute_capability)[0]
            for name, (kernel, signature) in _kernels(spec).items()
        }


def _kernels(spec: Spec) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Kernels and their argument types by name."""
    from rnnbench.impls.numba_cuda.cell_kernels import build
    from rnnbench.impls.numba_cuda.kernels import Cube, Matrix, Values, copy, plus_in, product_in
    from rnnbench.impls.numba_cuda.launching import signature

    def like(kind: Any) -> Any:
        return kind(np.empty(0, spec.numpy_dtype), *[0] * (len(kind._fields) - 1))

    found = {
        "product": (product_in(spec.numpy_dtype), (like(Matrix),) * 4),
        "plus": (plus_in(spec.numpy_dtype), (like(Matrix),) * 3),
        "copy": (copy, (like(Cube), like(Cube), 0, 0, 0)),
    }
    # built anew, because device functions keep the target they were first compiled for: here the assumed device
    for name, kernel in build(spec)._asdict().items():
        if kernel is not None:
            operands = kernel.function.__code__.co_argcount - 2
            found[f"cell_{name}"] = (kernel, (*(like(Values),) * operands, 0, 0))
    return {name: (kernel, signature(args).args) for name, (kernel, args) in found.items()}
