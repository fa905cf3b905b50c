"""Audit: compiles every shipped persistent kernel to machine code and checks it against its requirements."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from typing import NamedTuple

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.fragments import HALVES
from rnnbench.impls.numba_cuda.layout import BARRIER, MESSAGES
from rnnbench.impls.numba_cuda.offline import (
    Binary,
    compile_kernel,
    double_precision,
    instructions,
    longest_loop,
    missing_toolchain,
    of_family,
    parameters,
)
from rnnbench.impls.numba_cuda.regimes import CLUSTER, GRID, HOPPER, TENSOR_GRID, computed_spec, with_rows
from rnnbench.networks.spec import Spec

REGISTERS = 65_536
"""Number of registers of a multiprocessor."""

HIDDEN = (32, 256, 512, 1024)
"""Hidden sizes, which cover all regimes; the largest sizes that a cluster and a grid hold are added."""

TRAINING, INFERENCE = ("record", "backward"), (32, 512)
"""Kernels compiled at all sizes, and sizes of the kernel "forward", which is "record" with fewer stores."""

HALF_HIDDEN = 1056
"""Hidden size of 16-bit networks on tensor cores, besides the largest: the most units, 8 to a block, with 32 batch rows.  In
other regimes their kernels are those of float32."""

EXCHANGED = 512
"""Hidden size at which the exchange by messages is compiled too."""

COUNTED = ("FFMA", "HMMA", "LDS", "SHFL", "MUFU", "LDG", "STG")


class Configuration(NamedTuple):
    """One kernel; ``rows`` is the maximum number of batch rows per cluster."""

    cell: str
    nonlinearity: str
    hidden: int
    kind: str
    rows: int
    dtype: str = "float32"
    exchange: str = BARRIER

    @property
    def spec(self) -> Spec:
        return Spec(self.cell, 1, self.hidden, nonlinearity=self.nonlinearity, dtype=self.dtype)


class Audited(NamedTuple):
    """Result of one configuration.

    ``shared``: bytes of shared memory.  ``loop``: instructions of the loop over time.  ``counts``: instructions of the kernel
    by family.  ``faults``: a sentence per failed requirement.
    """

    configuration: Configuration
    regime: str
    blocks: int
    threads: int
    rows: int
    registers: int
    spilled: int
    shared: int
    instructions: int
    loop: int
    counts: dict[str, int]
    faults: list[str]


def configurations(cells: Sequence[str] | None = None) -> list[Configuration]:
    """Configurations of the given cells, default all; raises ArgumentError for an unknown cell.

    Sizes of ``HIDDEN`` and the largest sizes, training with many rows and inference with one; other nonlinearities and the
    exchange by messages at one size each; bfloat16 and float16 on tensor cores, bfloat16 also at the largest size.
    """
    for cell in cells or ():
        if cell not in CELLS:
            raise ArgumentError(f"unknown cell {cell!r}; expected one of {', '.join(CELLS)}")
    return [found for cell in cells or CELLS for found in _of_cell(cell)]


def _of_cell(cell: str) -> Iterator[Configuration]:
    usual, *others = CELLS[cell].nonlinearities
    for hidden in sorted({*HIDDEN, largest_hidden(cell, CLUSTER), largest_hidden(cell, GRID)}):
        for kind in TRAINING:
            yield Configuration(cell, usual, hidden, kind, 1 << 20)
        if hidden in INFERENCE:
            yield Configuration(cell, usual, hidden, "forward", 1)
    for nonlinearity in others:
        for kind in TRAINING:
            yield Configuration(cell, nonlinearity, HIDDEN[0], kind, 1)
    for kind in TRAINING:
        yield Configuration(cell, usual, EXCHANGED, kind, 1 << 20, exchange=MESSAGES)
    on_tensor_cores = [(dtype, HALF_HIDDEN) for dtype in HALVES]
    for dtype, hidden in (*on_tensor_cores, ("bfloat16", largest_hidden(cell, TENSOR_GRID, "bfloat16"))):
        for kind in TRAINING:
            yield Configuration(cell, usual, hidden, kind, 1 << 20, dtype)


@cache
def largest_hidden(cell: str, regime: str, dtype: str = "float32") -> int:
    """The largest hidden size in a regime; the sizes of a regime have no gaps."""

    def chosen(hidden: int) -> str:
        return choose(Spec(cell, 1, hidden, dtype=dtype), HOPPER).name

    hidden = 1
    while chosen(hidden) != regime:
        hidden += 1
    while chosen(hidden + 1) == regime:
        hidden += 1
    return hidden


def audit(todo: Sequence[Configuration], progress: Callable[[int, int], None]) -> list[Audited]:
    """Compile and examine configurations on all processors; raises BackendUnavailable without the tools."""
    reason = missing_toolchain()
    if reason:
        raise BackendUnavailable(f"numba_cuda cannot compile here: {reason}")
    found: dict[Configuration, Audited] = {}
    workers = min(len(os.sched_getaffinity(0)), len(todo))
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        futures = [pool.submit(examine, configuration) for configuration in todo]
        for done, future in enumerate(as_completed(futures), 1):
            found[future.result().configuration] = future.result()
            progress(done, len(todo))
    return [found[configuration] for configuration in todo]


def examine(configuration: Configuration) -> Audited:
    """Compile one configuration for Hopper and examine its machine code."""
    from rnnbench.impls.numba_cuda.layout import backward_products, forward_products, places
    from rnnbench.impls.numba_cuda.persistent import kernel, layer_spec

    spec, backward = configuration.spec, configuration.kind == "backward"
    regime, products = choose(spec, HOPPER), (backward_products if backward else forward_products)(spec)
    shape = regime.backward if backward else regime.forward
    assert shape is not None, f"{configuration} runs step by step"
    shape = with_rows(shape._replace(exchange=configuration.exchange), products, configuration.rows, HOPPER)
    made = kernel(configuration.kind, layer_spec(computed_spec(spec)), shape)
    binary = compile_kernel(made.function, made.signature, shape.threads)
    counts, loop = instructions(binary), longest_loop(binary)
    shared = binary.shared + 4 * made.shared
    found = places(products, shape)[0]
    fragments = sum(place.whole for place in found) if shape.cores else 0
    wrong = faults(binary, counts, shape.threads, shared, sum(place.kept for place in found), fragments)
    wrong += wrong_parameters(binary, len(made.signature.args)) + wrong_in_loop(loop, not shape.sends_messages)
    return Audited(
        configuration,
        regime.name,
        shape.blocks,
        shape.threads,
        shape.rows,
        binary.registers,
        binary.spilled,
        shared,
        counts.total(),
        loop.total(),
        {family: of_family(counts, family) for family in COUNTED},
        wrong,
    )


def faults(binary: Binary, found: Counter[str], threads: int, shared: int, resident: int, fragments: int = 0) -> list[str]:
    """Failed requirements of a kernel that keeps ``resident`` quads of weights in the registers of each thread.

    ``fragments``: number of quads of weights that a warp multiplies on tensor cores per 8 batch rows; 0 without tensor cores.
    """
    local, doubles, quads = of_family(found, "LDL", "STL"), double_precision(found), found["LDG.E.128.CONSTANT"]
    multiplied = of_family(found, "HMMA")
    checks = {
        f"{binary.spilled} bytes spilled; expected none": binary.spilled,
        f"{local} accesses to local memory; expected none": local,
        f"{binary.registers} registers in {threads} threads; expected at most {REGISTERS} in all": (
            binary.registers * threads > REGISTERS
        ),
        f"{shared} bytes of shared memory; expected at most {HOPPER.shared}": shared > HOPPER.shared,
        f"float64 instructions {', '.join(doubles)}; expected none": doubles,
        f"{quads} loads of four weights; expected {resident}": quads != resident,
        f"{multiplied} multiplications on tensor cores; expected {fragments}, once or several times": (
            multiplied % fragments or not multiplied if fragments else multiplied
        ),
        "no load of four elements from shared memory": not found["LDS.128"] and (not fragments or resident < fragments),
    }
    return [sentence for sentence, wrong in checks.items() if wrong]


def wrong_parameters(binary: Binary, count: int) -> list[str]:
    """Failed requirements of a kernel's parameters, which are launched as words of 8 bytes."""
    found = parameters(binary)
    return [] if found == [8 * number for number in range(count)] else [f"parameters at {found}; expected {count} of 8 bytes"]


def wrong_in_loop(loop: Counter[str], may_wait: bool) -> list[str]:
    """Failed requirements of a loop over time: it must not call functions (such as a division's slow path) and, unless it
    ``may_wait``, must not contain fences that wait for all earlier stores."""
    calls, fences = of_family(loop, "CALL"), of_family(loop, "MEMBAR")
    found = [f"{calls} calls in the loop over time; expected none"] if calls else []
    return found + ([f"{fences} fences in the loop over time; expected none"] if fences and not may_wait else [])


def table(found: Sequence[Audited]) -> str:
    """One line per kernel, then the faults, then the totals."""
    names = (
        "cell",
        "H",
        "dtype",
        "kernel",
        "regime",
        "blocks",
        "threads",
        "rows",
        "registers",
        "spilled",
        "shared",
        "instructions",
        "loop",
        *COUNTED,
    )
    rows = [names, *(_line(one) for one in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    lines = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    wrong = [(one, sentence) for one in found for sentence in one.faults]
    lines += [f"FAILED  {_name(one.configuration)}: {sentence}" for one, sentence in wrong]
    failed = sum(bool(one.faults) for one in found)
    return "\n".join([*lines, f"{len(found)} kernels for sm_90a: {f'{failed} FAILED' if failed else 'ok'}"])


def _name(one: Configuration) -> str:
    return f"{one.cell} {one.hidden} {one.kind}" + (f" {one.dtype}" if one.dtype != "float32" else "")


def _line(one: Audited) -> tuple[str, ...]:
    cell, nonlinearity, hidden, kind, _, dtype, exchange = one.configuration
    shown = cell if nonlinearity == CELLS[cell].nonlinearities[0] else f"{cell} ({nonlinearity})"
    numbers = (one.blocks, one.threads, one.rows, one.registers, one.spilled, one.shared, one.instructions, one.loop)
    regime = one.regime if exchange == BARRIER else f"{one.regime}, {exchange}"
    return (shown, str(hidden), dtype, kind, regime, *map(str, numbers), *(str(count) for count in one.counts.values()))
