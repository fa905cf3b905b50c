"""Compilation of kernels to machine code without a GPU or driver, and functions to examine the result.

The steps are those of Numba on a GPU: NVVM generates LTO-IR, and nvJitLink links it into a cubin.  This is the only module that
calls private functions of numba-cuda, and the reason why its version is pinned.
"""

# pyright knows the numba.cuda that Numba carries, not the one that numba-cuda puts in its place:
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda.device import missing_compiler
from rnnbench.installing import how_to_install

HOPPER = (9, 0, "a")
"""Compute capability of the H100 and H200, with architecture-specific features ("a")."""

INSTALL = how_to_install("cuda-offline")


def target(capability: tuple[int, int]) -> tuple[Any, ...]:
    """Compilation target for a device: with architecture-specific features on Hopper."""
    return HOPPER if capability == HOPPER[:2] else tuple(capability)


class Binary(NamedTuple):
    """Machine code of one kernel.  ``spilled`` counts bytes stored and loaded; ``stack`` and static ``shared`` are in bytes."""

    entry: str
    cubin: bytes
    registers: int
    spilled: int
    stack: int
    shared: int


def missing_toolchain() -> str | None:
    """Why kernels cannot be compiled and disassembled here, in one sentence, or None."""
    missing = missing_compiler()
    if missing:
        return missing
    return None if _disassembler() else f"the disassembler nvdisasm was not found: {INSTALL}"


def compile_kernel(function: Callable[..., None], signature: Any, threads: int, capability: tuple[Any, ...] = HOPPER) -> Binary:
    """Compile an undecorated kernel for blocks of ``threads`` threads, one block per multiprocessor.

    Needs numba-cuda and its compiler libraries, but no driver; raises BackendUnavailable without them.
    """
    reason = missing_compiler()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot compile here: {reason}")
    from cuda.core import Linker, LinkerOptions
    from numba.cuda.compiler import compile_cuda, kernel_fixup
    from numba.cuda.cudadrv import driver, nvvm
    from numba.cuda.types import void

    with assumed_device(capability):
        options = {"fastmath": False, "opt": 3}
        made = compile_cuda(function, void, signature.args, nvvm_options=options, cc=capability, lto=True)
        entry = made.fndesc.llvm_func_name
        kernel = made.library.get_function(entry)
        made.library._entry_name = entry
        kernel_fixup(kernel, False)
        nvvm.set_launch_bounds(kernel, (threads, 1))
        parts = driver._Linker(cc=capability, lto=True)
        made.library._link_all(parts, capability)
    asked = LinkerOptions(arch=parts.arch, link_time_optimization=True, ptxas_options=["-v"])
    linker = Linker(*parts._object_codes, options=asked)
    cubin = linker.link("cubin").code
    return _described(entry, cubin, linker.get_info_log())


def instructions(binary: Binary) -> Counter[str]:
    """Number of each instruction in the kernel, by full name such as ``LDS.128``; disassembled by nvdisasm."""
    return Counter(name for name, _ in _program(binary)[0])


def longest_loop(binary: Binary) -> Counter[str]:
    """Number of each instruction in the longest loop (the loop over time in a persistent kernel).

    Inner loops count once; called functions do not count.  Code after the kernel's end that jumps back is not a loop.
    """
    program, labels = _program(binary)
    loops = [
        (labels[found[0]], place + 1)
        for place, (name, operands) in enumerate(program)
        if name.startswith("BRA") and (found := re.search(r"\.L_\w+", operands)) and labels[found[0]] < place
    ]
    whole = [(first, end) for first, end in loops if all(name != "EXIT" for name, _ in program[first:end])]
    first, end = max(whole, key=lambda loop: loop[1] - loop[0], default=(0, 0))
    return Counter(name for name, _ in program[first:end])


def parameters(binary: Binary) -> list[int]:
    """Offsets of the kernel's parameters in bytes, in order."""
    short = r"\s+/\*\w+\*/\s+\.short\s+0x(\w+)"
    found = re.findall(rf"EIATTR_KPARAM_INFO.*?\.word\s+\S+{short}{short}", _disassembled(binary), re.DOTALL)
    return [offset for _, offset in sorted((int(number, 16), int(offset, 16)) for number, offset in found)]


def of_family(found: Counter[str], *families: str) -> int:
    """Number of instructions of the given families; ``LDS`` includes ``LDS.128``."""
    return sum(count for name, count in found.items() if name.split(".")[0] in families)


def double_precision(found: Counter[str]) -> Counter[str]:
    """Instructions that compute in float64, or convert to or from it."""
    families = {"DADD", "DMUL", "DFMA", "DSETP", "DMNMX", "DMMA"}
    return Counter({n: c for n, c in found.items() if n.split(".")[0] in families or re.search(r"\.(F64|\w*64H)\b", n)})


@contextmanager
def assumed_device(capability: tuple[Any, ...]) -> Iterator[None]:
    """Stand in for the current device, whose capability Numba reads when a kernel calls a device function."""
    from numba.cuda import dispatcher

    device = SimpleNamespace(compute_capability=capability[:2])
    with mock.patch.object(dispatcher, "get_current_device", return_value=device):
        yield


def _described(entry: str, cubin: bytes, log: str) -> Binary:
    """Parse the log of ptxas; adds up the kernel and the functions that were not inlined."""

    def numbers(pattern: str) -> list[int]:
        return [int(number) for number in re.findall(pattern, log)]

    registers = numbers(r"Used (\d+) registers")
    if len(registers) != 1:
        raise RuntimeError(f"the linker reports {len(registers)} kernels; expected 1: {log}")
    spilled = sum(numbers(r"(\d+) bytes spill (?:stores|loads)"))
    return Binary(
        entry, cubin, registers[0], spilled, sum(numbers(r"(\d+) bytes stack frame")), sum(numbers(r"(\d+) bytes smem"))
    )


@lru_cache(maxsize=1)
def _disassembled(binary: Binary) -> str:
    reason = missing_toolchain()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot read machine code here: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(binary.cubin)
        return subprocess.run([str(_disassembler()), path], capture_output=True, text=True, check=True).stdout


def _program(binary: Binary) -> tuple[list[tuple[str, str]], dict[str, int]]:
    """Name and operands of every instruction, in order, and the index of the instruction after each label."""
    pattern = r"^(?:(\.L_\w+):|\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ +)?([A-Z][A-Z0-9_.]*)([^;]*);)"
    program: list[tuple[str, str]] = []
    labels: dict[str, int] = {}
    for label, name, operands in re.findall(pattern, _disassembled(binary), re.MULTILINE):
        if label:
            labels[label] = len(program)
        else:
            program.append((name, operands))
    return program, labels


def _disassembler() -> str | None:
    from cuda import pathfinder

    return pathfinder.find_nvidia_binary_utility("nvdisasm")
