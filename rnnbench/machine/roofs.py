"""Roofs: what this processor reaches at most, measured, for results to be held against.

Each is the best of several short repeats: whatever else happens on a machine, from other programs to a lower clock, only
slows a repeat, so the best one is the closest to what the hardware can do.  All roofs are measured in turn, several times
over, so that one disturbance does not fall on one roof alone.  The median of the repeats is kept beside the best; far from
it, it says that the machine was disturbed.  The threads of a repeat start together, and it ends with the last of them.
"""

import math
import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import psutil
from numba import njit

from rnnbench.errors import MissingLibrary

# of all implementations this one: its vectors are the ones to compare with, and its barrier is one of the roofs
from rnnbench.jit.barrier import meet
from rnnbench.jit.compiler import require_jit
from rnnbench.jit.target import current_target
from rnnbench.machine.roof_kernels import READS, dot_products, multiply_adds, reads
from rnnbench.machine.snapshot import Roof, Roofs
from rnnbench.machine.threaded_timer import Bench, Effort, clock_step, empty_call
from rnnbench.machine.topology import Cache

PASSES, MAX_SECONDS = 4, 15.0
"""How often each roof has its turn, and the seconds after which no further pass begins."""

USUAL = Effort(repeat=1e-3, total=0.08, least=3, most=80)
"""For one roof in one pass.  A busy system gives a thread some milliseconds at a time: a repeat should fit into them."""

MEMORY_OVER_CACHE = 4
"""A working set of so many times the last cache is read from memory; of one hardly larger a part would stay."""

MIN_MEMORY = 256 * 2**20
"""Bytes to read from memory in any case: a virtual machine does not always tell of its last cache."""

_MIN_VECTOR_BYTES = 16  # bytes

_MAX_CHAINS, _OTHER_REGISTERS = 24, 4
"""Chains of multiply-adds: more than four units with a latency of four cycles can have under way, where registers allow."""


class _Trial(NamedTuple):
    """A way to a roof: ``work`` as Bench takes it, and how much all threads do in one count; without an amount a latency.

    Of several ways to one roof the fastest is kept.
    """

    kind: str  # the field of Roofs
    name: str
    threads: int
    work: Any
    start: float
    amount: float | None = None
    bytes: int = 0  # that each thread reads


def measure_roofs(caches: Sequence[Cache] | None, cores: int, effort: Effort = USUAL, passes: int = PASSES) -> Roofs:
    """Measure all roofs with one thread and with ``cores``; raises MissingLibrary where the system has no fit clock,
    and BackendUnavailable where Numba is told to compile nothing."""
    if not hasattr(time, "CLOCK_MONOTONIC"):
        raise MissingLibrary("roofs need the system's clock_gettime, which is not here; --no-roofs goes without them")
    require_jit()
    trials, missing = _trials(caches, sorted({1, cores}))
    benches = {threads: Bench(threads, effort) for threads in {trial.threads for trial in trials}}
    values: dict[_Trial, list[float]] = {trial: [] for trial in trials}
    calls: list[float] = []
    began = time.monotonic()
    for number in range(passes):
        if number and time.monotonic() - began > MAX_SECONDS:
            break
        for trial in trials:
            seconds = benches[trial.threads].seconds(trial.work, trial.start, trial.bytes)
            values[trial] += [trial.amount / s for s in seconds] if trial.amount else seconds
        calls += empty_call(effort)

    measured = [(trial, _roof(trial, of_trial)) for trial, of_trial in values.items()]

    def roofs(kind: str) -> list[Roof]:
        best: dict[tuple[str, int], Roof] = {}
        for trial, roof in measured:
            place = roof.name, roof.threads
            if trial.kind == kind and (place not in best or roof.best > best[place].best):
                best[place] = roof
        return list(best.values())

    return Roofs(
        vectors=current_target().name,
        multiply_adds=roofs("multiply_adds"),
        reads=roofs("reads"),
        barrier=roofs("barrier"),
        empty_call=Roof("empty call", 1, min(calls), statistics.median(calls), len(calls)),
        clock_step=clock_step(),
        missing=missing,
    )


def _roof(trial: _Trial, values: Sequence[float]) -> Roof:
    best = max(values) if trial.amount else min(values)
    return Roof(trial.name, trial.threads, best, statistics.median(values), len(values), trial.bytes or None)


def _trials(caches: Sequence[Cache] | None, counts: Sequence[int]) -> tuple[list[_Trial], list[str]]:
    """What there is to measure with each number of threads, and what cannot be measured."""
    target = current_target()
    chains = min(_MAX_CHAINS, target.registers - _OTHER_REGISTERS)
    trials, missing = [], []
    for name in ("float32", "float64"):
        lanes = target.lanes(np.dtype(name))
        work = _multiply_adds(multiply_adds(np.dtype(name), lanes, chains), 0.999, 0.001)  # stays near 1, never denormal
        trials += [_Trial("multiply_adds", name, threads, work, 0.0, 2 * lanes * chains * threads) for threads in counts]
    if target.dots:
        work = _multiply_adds(dot_products(chains), 0.5, 2.0**-20)
        trials += [_Trial("multiply_adds", "bfloat16", threads, work, 0.0, 4 * 16 * chains * threads) for threads in counts]
    # from a second cache half a vector at a time can be twice as fast as a whole one (seen on Zen 5): the faster way counts
    widths = sorted({target.bytes, max(_MIN_VECTOR_BYTES, target.bytes // 2)})
    ways = [_reads(reads(width), READS * width) for width in widths]
    block = READS * target.bytes
    for threads in counts:
        sets, reasons = working_sets(caches, threads, psutil.virtual_memory().available)
        missing += reasons
        for name, size in sets.items():
            whole = size // block * block
            trials += [_Trial("reads", name, threads, way, 0, whole * threads, whole) for way in ways]
    if counts == [1]:
        missing.append("barrier: with one core no two threads can meet at the same time")
    else:
        trials += [_Trial("barrier", "barrier", threads, _meets, 0.0) for threads in sorted({2, counts[-1]})]
    return trials, missing


def working_sets(caches: Sequence[Cache] | None, threads: int, available: int) -> tuple[dict[str, int], list[str]]:
    """Bytes that each thread reads so that they come from "L1", "L2", ..., "memory", and why a level is left out.

    In a cache a thread gets half of its share, and at least twice its share of the level below; in memory all together get
    four times the last caches.  ``available`` is the free memory in bytes.
    """
    sets, reasons = {}, []
    levels = [cache for cache in caches or [] if cache.kind != "instruction"]
    if not levels:
        reasons.append("reads from caches: their sizes are not known here")
    below = 0
    for cache in levels:
        share = cache.bytes // min(threads, cache.shared_by)
        size = max(share // 2, 2 * below)
        if size <= share:
            sets[f"L{cache.level}"] = size
        else:
            reasons.append(f"reads from L{cache.level} by {threads} threads: a share of it is not twice one of the level below")
        below = share
    last = levels[-1].bytes * math.ceil(threads / levels[-1].shared_by) if levels else 0
    whole = max(MEMORY_OVER_CACHE * last, MIN_MEMORY)
    if whole <= available // 2:
        sets["memory"] = whole // threads
    else:
        reasons.append(f"reads from memory by {threads} threads: they need {whole >> 20} MiB, and twice that is not free")
    return sets, reasons


def _multiply_adds(kernel: Any, factor: float, addend: float) -> Any:
    @njit(nogil=True)
    def work(value, data, count, team):
        return kernel(value, factor, addend, count)

    return work


def _reads(kernel: Any, block: int) -> Any:
    @njit(nogil=True)
    def work(value, data, count, team):
        return kernel(value, data.ctypes.data, data.nbytes // block, count)

    return work


@njit(nogil=True)
def _meets(value, data, count, team):
    for _ in range(count):
        meet(team)
    return value
