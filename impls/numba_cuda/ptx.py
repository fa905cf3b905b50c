"""Compile the kernels of a network to PTX on a machine without GPU and driver: what the compiler made can be read."""

from typing import Any

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda.device import missing_compiler, simulated
from rnnbench.impls.numba_cuda.offline import assumed_device
from rnnbench.spec import Spec


def compile_ptx(spec: Spec, compute_capability: tuple[int, int] = (9, 0)) -> dict[str, str]:
    """PTX by kernel name, for the spec's cell, nonlinearity and dtype; sizes are no part of the kernels.

    Needs the compiler libraries of numba-cuda, not a driver; raises BackendUnavailable without them, and in the simulator.
    """
    reason = "the simulator has no compiler; unset NUMBA_ENABLE_CUDASIM" if simulated() else missing_compiler()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot compile here: {reason}")
    from numba.cuda.compiler import compile_ptx as compile_kernel

    with assumed_device(compute_capability):
        return {
            name: compile_kernel(kernel.py_func, signature, cc=compute_capability)[0]
            for name, (kernel, signature) in _kernels(spec).items()
        }


def _kernels(spec: Spec) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Kernels and their argument types by name."""
    from numba import types

    from rnnbench.impls.numba_cuda import kernels
    from rnnbench.impls.numba_cuda.cell_kernels import build

    number, size = getattr(types, spec.dtype), types.int64
    flat, cube = types.Array(number, 1, "C"), types.Array(number, 3, "A")
    matrix = types.NamedTuple([flat] + [size] * (len(kernels.Matrix._fields) - 1), kernels.Matrix)
    values = types.NamedTuple([flat] + [size] * (len(kernels.Values._fields) - 1), kernels.Values)
    found = {
        "product": (kernels.product, (matrix, matrix, matrix, matrix)),
        "fill": (kernels.fill, (flat, number)),
        "plus": (kernels.plus, (flat, flat, flat)),
        "copy": (kernels.copy, (flat, cube, size, size)),
    }
    # built anew: device functions keep what they were first compiled for, and that would be the assumed device
    for name, kernel in build(spec)._asdict().items():
        if kernel is not None:
            operands = kernel.py_func.__code__.co_argcount - 2
            found[f"cell_{name}"] = (kernel, (values,) * operands + (size, size))
    return found
