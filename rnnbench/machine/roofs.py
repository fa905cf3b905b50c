"""Roofs: the measured limits of this processor, to compare results with.

A roof is the best of several short repeats.  Other programs or a lower clock rate only slow a repeat down, so the best one is
closest to the hardware's limit.  All roofs are measured in turn, several times, so that one disturbance does not hit a single
roof.  The median is stored beside the best; a large gap shows a disturbed machine.  The threads of a repeat start together,
and the repeat ends with the last of them.
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

# the roofs apply to numba_cpu: its vectors and its barrier
from rnnbench.jit.barrier import meet
from rnnbench.jit.compiler import require_jit
from rnnbench.jit.target import current_target
from rnnbench.machine.roof_kernels import READS, dot_products, multiply_adds, reads
from rnnbench.machine.snapshot import Roof, Roofs
from rnnbench.machine.threaded_timer import Effort, ThreadedTimer, clock_step, empty_call
from rnnbench.machine.topology import Cache

PASSES, MAX_SECONDS = 4, 15.0
"""Passes over all roofs, and the seconds after which no further pass starts."""

USUAL = Effort(repeat=1e-3, total=0.08, least=3, most=80)
"""Effort per roof and pass; a repeat fits into the few milliseconds of a scheduling slice on a busy system."""

MEMORY_OVER_CACHE = 4
"""Working set for reads from memory, as a multiple of the last-level cache; a smaller one would stay partly cached."""

MIN_MEMORY = 256 * 2**20
"""Least working set for reads from memory, in bytes; virtual machines may hide their last-level cache."""

_MIN_VECTOR_BYTES = 16

_MAX_CHAINS, _OTHER_REGISTERS = 24, 4
"""Independent chains of multiply-adds, more than four units with a latency of four cycles need, and registers left free."""


class _Trial(NamedTuple):
    """One way to measure a roof; of several ways to the same roof the fastest counts.

    ``work``: as ThreadedTimer takes it.  ``amount``: work of all threads per count; None for a latency.
    """

    kind: str  # the field of Roofs
    name: str
    threads: int
    work: Any
    start: float
    amount: float | None = None
    bytes: int = 0  # read by each thread


def measure_roofs(caches: Sequence[Cache] | None, cores: int, effort: Effort = USUAL, passes: int = PASSES) -> Roofs:
    """Measure all roofs with one thread and with ``cores`` threads.

    Raises MissingLibrary if the system lacks clock_gettime, and BackendUnavailable if Numba's compiler is disabled.
    """
    if not hasattr(time, "CLOCK_MONOTONIC"):
        raise MissingLibrary("roofs need the system's clock_gettime, which is missing here; --no-roofs leaves them out")
    require_jit()
    trials, missing = _trials(caches, sorted({1, cores}))
    timers = {threads: ThreadedTimer(threads, effort) for threads in {trial.threads for trial in trials}}
    values: dict[_Trial, list[float]] = {trial: [] for trial in trials}
    calls: list[float] = []
    began = time.monotonic()
    for number in range(passes):
        if number and time.monotonic() - began > MAX_SECONDS:
            break
        for trial in trials:
            seconds = timers[trial.threads].seconds(trial.work, trial.start, trial.bytes)
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
    """Return what to measure with each number of threads, and a sentence for each roof that cannot be measured."""
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
    # half-width reads from the second-level cache can be twice as fast (seen on Zen 5)
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
        trials += [_Trial("barrier", "barrier", threads, _barrier, 0.0) for threads in sorted({2, counts[-1]})]
    return trials, missing


def working_sets(caches: Sequence[Cache] | None, threads: int, available: int) -> tuple[dict[str, int], list[str]]:
    """Return the working set of a thread for "L1", "L2", ..., "memory", in bytes, and why levels are left out.

    In a cache it is half of the thread's share, and at least twice the share of the level below; in memory all threads
    together read four times the last-level caches.  ``available`` is the free memory in bytes.
    """
    sets, reasons = {}, []
    levels = [cache for cache in caches or [] if cache.kind != "instruction"]
    if not levels:
        reasons.append("reads from caches: their sizes are not known")
    below = 0
    for cache in levels:
        share = cache.bytes // min(threads, cache.shared_by)
        size = max(share // 2, 2 * below)
        if size <= share:
            sets[f"L{cache.level}"] = size
        else:
            why = "its share per thread is less than twice that of the level below"
            reasons.append(f"reads from L{cache.level} by {threads} threads: {why}")
        below = share
    last = levels[-1].bytes * math.ceil(threads / levels[-1].shared_by) if levels else 0
    whole = max(MEMORY_OVER_CACHE * last, MIN_MEMORY)
    if whole <= available // 2:
        sets["memory"] = whole // threads
    else:
        reasons.append(f"reads from memory by {threads} threads: they need {whole >> 20} MiB, and less than twice that is free")
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
def _barrier(value, data, count, team):
    for _ in range(count):
        meet(team)
    return value
