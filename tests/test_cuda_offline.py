"""Kernels become machine code without a GPU, and what is read of it is true: planted faults of code are seen.

About 5 s, nearly all of it the compiler's.
"""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda import offline
from rnnbench.networks.spec import NARROW

MISSING = offline.missing_toolchain()
needs_toolchain = pytest.mark.skipif(bool(MISSING), reason=str(MISSING))


def compiled(kernel: Any, threads: int = 128) -> tuple[offline.Binary, Counter[str]]:
    from numba.cuda.types import CPointer, float32, void

    binary = offline.compile_kernel(kernel, void(CPointer(float32), CPointer(float32)), threads)
    return binary, offline.instructions(binary)


def test_without_toolchain_it_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline, "missing_compiler", lambda: "no linker")
    with pytest.raises(BackendUnavailable, match="numba_cuda cannot compile here: no linker"):
        offline.compile_kernel(lambda: None, None, 32)


@needs_toolchain
def test_each_missing_tool_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda import pathfinder

    def load(library: str) -> None:
        if library == "nvJitLink":
            raise pathfinder.DynamicLibNotFoundError

    monkeypatch.setattr(pathfinder, "find_nvidia_binary_utility", {}.get)
    assert (
        offline.missing_toolchain()
        == "the disassembler nvdisasm was not found: pip install -e '.[cuda-offline]' in the checkout of rnnbench"
    )
    monkeypatch.setattr(pathfinder, "load_nvidia_dynamic_lib", load)
    assert (
        offline.missing_toolchain()
        == "the CUDA compiler library nvJitLink was not found: pip install -e '.[cuda]' in the checkout of rnnbench"
    )


@needs_toolchain
def test_intrinsics_become_the_instructions_that_are_meant() -> None:
    from numba import cuda
    from numba.cuda.types import float32, uint32

    from rnnbench.impls.numba_cuda import exchange_intrinsics as e
    from rnnbench.impls.numba_cuda import intrinsics as i

    load, row, write = i.load_quads(2, 128), i.rows_product(1, 3, 2, 4, 128, 1, 0), i.write_values(1)
    reads = i.read_values(1)

    def kernel(x, y):
        shared = cuda.shared.array(0, float32, 16)
        tid = cuda.threadIdx.x
        e.store_peer(e.peer_address(e.shared_address(shared, tid), uint32(1)), x[tid])
        e.cluster_arrive()
        e.cluster_wait()
        sums = row(load(x, 4 * tid), shared, 4 * tid, 512, tid)
        write(y, e.cluster_rank() * 128 + tid, 0, i.added(sums, reads(x, 9, 0)))

    binary, found = compiled(kernel)
    assert found["LDG.E.128.CONSTANT"] == 2
    assert found["LDS.128"] == 4  # three quads of the operand, one of the weights
    assert offline.of_family(found, "FFMA") == 12
    assert offline.of_family(found, "SHFL") == 2
    assert {name for name in found if name.startswith("UCGABAR")} == {"UCGABAR_ARV", "UCGABAR_WAIT"}
    assert not offline.double_precision(found)
    assert (binary.spilled, binary.stack, binary.shared) == (0, 0, 0)
    assert 0 < binary.registers <= 255
    assert offline.parameters(binary) == [0, 8]
    assert binary.entry.encode() in binary.cubin


@needs_toolchain
def test_the_longest_loop_is_found() -> None:
    """Five products are within it, two are before and after; the compiler unrolls it."""
    from numba import cuda

    def kernel(x, y):
        value = x[0] * x[1]
        for i in range(cuda.blockIdx.x):
            value = x[i]
            for _ in range(5):
                value = value * value
            y[i] = value
        y[1] = x[2] * value

    binary, found = compiled(kernel)
    inside = offline.longest_loop(binary)
    assert offline.of_family(inside, "FMUL") == 5 * offline.of_family(inside, "STG") > 0
    assert offline.of_family(inside, "BRA") == 1
    assert offline.of_family(found, "FMUL") > offline.of_family(inside, "FMUL")


@needs_toolchain
def test_code_without_a_loop_has_none() -> None:
    def kernel(x, y):
        y[0] = x[0]

    assert not offline.longest_loop(compiled(kernel)[0])


@needs_toolchain
def test_a_float_literal_is_seen_as_double_precision() -> None:
    def kernel(x, y):
        y[0] = x[0] * 0.3

    assert offline.double_precision(compiled(kernel)[1])


@needs_toolchain
def test_spills_are_seen() -> None:
    """200 values that all live at once in threads that have 64 registers each."""
    from numba import cuda

    from rnnbench.impls.numba_cuda.intrinsics import load_quads, write_values

    load, write = load_quads(50, 4096), write_values(200)

    def kernel(x, y):
        tid = cuda.threadIdx.x
        kept = load(x, 4 * tid)
        cuda.syncthreads()
        write(y, tid, 1024, kept)

    binary, found = compiled(kernel, threads=1024)
    assert binary.registers <= 64
    assert binary.spilled > 0
    assert offline.of_family(found, "LDL", "STL") > 0


@needs_toolchain
def test_static_shared_memory_is_counted() -> None:
    from numba import cuda
    from numba.cuda.types import float32

    def kernel(x, y):
        shared = cuda.shared.array(256, float32)
        shared[cuda.threadIdx.x] = x[0]
        cuda.syncthreads()
        y[0] = shared[255 - cuda.threadIdx.x]

    assert compiled(kernel)[0].shared == np.dtype("float32").itemsize * 256


ROUNDING = {"bfloat16": ("F2FP.BF16.F32.PACK_AB", "HADD2.BF16_V2"), "float16": ("F2FP.F16.F32.PACK_AB", "HADD2")}
"""Instructions that give a number of the dtype: a conversion, and an addition."""


@needs_toolchain
@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("name", ["copy", "plus"])
def test_kernels_of_narrow_dtypes_round_with_one_instruction(name: str, dtype: str) -> None:
    """None of them takes subnormal numbers for zero, which is what FTZ means."""
    from rnnbench.impls.numba_cuda.kernels import Cube, copy, matrix, plus_in
    from rnnbench.impls.numba_cuda.launching import signature
    from rnnbench.networks.spec import Spec

    half, single = (np.zeros(1, Spec("elman", 1, 1, dtype=of).numpy_dtype) for of in (dtype, "float32"))
    cubes = [Cube(array, 0, 1, 1, 1) for array in (half, single)]
    kernel, args = {"copy": (copy, (*cubes, 1, 1, 1)), "plus": (plus_in(single.dtype), [matrix(half, 1, 1)] * 3)}[name]
    binary = offline.compile_kernel(kernel.function, signature(tuple(args)), kernel.threads)
    found = offline.instructions(binary)
    assert sum(found[instruction] for instruction in ROUNDING[dtype]) == 1
    assert found["STG.E.U16"] == 1
    # of integers, which are divided by way of float32, that is right
    assert not [instruction for instruction in found if "FTZ" in instruction and not instruction.startswith("F2I")]
    assert not offline.double_precision(found)
