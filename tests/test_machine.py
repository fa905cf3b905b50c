"""`rnnbench machine` says what a machine is, what it reaches, and what is wrong with it; what it cannot know it says so.

Takes 15 s, most of it compilation.  Nothing is asserted about times: the kernels' results show that all work is done.
"""

import json
import os
import re
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
import psutil
import pytest

from rnnbench import cli
from rnnbench.commands import machine as command
from rnnbench.errors import MissingLibrary, StoreError
from rnnbench.impls.numba_cpu.target import AVX512, current_target
from rnnbench.measure import health, topology
from rnnbench.measure import machine as facts
from rnnbench.measure import roofs as roofs_module
from rnnbench.measure.bench import Bench, Effort
from rnnbench.measure.health import Sample
from rnnbench.measure.machine_file import Finding, Machine, Roof, Roofs, document, load_machine, load_roofs, write_machine
from rnnbench.measure.roof_kernels import READS, dot_products, multiply_adds, reads
from rnnbench.measure.roofs import LEAST_MEMORY, measure_roofs, working_sets
from rnnbench.measure.topology import Cache

BRIEF = Effort(repeat=1e-5, total=1e-4, least=2, most=4)

KIB, MIB, GIB = 2**10, 2**20, 2**30
TYPICAL = [
    Cache(1, "data", 48 * KIB, 1),
    Cache(1, "instruction", 32 * KIB, 1),
    Cache(2, "unified", 1 * MIB, 1),
    Cache(3, "unified", 32 * MIB, 8),
]


def tree(folder: Path, files: dict[str, str]) -> Path:
    """A folder like one of the kernel's: each text ends with a line end."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


def two_cores(folder: Path, **siblings: str) -> Path:
    """/sys/devices/system/cpu of a processor with four logical processors in two cores."""
    files = {"online": "0-3"}
    for number in range(4):
        files[f"cpu{number}/topology/thread_siblings_list"] = f"{number % 2},{number % 2 + 2}"
        for index, (level, kind, size, shared) in enumerate(
            [("1", "Data", "48K", f"{number}"), ("1", "Instruction", "32K", f"{number}"), ("3", "Unified", "32M", "0-3")]
        ):
            place = f"cpu{number}/cache/index{index}"
            files |= {f"{place}/level": level, f"{place}/type": kind, f"{place}/size": size, f"{place}/shared_cpu_list": shared}
    return tree(folder, files | siblings)


# the processor


def test_caches_are_read_with_their_sizes_and_how_many_share_them(tmp_path):
    assert topology.caches(two_cores(tmp_path)) == [
        Cache(1, "data", 48 * KIB, 1),
        Cache(1, "instruction", 32 * KIB, 1),
        Cache(3, "unified", 32 * MIB, 4),
    ]


def test_logical_processors_of_one_core_are_found(tmp_path):
    assert topology.siblings(two_cores(tmp_path)) == [{0, 2}, {1, 3}]


@pytest.mark.parametrize(("text", "numbers"), [("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("", set()), ("3,1", {1, 3})])
def test_lists_of_processors_are_read_in_the_kernel_s_notation(text, numbers):
    assert topology.cpu_list(text) == numbers


def test_a_virtual_machine_and_vector_instructions_are_told_by_the_flags():
    virtual = "processor\t: 0\nflags\t\t: fpu avx2 fma hypervisor avx512f\n"
    assert topology.hypervisor(virtual) is True
    assert topology.hypervisor("flags\t: fpu avx2\n") is False
    assert topology.vector_instructions(virtual) == ["avx2", "fma", "avx512f"]
    arm = "Features\t: fp asimd sve\n"
    assert topology.hypervisor(arm) is None  # no such flag there, whatever it runs on
    assert topology.vector_instructions(arm) == ["asimd", "sve"]


def test_what_the_system_does_not_tell_is_none(tmp_path):
    for ask in (topology.caches, topology.siblings, topology.governors, topology.boost, topology.online):
        assert ask(tmp_path / "nothing") is None
    assert topology.hypervisor("") is None
    assert topology.vector_instructions("") is None


@pytest.mark.parametrize(
    ("files", "allowed"),
    [
        ({"cpufreq/boost": "1"}, True),
        ({"cpufreq/boost": "0"}, False),
        ({"intel_pstate/no_turbo": "0"}, True),
        ({"intel_pstate/no_turbo": "1"}, False),
    ],
)
def test_boost_is_read_from_both_drivers_of_which_one_says_no(tmp_path, files, allowed):
    assert topology.boost(tree(tmp_path, files)) is allowed


# GPUs, as nvidia-smi tells them


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Puts a program of this name where it is found first."""

    def install(script: str) -> None:
        program = tmp_path / "bin" / "nvidia-smi"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")

    facts.gpus.cache_clear()
    yield install
    facts.gpus.cache_clear()


def test_gpus_come_with_driver_and_memory(nvidia_smi):
    nvidia_smi('echo "Some, GPU, 580.1, 143771 MiB"; echo "Other, 580.1, 40960 MiB"')
    assert facts.gpus() == [
        {"name": "Some, GPU", "driver_version": "580.1", "memory": "143771 MiB"},
        {"name": "Other", "driver_version": "580.1", "memory": "40960 MiB"},
    ]


def test_a_failing_nvidia_smi_says_so_in_the_place_of_gpus(nvidia_smi):
    nvidia_smi('echo "Failed to initialize NVML: Driver/library version mismatch"; exit 18')
    assert facts.gpus() == [{"error": "Failed to initialize NVML: Driver/library version mismatch"}]


def test_without_nvidia_smi_gpus_are_none(nvidia_smi, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert facts.gpus() is None


# the environment that every run stores


def test_the_environment_is_the_same_at_every_look_and_after_storing():
    first = facts.environment()
    sum(range(10**6))
    np.ones(10**6)
    assert facts.environment() == first
    assert msgspec.json.decode(msgspec.json.encode(first)) == first


def test_thread_pools_name_the_blas_that_numpy_has_loaded():
    pools = facts.thread_pools()
    assert any(pool["api"] == "blas" and pool["threads"] >= 1 and pool["version"] for pool in pools)
    assert all(set(pool) == {"api", "library", "version", "threads", "kernels"} for pool in pools)  # no path


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
    seconds = Bench(2, BRIEF).seconds(barrier.work, barrier.start)
    assert BRIEF.least <= len(seconds) <= BRIEF.most
    assert all(s > 0 for s in seconds)


# which memory is read


def test_each_level_is_read_from_itself():
    """Larger than the levels below it, smaller than itself; with several threads in their share."""
    one, reasons = working_sets(TYPICAL, 1, 100 * GIB)
    assert (one, reasons) == ({"L1": 24 * KIB, "L2": 512 * KIB, "L3": 16 * MIB, "memory": LEAST_MEMORY}, [])
    sixteen, reasons = working_sets(TYPICAL, 16, 100 * GIB)
    assert reasons == []
    assert sixteen["L3"] == 2 * MIB  # a thread's share is 4 MiB, and half of it twice the L2
    many, _ = working_sets(TYPICAL, 64, 100 * GIB)
    assert 64 * many["memory"] == 4 * 8 * 32 * MIB > LEAST_MEMORY  # 64 threads have eight such caches


def test_a_level_that_cannot_be_told_apart_is_left_out_and_said_so():
    caches = [Cache(1, "data", 32 * KIB, 1), Cache(2, "unified", MIB, 1), Cache(3, "unified", 12 * MIB, 8)]
    sets, (reason,) = working_sets(caches, 8, 100 * GIB)
    assert set(sets) == {"L1", "L2", "memory"}
    assert "L3 by 8 threads" in reason


def test_memory_that_is_not_free_is_not_taken():
    sets, (reason,) = working_sets(TYPICAL, 1, LEAST_MEMORY)
    assert "memory" not in sets
    assert "256 MiB" in reason


def test_without_known_caches_memory_alone_is_read():
    for unknown in (None, []):
        sets, (reason,) = working_sets(unknown, 2, GIB)
        assert sets == {"memory": LEAST_MEMORY // 2}
        assert "not known" in reason


# the roofs


@pytest.fixture(scope="module")
def measured() -> Roofs:
    caches = [Cache(1, "data", 32 * KIB, 1), Cache(2, "unified", 256 * KIB, 2)]
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
    monkeypatch.setattr(Bench, "seconds", lambda *_: [1.0])
    roofs = measure_roofs(TYPICAL, 2, BRIEF, passes=1)
    chains = roofs_module._MOST_CHAINS if current_target().registers == 32 else 12
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

        monkeypatch.setattr(Bench, "seconds", seconds)
        roofs = measure_roofs(TYPICAL, 1, BRIEF, passes=1)
        ways = 1 if current_target().bytes == 16 else 2
        assert [roof.best for roof in roofs.reads] == [
            roof.bytes * (2 if later < 1 and ways == 2 else 1) for roof in roofs.reads
        ]
        assert [roof.name for roof in roofs.reads] == ["L1", "L2", "L3", "memory"]


def test_with_one_core_there_is_no_barrier_and_that_is_said(monkeypatch):
    monkeypatch.setattr(Bench, "seconds", lambda *_: [1.0])
    roofs = measure_roofs(None, 1, BRIEF, passes=1)
    assert roofs.barrier == []
    assert sum("barrier" in reason for reason in roofs.missing) == 1


def test_without_a_clock_roofs_are_refused_in_words(monkeypatch):
    monkeypatch.setattr(roofs_module, "time", SimpleNamespace())
    with pytest.raises(MissingLibrary, match="--no-roofs"):
        measure_roofs(TYPICAL, 1)


# what is wrong: counters

STAT = "cpu  1000 200 300 5000 50 10 40 {steal} 700 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n"
PROCESS = "{pid} ({name}) S 1 1 1 0 -1 4194560 100 0 0 0 {user} {system} 0 0 20 0 1 0 5 1000 100 18446744073709551615\n"


def kernel(folder: Path, **others: str) -> Path:
    """A /proc with two processes, one of them with a name that is hard to read."""
    return tree(
        folder,
        {
            "stat": STAT.format(steal=400),
            "loadavg": "0.25 0.64 0.84 1/88 10930",
            "self/cgroup": "0::/box",
            "7/stat": PROCESS.format(pid=7, name="plain", user=100, system=50),
            "8/stat": PROCESS.format(pid=8, name="a) R 1 (b", user=10, system=20),
        }
        | others,
    )


def at(clock: float, **counters) -> Sample:
    usual = {"busy": 0.0, "steal": 0.0, "all_states": 2 * clock, "processes": {}, "own": 0.0}
    return Sample(clock, **{**usual, "throttled": 0.0, "load_average": 0.0, **counters})


def test_counters_are_read_from_the_kernel_s_files(tmp_path):
    ticks = os.sysconf("SC_CLK_TCK")
    groups = tree(tmp_path / "groups", {"box/cpu.stat": "usage_usec 9\nnr_throttled 1\nthrottled_usec 2500000"})
    taken = health.sample(kernel(tmp_path / "proc"), groups)
    assert taken.busy == pytest.approx((1000 + 200 + 300 + 10 + 40) / ticks)  # a guest's 700 are in the 1000
    assert taken.steal == pytest.approx(400 / ticks)
    assert taken.all_states == pytest.approx(7000 / ticks)
    assert taken.processes == {7: 150 / ticks, 8: 30 / ticks}
    assert taken.load_average == 0.25
    assert taken.throttled == pytest.approx(2.5)


def test_a_real_look_at_this_machine_finds_this_process():
    taken = health.sample()
    if sys.platform == "linux":
        assert os.getpid() in taken.processes
        assert taken.all_states is None or taken.all_states > 0
    found = health.examine(taken, health.sample(), health.sample(), None)
    assert len({finding.check for finding in found}) == len(found) == 12
    assert all((finding.mend is not None) == (finding.state == "wrong") for finding in found)


def test_a_system_without_these_files_gives_unknowns_and_no_fine(tmp_path):
    nothing = tmp_path / "nothing"
    empty = health.sample(nothing, nothing)
    found = [
        health.steal(empty, empty),
        health.other_load(empty, empty, 1),
        health.load_average(empty),
        health.throttling(empty, empty),
        health.quota([], 4),
        health.governor(nothing),
        health.boost(nothing),
        health.smt(nothing, None),
        health.affinity(nothing, None),
        health.swap(""),
        health.battery(nothing),
        health.all_threads(None),
    ]
    assert {finding.state for finding in found} == {"unknown"}


@pytest.mark.parametrize(("stolen", "state"), [(0.0, "fine"), (0.19, "fine"), (0.21, "wrong")])
def test_steal_counts_from_one_part_in_a_hundred(stolen, state):
    """Ten seconds of two processors; other virtual machines' time before the first sample does not count."""
    finding = health.steal(at(0, steal=5.0), at(10, steal=5.0 + stolen))
    assert finding.state == state
    assert f"{stolen / 20:.2%}" in finding.seen


def test_counters_that_stand_still_are_unknown():
    assert health.steal(at(1), at(1)).state == "unknown"
    assert health.other_load(at(1), at(1), 1).state == "unknown"


def test_load_of_others_is_what_this_process_did_not_use_and_the_busiest_is_named():
    before = at(0, processes={1: 5.0, 2: 100.0})
    after = at(10, busy=12.0, own=6.0, processes={1: 11.0, 2: 104.0, 3: 1.0})
    finding = health.other_load(before, after, own=1)
    assert finding.state == "wrong"
    assert finding.seen == "other programs used 0.60 cores, the busiest, process 2, 0.40"
    quiet = health.other_load(before, at(10, busy=3.9, own=3.0), own=1)
    assert (quiet.state, quiet.seen) == ("fine", "other programs used 0.09 cores")


@pytest.mark.parametrize(("load", "state"), [(0.5, "fine"), (0.51, "wrong")])
def test_the_load_before_the_first_sample_counts(load, state):
    assert health.load_average(at(0, load_average=load)).state == state


def test_throttling_between_two_samples_counts():
    assert health.throttling(at(0, throttled=2.0), at(9, throttled=2.0)).state == "fine"
    finding = health.throttling(at(0, throttled=2.0), at(9, throttled=2.125))
    assert finding.state == "wrong"
    assert "0.125 s" in finding.seen


# what is wrong: control groups

CGROUPS = [
    pytest.param(
        "0::/a/b\n",
        {"a/b/cpu.stat": "throttled_usec 1000000", "a/cpu.stat": "throttled_usec 500000", "a/cpu.max": "150000 100000"},
        1.5,
        1.5,
        id="version 2, limited by the group above",
    ),
    pytest.param("0::/\n", {"cpu.stat": "throttled_usec 0", "cpu.max": "max 100000"}, 0.0, None, id="version 2, no limit"),
    pytest.param(
        "4:memory:/x\n2:cpu,cpuacct:/x\n0::/\n",
        {
            "cpu,cpuacct/x/cpu.stat": "nr_throttled 3\nthrottled_time 250000000",
            "cpu,cpuacct/x/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.stat": "throttled_time 0",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1",
        },
        0.25,
        0.5,
        id="version 1",
    ),
    pytest.param(
        "4:memory:/docker/0123\n3:cpu,cpuacct:/docker/0123\n",
        {"cpu/cpu.stat": "throttled_time 500000000", "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
        0.5,
        2.0,
        id="version 1 in a container, where the path is the host's",
    ),
    pytest.param("0::/../outside\n", {"cpu.stat": "throttled_usec 7"}, 7e-6, None, id="outside of what can be seen"),
]


@pytest.mark.parametrize(("membership", "files", "throttled", "limit"), CGROUPS)
def test_control_groups_of_both_versions_are_found(tmp_path, membership, files, throttled, limit):
    folders = health.cgroup_folders(membership, tree(tmp_path, files))
    assert health.throttled_seconds(folders) == pytest.approx(throttled)
    for allowed in (1, 4):
        finding = health.quota(folders, allowed)
        assert finding.state == ("wrong" if limit is not None and limit < allowed else "fine")
        assert limit is None or f"allows {limit:g} processors" in finding.seen


# what is wrong: settings


@pytest.mark.parametrize(
    ("governors", "state", "seen"),
    [
        (["performance"] * 2, "fine", "performance"),
        (["performance", "powersave"], "wrong", "performance, powersave"),
        (["schedutil"] * 2, "wrong", "schedutil"),
    ],
)
def test_every_governor_has_to_be_performance(tmp_path, governors, state, seen):
    cpus = tree(tmp_path, {f"cpu{n}/cpufreq/scaling_governor": governor for n, governor in enumerate(governors)})
    finding = health.governor(cpus)
    assert (finding.state, finding.seen) == (state, seen)


def test_boost_says_which_switch_this_machine_has(tmp_path):
    amd = health.boost(tree(tmp_path / "amd", {"cpufreq/boost": "1"}))
    assert amd.state == "wrong"
    assert "0 to cpufreq/boost" in (amd.mend or "")
    intel = health.boost(tree(tmp_path / "intel", {"intel_pstate/no_turbo": "0"}))
    assert "1 to intel_pstate/no_turbo" in (intel.mend or "")
    assert health.boost(tree(tmp_path / "off", {"cpufreq/boost": "0"})).state == "fine"


def test_hyperthreads_count_where_both_of_a_core_may_be_used(tmp_path):
    cpus = two_cores(tmp_path)
    both = health.smt(cpus, {0, 1, 2, 3})
    assert (both.state, both.seen) == ("wrong", "4 logical processors are 2 cores")
    assert "taskset -c 0,1 " in (both.mend or "")
    assert health.smt(cpus, {0, 1}).state == "fine"
    assert health.smt(cpus, {1, 2, 3}).state == "wrong"
    assert health.smt(cpus, None).state == "unknown"


def test_fewer_processors_than_there_are_is_a_finding(tmp_path):
    cpus = two_cores(tmp_path)
    assert health.affinity(cpus, {0, 1, 2, 3}).state == "fine"
    finding = health.affinity(cpus, {1, 2})
    assert (finding.state, finding.seen) == ("wrong", "2 of 4 processors may be used")


@pytest.mark.parametrize(
    ("total", "free", "state", "seen"),
    [(0, 0, "fine", "none"), (2048, 2048, "fine", "0 MiB in use"), (8192, 4096, "wrong", "4 MiB in use")],
)
def test_swap_in_use_is_a_finding(total, free, state, seen):
    finding = health.swap(f"MemTotal:  100 kB\nSwapTotal: {total} kB\nSwapFree:  {free} kB\nHugePages_Total:  0\n")
    assert (finding.state, finding.seen) == (state, seen)


@pytest.mark.parametrize(
    ("supplies", "state"),
    [
        ({"AC/type": "Mains", "AC/online": "1"}, "fine"),
        ({"BAT0/type": "Battery", "BAT0/status": "Discharging"}, "wrong"),
        ({"BAT0/type": "Battery", "BAT0/status": "Charging"}, "fine"),
        ({"mouse/type": "Battery", "mouse/status": "Discharging", "mouse/scope": "Device"}, "fine"),
    ],
)
def test_a_machine_that_runs_from_its_battery_is_found(tmp_path, supplies, state):
    assert health.battery(tree(tmp_path, supplies)).state == state


@pytest.mark.parametrize(("both", "state"), [(200.0, "fine"), (160.0, "fine"), (159.0, "wrong")])
def test_threads_that_do_not_have_a_core_each_are_found_by_their_roof(both, state):
    assert health.all_threads(some_roofs(both)).state == state


# what is stored


def some_roofs(both: float = 200.0) -> Roofs:
    return Roofs(
        vectors="AVX2",
        multiply_adds=[Roof("float32", 1, 100.0, 99.0, 9), Roof("float32", 2, both, 90.0, 9)],
        reads=[Roof("L1", 1, 5e11, 4e11, 9, 24576)],
        barrier=[Roof("barrier", 2, 1e-7, 2e-7, 9)],
        empty_call=Roof("empty call", 1, 2e-8, 3e-8, 9),
        clock_step=4e-8,
        missing=["reads from L3: a reason"],
    )


def look(recorded: str, roofs: Roofs | None = None) -> Machine:
    findings = [Finding("swap", "wrong", "4 MiB in use", "Turn it off."), Finding("battery", "unknown", "not told")]
    return Machine(recorded, facts.environment(), ["powersave"], None, facts.thread_pools(), findings, roofs)


def test_a_look_reads_back_as_it_was_written(tmp_path):
    written = look("2026-01-02T03:04:05.000006+00:00", some_roofs())
    path = write_machine(written, tmp_path)
    assert path.name == "machine-20260102T030405.000006.json"
    assert load_machine(tmp_path) == written
    assert json.loads(path.read_text())["schema"] == 1


def test_the_newest_look_is_read_and_the_newest_roofs_also_from_an_older_one(tmp_path):
    with_roofs = look("2026-01-02T03:04:05+00:00", some_roofs())
    newer = look("2026-01-02T03:04:05.000001+00:00")
    for one in (newer, with_roofs, look("2025-12-31T23:59:59+00:00", some_roofs(1.0))):
        write_machine(one, tmp_path)
    assert load_machine(tmp_path) == newer
    assert load_roofs(tmp_path) == with_roofs.roofs


def test_without_a_look_there_is_none(tmp_path):
    assert load_machine(tmp_path) is None
    assert load_machine(tmp_path / "nothing") is None
    assert load_roofs(tmp_path) is None


def test_a_look_is_never_written_over(tmp_path):
    write_machine(look("2026-01-02T03:04:05+00:00"), tmp_path)
    with pytest.raises(StoreError, match="machine-20260102T030405"):
        write_machine(look("2026-01-02T03:04:05+00:00"), tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "does not read"), ('{"schema": 99}', "has schema 99; this version reads schema 1"), ('{"schema": 1}', "recorded")],
)
def test_a_file_that_is_no_look_is_refused_in_words(tmp_path, content, said):
    (tmp_path / "machine-1.json").write_text(content)
    with pytest.raises(StoreError, match=said):
        load_machine(tmp_path)


# the command


@pytest.fixture
def at_once(monkeypatch):
    """The command without waits, and with roofs that were measured before."""
    monkeypatch.setattr(command, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(roofs_module, "measure_roofs", lambda *_: some_roofs())


def test_the_text_tells_facts_roofs_and_findings_and_stores_them(at_once, tmp_path, capsys):
    assert cli.main(["machine", "-o", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    facts_now = facts.environment()
    for words in (facts_now["cpu"], f"numpy {np.__version__}", "float32 multiply-adds", "reads from L3: a reason"):
        assert words in said
    stored = load_machine(tmp_path / facts_now["machine"])
    assert stored is not None
    assert stored.roofs == some_roofs()
    for finding in stored.findings:
        assert finding.check in said
    assert said.splitlines()[-1].startswith("stored: ")
    assert max(map(len, said.splitlines()[:-1])) <= command._WIDTH


def test_wrong_findings_come_with_what_mends_them(capsys):
    said = command.text(look("2026-01-02T03:04:05+00:00"))
    assert "wrong for measuring\n  swap                4 MiB in use. Turn it off.\nnot known\n  battery" in said
    assert "governor: powersave; boost: not known" in said
    assert "--no-roofs" in said


def test_the_peaks_are_given_as_options_unless_something_held_the_threads_up():
    """A roof that is too low makes every result look better than it is."""
    roofs = some_roofs(2.5e11)
    measured = look("2026-01-02T03:04:05+00:00", msgspec.structs.replace(roofs, multiply_adds=roofs.multiply_adds[1:]))
    assert "for rnnbench bars: --roof 2=250\n" in command.text(measured)
    held_up = msgspec.structs.replace(
        look("2026-01-02T03:04:05+00:00", some_roofs()), findings=[health.all_threads(some_roofs(90.0))]
    )
    assert "for rnnbench bars: --roof 1=1e-07\n" in command.text(held_up)


def test_rates_that_scatter_are_said_to_be_disturbed():
    assert "disturbed: in 1 of 3 rates" in command.text(look("2026-01-02T03:04:05+00:00", some_roofs()))


def test_json_is_one_document_and_the_same_as_what_is_stored(at_once, tmp_path, capsys):
    assert cli.main(["machine", "--json", "--no-roofs", "-o", str(tmp_path)]) == 0
    printed = capsys.readouterr()
    answer = json.loads(printed.out)
    assert answer["roofs"] is None
    (path,) = tmp_path.rglob("machine-*.json")
    assert path.read_bytes() == printed.out.encode()
    assert str(path) in printed.err


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "look_at_machine", lambda **_: pytest.fail("measured"))
    (tmp_path / "file").write_text("")
    assert cli.main(["machine", "-o", str(tmp_path / "file")]) == cli.ENVIRONMENT
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert "cannot write" in printed.err


def test_what_is_stored_names_neither_host_nor_user_nor_any_place():
    text = document(look("2026-01-02T03:04:05+00:00", some_roofs())).decode().lower()
    words = set(re.split(r"[^\w-]+", text))
    assert socket.gethostname().lower() not in words
    assert psutil.Process().username().lower() not in words
    places = [Path.home(), Path.cwd(), Path(sys.prefix), Path(np.__file__).parent]
    assert [place for place in places if str(place).lower() in text] == []
