"""What `rnnbench machine` finds wrong for measuring, from files of the kernel; what they do not tell is unknown.  1 s."""

import os
import sys
from pathlib import Path

import pytest
from helpers.fake_machine import some_roofs, tree, two_cores

from rnnbench.machine import health
from rnnbench.machine.health import Counters

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


def at(clock: float, **counters) -> Counters:
    usual = {"busy": 0.0, "steal": 0.0, "all_states": 2 * clock, "processes": {}, "own": 0.0}
    return Counters(clock, **{**usual, "throttled": 0.0, "load_average": 0.0, **counters})


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
