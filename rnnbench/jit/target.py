"""The vector instructions that the kernels are generated for."""

import functools
from typing import NamedTuple

import llvmlite.binding as llvm
import numpy as np
from numba import config

MAX_VECTORS, MAX_ROWS = 4, 8
"""Largest tile, in vectors and rows: larger ones gain nothing, and each size is compiled separately."""


class Target(NamedTuple):
    """Vector registers: their size in ``bytes`` and number; ``dots``: the processor multiplies pairs of bfloat16."""

    name: str
    bytes: int
    registers: int
    dots: bool = False

    def lanes(self, dtype: np.dtype) -> int:
        return self.bytes // dtype.itemsize

    def rows(self, vectors: int) -> int:
        """Return how many rows of ``vectors`` accumulators fit beside the operands: the weights and one broadcast."""
        return min(MAX_ROWS, (self.registers - vectors - 1) // vectors)

    @property
    def vectors(self) -> int:
        """The width of the tile with the most multiply-adds per load, in vectors."""
        return _widest(self)


@functools.cache
def _widest(target: Target) -> int:
    return max(range(1, MAX_VECTORS + 1), key=lambda n: n * target.rows(n) / (n + target.rows(n)))


AVX512 = Target("AVX-512", 64, 32)
AVX2 = Target("AVX2", 32, 16)
NEON = Target("NEON", 16, 32)
PLAIN = Target("plain", 16, 16)


def current_target() -> Target:
    """Return the host's target, as far as NUMBA_CPU_NAME and NUMBA_CPU_FEATURES allow."""
    present = _features()
    if {"avx512f", "avx512dq", "avx512vl"} <= present:
        return AVX512._replace(dots="avx512bf16" in present)
    if {"avx2", "fma"} <= present:
        return AVX2
    return NEON if "neon" in present else PLAIN


def _features() -> set[str]:
    """Return LLVM's names of the processor features that the compiler may use."""
    features, name = getattr(config, "CPU_FEATURES"), getattr(config, "CPU_NAME")  # noqa: B009  # set when Numba is imported
    if features is not None:
        return {feature[1:] for feature in features.split(",") if feature.startswith("+")}
    if name not in (None, "host", llvm.get_host_cpu_name()):
        return set()
    return {feature for feature, present in llvm.get_host_cpu_features().items() if present}
