"""The roofs of a machine: all work is done, each level of memory is read, and what cannot be measured is said.

Takes 5 s, most of it compilation.  Nothing is asserted about times: the kernels' results show that all work is done.
"""

import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from rnnbench.errors import MissingLibrary
from rnnbench.jit.target import AVX512, current_target
from rnnbench.machine import roofs as roofs_module
from rnnbench.machine.roof_kernels import READS, dot_products, multiply_adds, reads
from rnnbench.machine.roofs import MIN_MEMORY, measure_roofs, working_sets
from rnnbench.machine.snapshot import Roofs
from rnnbench.machine.threaded_timer import Effort, ThreadedTimer
from rnnbench.machine.topology import Cache

BRIEF = Effort(repeat=1e-5, total=1e-4, least=2, most=4)

KIB, MIB, GIB = 2**10, 2**20, 2**30
TYPICAL = [
    Cache(1, "data", 48 * KIB, 1),
    Cache(1, "instruction", 32 * KIB, 1),
    Cache(2, "unified", 1 * MIB, 1),
    Cache(3, "unified", 32 * MIB, 8),
]

# the kernels of the roofs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_every_multiply_add_is_done(dtype, count):
    """All numbers are small integers until the mean, so that the result is exact."""
    lanes, chains = current_target().lanes(np.dtype(dtype)), 12
    c = 1.0 + np.arange(chains)
    for _ in range(count):
        c = c * 2 + 1
    wanted = np.dtype(dtype).type(lanes * c.sum()) / np.dtype(dtype).type(lanes * chains)
    assert multiply_adds(np.dtype(dtype), lanes, chains)(1.0, 2.0, 1.0, count) == wanted


@pytest.mark.skipif(not current_target().dots, reason="needs AVX512_BF16")
def test_every_dot_product_of_bfloat16_is_done():
    c = 1.0 + np.arange(12) + 5 * 2 * 3.0 * 0.5
    assert dot_products(12)(1.0, 3.0, 0.5, 5) == c.mean()  # a multiple of 1/2: exact


@pytest.mark.skipif(current_target().bytes != AVX512.bytes, reason="reads the code that is generated for AVX-512")
def test_multiply_adds_stay_in_registers():
    """Between the jumps of the loop there is nothing but fused multiply-adds and the counting."""
    kernel = multiply_adds(np.dtype("float32"), 16, 24)
    kernel(0.0, 0.5, 0.5, 1)
    lines = next(iter(kernel.inspect_asm().values())).splitlines()
    fused = [number for number, line in enumerate(lines) if "vfmadd" in line]
    runs = [lines[a : a + 24] for a in fused if all("vfmadd" in line for line in lines[a : a + 24])]
    assert runs
    operands = [re.findall(r"%zmm\d+", line) for line in runs[0]]
    assert not any("(" in line for line in runs[0])
    assert len({o[-1] for o in operands}) == 24  # independent: each has its own register for the sum
    assert len({tuple(o[:-1]) for o in operands}) == 1


@pytest.mark.parametrize("passes", [0, 1, 3])
def test_every_word_is_read_in_every_pass(passes):
    width = current_target().bytes
    blocks = 3
    room = np.random.default_rng(0).integers(-(2**62), 2**62, blocks * READS * width // 8 + width // 8)
    first = -room.ctypes.data % width // 8
    words = room[first : first + blocks * READS * width // 8]
    with np.errstate(over="ignore"):
        wanted = np.int64(7) + np.int64(passes) * words.sum()
    assert reads(width)(7, words.ctypes.data, blocks, passes) == wanted


def test_a_bench_repeats_what_it_is_given_on_all_threads():
    trials, _ = roofs_module._trials(TYPICAL, [1, 2])
    barrier = next(trial for trial in trials if trial.kind == "barrier")
    seconds = ThreadedTimer(2, BRIEF).seconds(barrier.work, barrier.start)
    assert BRIEF.least <= len(seconds) <= BRIEF.most
    assert all(s > 0 for s in seconds)


# which memory is read


def test_each_level_is_read_from_itself():
    """Larger than the levels below it, smaller than itself; with several threads in their share."""
    one, reasons = working_sets(TYPICAL, 1, 100 * GIB)
    assert (one, reasons) == ({"L1": 24 * KIB, "L2": 512 * KIB, "L3": 16 * MIB, "memory": MIN_MEMORY}, [])
    sixteen, reasons = working_sets(TYPICAL, 16, 100 * GIB)
    assert reasons == []
    assert sixteen["L3"] == 2 * MIB  # a thread's share is 4 MiB, and half of it twice the L2
    many, _ = working_sets(TYPICAL, 64, 100 * GIB)
    assert 64 * many["memory"] == 4 * 8 * 32 * MIB > MIN_MEMORY  # 64 threads have eight such caches


def test_a_level_that_cannot_be_told_apart_is_left_out_and_said_so():
    caches = [Cache(1, "data", 32 * KIB, 1), Cache(2, "unified", MIB, 1), Cache(3, "unified", 12 * MIB, 8)]
    sets, (reason,) = working_sets(caches, 8, 100 * GIB)
    assert set(sets) == {"L1", "L2", "memory"}
    assert "L3 by 8 threads" in reason


def test_memory_that_is_not_free_is_not_taken():
    sets, (reason,) = working_sets(TYPICAL, 1, MIN_MEMORY)
    assert "memory" not in sets
    assert "256 MiB" in reason


def test_without_known_caches_memory_alone_is_read():
    for unknown in (None, []):
        sets, (reason,) = working_sets(unknown, 2, GIB)
        assert sets == {"memory": MIN_MEMORY // 2}
        assert "not known" in reason


# the roofs


@pytest.fixture(scope="module")
def measured() -> Roofs:
    """In both passes, however long the first one takes, which compiles."""
    caches = [Cache(1, "data", 32 * KIB, 1), Cache(2, "unified", 256 * KIB, 2)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(roofs_module, "MAX_SECONDS", math.inf)
        return measure_roofs(caches, 2, BRIEF, passes=2)


def test_all_roofs_are_measured_for_one_thread_and_for_all(measured):
    dtypes = {roof.name for roof in measured.multiply_adds}
    assert {"float32", "float64"} <= dtypes <= {"float32", "float64", "bfloat16"}
    assert {(roof.name, roof.threads) for roof in measured.multiply_adds} == {(d, n) for d in dtypes for n in (1, 2)}
    assert {(r.name, r.threads) for r in measured.reads} == {(level, n) for level in ("L1", "L2", "memory") for n in (1, 2)}
    assert [roof.threads for roof in measured.barrier] == [2]
    assert measured.missing == []
    assert measured.vectors == current_target().name


def test_the_best_repeat_is_the_highest_rate_and_the_lowest_latency(measured):
    rates, latencies = [*measured.multiply_adds, *measured.reads], [*measured.barrier, measured.empty_call]
    assert all(roof.best >= roof.median > 0 for roof in rates)
    assert all(0 < roof.best <= roof.median for roof in latencies)
    assert {roof.repeats >= 2 * BRIEF.least for roof in rates + latencies} == {True}
    assert measured.clock_step > 0


def test_rates_count_the_work_of_all_threads(monkeypatch):
    """With a clock that always says the same, a rate is the work alone."""
    monkeypatch.setattr(ThreadedTimer, "seconds", lambda *_: [1.0])
    roofs = measure_roofs(TYPICAL, 2, BRIEF, passes=1)
    chains = roofs_module._MAX_CHAINS if current_target().registers == 32 else 12
    lanes = current_target().lanes(np.dtype("float32"))
    assert [roofs.peak("float32", threads) for threads in (1, 2)] == [2 * lanes * chains, 2 * 2 * lanes * chains]
    assert roofs.peak("float32", 3) is None
    assert {roof.best / roof.threads for roof in roofs.reads} == {roof.bytes for roof in roofs.reads}
    assert [roof.best for roof in roofs.barrier] == [1.0]


def test_of_several_ways_to_a_roof_the_fastest_is_kept(monkeypatch):
    """Which way is which shows in how often it was asked: the later one of a level reads twice as fast, or half as fast."""
    for later in (0.5, 2.0):
        seen: set[tuple[int, int]] = set()

        def seconds(bench, work, start, size=0, seen=seen, later=later):
            again = (bench.threads, size) in seen
            seen.add((bench.threads, size))
            return [later if again and size else 1.0]

        monkeypatch.setattr(ThreadedTimer, "seconds", seconds)
        roofs = measure_roofs(TYPICAL, 1, BRIEF, passes=1)
        ways = 1 if current_target().bytes == 16 else 2
        assert [roof.best for roof in roofs.reads] == [
            roof.bytes * (2 if later < 1 and ways == 2 else 1) for roof in roofs.reads
        ]
        assert [roof.name for roof in roofs.reads] == ["L1", "L2", "L3", "memory"]


def test_with_one_core_there_is_no_barrier_and_that_is_said(monkeypatch):
    monkeypatch.setattr(ThreadedTimer, "seconds", lambda *_: [1.0])
    roofs = measure_roofs(None, 1, BRIEF, passes=1)
    assert roofs.barrier == []
    assert sum("barrier" in reason for reason in roofs.missing) == 1


def test_without_a_clock_roofs_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(roofs_module, "time", SimpleNamespace())
    with pytest.raises(MissingLibrary, match="--no-roofs"):
        measure_roofs(TYPICAL, 1)
