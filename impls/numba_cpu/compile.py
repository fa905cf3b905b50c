"""Kernels for one cell: the functions of ``kernels``, compiled with the cell's equations bound to their free names."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba.extending import register_jitable

from rnnbench.impls.numba_cpu import kernels
from rnnbench.impls.numba_cpu.activations import activations
from rnnbench.impls.numba_cpu.bfloat16 import computed, storage
from rnnbench.impls.numba_cpu.binding import bound, named, variant
from rnnbench.impls.numba_cpu.noalias import loads, stores
from rnnbench.impls.numba_cpu.products import packed_size, products
from rnnbench.jit.compiler import cached
from rnnbench.jit.target import Target
from rnnbench.networks.cells import Cell

Function = Callable[..., Any]


class Kernels(NamedTuple):
    """The compiled loops over time of one layer in one direction, and a copy that drops the padding of rows."""

    forward: Function
    backward: Function
    copied: Function


@functools.cache
def kernels_for(kind: Cell, nonlinearity: str, dtype: np.dtype, target: Target) -> Kernels:
    """The kernels of one cell, nonlinearity, dtype and target; compiled on first call, or loaded from Numba's cache."""
    real = computed(dtype)
    equations = kind.equations(activations(real), nonlinearity)
    # forced inlining: LLVM considers them too long, and does not vectorise a loop that calls them
    key = f"{kind.name}_{kind.output}_{nonlinearity}_{variant(dtype, target)}"
    forward, backward, inner, inner_backward = (
        register_jitable(forceinline=True)(named(f, key)) if f else _absent for f in equations
    )
    has_inner, has_memory = kind.inner_gates > 0, kind.carries == "c"
    names = {
        "step_forward": forward,
        "step_backward": backward,
        "inner_forward": inner,
        "inner_backward": inner_backward,
        "load_gates": loads(len(kind.gates)),
        "load_outer": loads(kind.outer_gates),
        "load_inner": loads(kind.inner_gates),
        "load_saved": loads(kind.saved),
        "load_carried": loads(int(kind.carries is not None)),
        "load_peepholes": loads(len(kind.peepholes)),
        "store_gates": stores(len(kind.gates), 2),
        "store_outer": stores(kind.outer_gates, 2 + len(kind.gates)),
        "store_saved": stores(kind.saved, 2),
        "store_peepholes": stores(len(kind.peepholes), 2 + len(kind.gates) + kind.outer_gates),
        "GATES": len(kind.gates),
        "OUTER": kind.outer_gates,
        "PEEPHOLES": len(kind.peepholes),
        "HAS_INNER": has_inner,
        "HAS_MEMORY": has_memory,
        "CARRIES_HIDDEN": kind.carries == "h",
        "FEEDS_BACK_OUTPUT": kind.feeds_back_output,
        "SUMS": kind.reads_sums and not has_inner,
        "SEPARATE_COTANGENTS": has_inner or not kind.reads_sums,
        "no_gates": (real.type(0),) * len(kind.gates),
        **products(dtype, target)._asdict(),
    }
    helpers = ("units_forward", "units_inner", "units_inner_backward", "units_backward", "weights_gradient")
    for helper in helpers:
        names[helper] = register_jitable(bound(getattr(kernels, helper), key, names))
    return Kernels(*(compiled(bound(function, key, names)) for function in (kernels.forward, kernels.backward, kernels.copied)))


def compiled(function: Function) -> Function:
    """``function``, compiled on first call or loaded from Numba's cache."""
    # only contraction is allowed: NaN and infinity must survive, and activations rely on the order of additions
    return cached(function, nogil=True, error_model="numpy", fastmath={"contract"})


class Packers(NamedTuple):
    """``Products.pack`` of a contiguous matrix, and of the transpose of one."""

    of_rows: Function
    of_columns: Function


@functools.cache
def packers(dtype: np.dtype, target: Target) -> Packers:
    key, names = variant(dtype, target), {"pack": products(dtype, target).pack}
    return Packers(*(compiled(bound(f, key, names)) for f in (kernels.packed_rows, kernels.packed_columns)))


def packed(matrix: np.ndarray, target: Target) -> np.ndarray:
    """Pack a (K, N) matrix, which is contiguous or the transpose of a contiguous one."""
    dtype, stored = matrix.dtype, storage(matrix.dtype)
    out = np.empty(packed_size(dtype, target, *matrix.shape), stored)
    if not out.size:  # a part that the cell does not have
        return out
    of_rows, of_columns = packers(dtype, target)
    if matrix.flags.c_contiguous:
        of_rows(matrix.view(stored), out)
    else:
        of_columns(matrix.T.view(stored), out)
    return out


@register_jitable
def _absent(*arguments):
    return ()
