"""Check that a machine is fit for benchmarks; each check reports what it saw and how to fix it.

Checks read Linux's /proc and /sys, or other folders given as arguments.  What the system does not provide is "unknown",
never "fine".
"""

import math
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rnnbench.machine import topology
from rnnbench.machine.snapshot import HealthCheck, Roofs
from rnnbench.machine.topology import CPU_FOLDER, PROC, read_text

CGROUPS = Path("/sys/fs/cgroup")
POWER = Path("/sys/class/power_supply")

TICK = 1 / os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else math.nan
"""Resolution of the kernel's counts of processor time, in seconds."""

MAX_STEAL = 0.01
"""Limit of stolen time, as a fraction of all processors' time; a round beyond it is repeated."""

MAX_OTHER_LOAD = 0.1
"""Limit of the load by other programs, in cores; idle desktop services need less."""

MAX_LOAD_AVERAGE = 0.5
"""Limit of the load average over one minute, in threads."""

MIN_SCALING = 0.8
"""Least peak of all threads, as a fraction of as many single threads; a lower all-core clock rate costs less."""


class Counters(NamedTuple):
    """Counters at one moment; times are cumulative, in seconds; None means unknown."""

    clock: float
    busy: float | None  # all processors together, without steal
    steal: float | None
    all_states: float | None  # busy, idle and stolen time
    processes: dict[int, float]  # processor time of visible processes, by ID
    own: float
    throttled: float | None
    load_average: float | None  # over one minute


def sample(proc: Path = PROC, cgroups: Path = CGROUPS) -> Counters:
    """Read all counters."""
    times = processor_times(read_text(proc / "stat") or "")
    busy, steal, whole = times or (None, None, None)
    load = read_text(proc / "loadavg")
    return Counters(
        clock=time.monotonic(),
        busy=busy,
        steal=steal,
        all_states=whole,
        processes=process_seconds(proc),
        own=time.process_time(),
        throttled=throttled_seconds(cgroup_folders(read_text(proc / "self" / "cgroup") or "", cgroups)),
        load_average=float(load.split()[0]) if load else None,
    )


def examine(first: Counters, quiet: Counters, last: Counters, roofs: Roofs | None) -> list[HealthCheck]:
    """Run all checks.

    This process must be idle between ``first`` and ``quiet``, so that other programs account for the load.  Steal and
    throttling show under load, from ``first`` to ``last``.
    """
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    folders = cgroup_folders(read_text(PROC / "self" / "cgroup") or "", CGROUPS)
    return [
        steal(first, last),
        other_load(first, quiet, os.getpid()),
        load_average(first),
        throttling(first, last),
        quota(folders, len(allowed) if allowed else None),
        governor(CPU_FOLDER),
        boost(CPU_FOLDER),
        smt(CPU_FOLDER, allowed),
        affinity(CPU_FOLDER, allowed),
        swap(read_text(PROC / "meminfo") or ""),
        battery(POWER),
        all_threads(roofs),
    ]


def steal(before: Counters, after: Counters) -> HealthCheck:
    """Check the time that the hypervisor gave to other virtual machines."""
    if before.steal is None or after.steal is None or before.all_states is None or after.all_states is None:
        return _unknown("steal", "the system does not count it")
    elapsed = after.all_states - before.all_states
    if elapsed <= 0:
        return _unknown("steal", "no time passed between two samples")
    share = (after.steal - before.steal) / elapsed
    seen = f"{share:.2%} of the processors' time went to other virtual machines"
    mend = "Measure when the host is quieter, or on a machine or instance with processors of its own."
    return _judged("steal", share > MAX_STEAL, seen, mend)


def other_load(before: Counters, after: Counters, own: int) -> HealthCheck:
    """Check the load of other programs, in cores; ``own`` is this process's ID."""
    if before.busy is None or after.busy is None:
        return _unknown("other programs", "the system does not count the processors' time")
    elapsed = after.clock - before.clock
    if elapsed <= 0:
        return _unknown("other programs", "no time passed between two samples")
    cores = max(0.0, (after.busy - before.busy) - (after.own - before.own)) / elapsed
    seen = f"other programs used {cores:.2f} cores"
    used = {pid: s - before.processes.get(pid, 0.0) for pid, s in after.processes.items() if pid != own}
    if used:
        busiest = max(used, key=lambda pid: used[pid])
        seen += f", the busiest, process {busiest}, {max(0.0, used[busiest]) / elapsed:.2f}"
    mend = "End or pause other programs (`top` lists them) and measure again."
    return _judged("other programs", cores > MAX_OTHER_LOAD, seen, mend)


def load_average(before: Counters) -> HealthCheck:
    """Check the load average in the minute before the first sample."""
    if before.load_average is None:
        return _unknown("load average", "the system does not report it")
    mend = "Wait until it has fallen: this machine was busy until now."
    seen = f"{before.load_average:.2f} threads wanted to run in the minute before"
    return _judged("load average", before.load_average > MAX_LOAD_AVERAGE, seen, mend)


def throttling(before: Counters, after: Counters) -> HealthCheck:
    """Check the time for which a control group throttled this process."""
    if before.throttled is None or after.throttled is None:
        return _unknown("throttling", "no control group counts it")
    seconds = after.throttled - before.throttled
    seen = f"a control group throttled its threads for {seconds:.3f} s"
    return _judged("throttling", seconds > 0, seen, "Give the container no processor limit, or measure with fewer threads.")


def quota(folders: Sequence[Path], allowed: int | None) -> HealthCheck:
    """Check that no control group limits processor time to less than the ``allowed`` processors."""
    if not folders:
        return _unknown("processor limit", "no control group is visible")
    limits = [limit for folder in folders if (limit := _limit(folder)) is not None]
    if not limits:
        return HealthCheck("processor limit", "fine", "none is set")
    least = min(limits)
    seen = f"a control group allows {least:g} processors' time"
    if allowed is None:
        return _unknown("processor limit", seen + "; the number of processors is not known")
    mend = f"Raise the container's processor limit, or measure with at most {max(1, int(least))} threads."
    return _judged("processor limit", least < allowed, f"{seen}, of {allowed} in reach", mend)


def governor(cpus: Path) -> HealthCheck:
    """Check the frequency governor."""
    names = topology.governors(cpus)
    if names is None:
        return _unknown("frequency governor", "the system does not report it; in a virtual machine only the host knows it")
    mend = "Set it to performance: `sudo cpupower frequency-set --governor performance`."
    return _judged("frequency governor", names != ["performance"], ", ".join(names), mend)


def boost(cpus: Path) -> HealthCheck:
    """Check that frequency boost is off: boost makes the clock rate depend on temperature and on other cores."""
    allowed = topology.boost(cpus)
    if allowed is None:
        return _unknown("frequency boost", "the system does not report it; in a virtual machine only the host knows it")
    switch = "0 to cpufreq/boost" if (cpus / "cpufreq" / "boost").exists() else "1 to intel_pstate/no_turbo"
    mend = f"For a steady clock write {switch} below /sys/devices/system/cpu, as root."
    return _judged("frequency boost", allowed, "on" if allowed else "off", mend)


def smt(cpus: Path, allowed: set[int] | None) -> HealthCheck:
    """Check that no two logical processors of this process share a core."""
    cores = topology.siblings(cpus)
    if cores is None:
        return _unknown("hyperthreads", "the system does not report which processors share a core")
    if allowed is None:
        return _unknown("hyperthreads", "the processors of this process are not known")
    within = [core & allowed for core in cores if core & allowed]
    shared = sum(len(core) > 1 for core in within)
    firsts = ",".join(str(min(core)) for core in within)
    seen = f"{len(allowed)} logical processors are {len(within)} cores" if shared else "one logical processor a core"
    mend = f"Use one of each core: `taskset -c {firsts} rnnbench ...`, with at most {len(within)} threads."
    return _judged("hyperthreads", shared > 0, seen, mend)


def affinity(cpus: Path, allowed: set[int] | None) -> HealthCheck:
    """Check that this process may use all processors."""
    online = topology.online(cpus)
    if online is None or allowed is None:
        return _unknown("affinity", "the system does not report the processors, or which of them may be used")
    seen = f"{len(allowed & online)} of {len(online)} processors may be used"
    mend = f"Start it without taskset or a CPU set, or measure with at most {len(allowed)} threads."
    return _judged("affinity", not online <= allowed, seen, mend)


def swap(meminfo: str) -> HealthCheck:
    """Check that no swap is in use; ``meminfo`` is the text of /proc/meminfo."""
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in meminfo.splitlines()) if rest}
    if not {"SwapTotal", "SwapFree"} <= set(sizes):
        return _unknown("swap", "the system does not report it")
    used = sizes["SwapTotal"] - sizes["SwapFree"]
    seen = f"{used / 1024:.0f} MiB in use" if sizes["SwapTotal"] else "none"
    return _judged("swap", used > 0, seen, "End programs that need memory, then `sudo swapoff -a` while measuring.")


def battery(supplies: Path) -> HealthCheck:
    """Check that the machine does not run on battery."""
    if not supplies.is_dir():
        return _unknown("battery", "the system does not report its power supplies")
    own = (supply for supply in supplies.iterdir() if read_text(supply / "scope") != "Device")  # not a mouse's
    states = [read_text(supply / "status") for supply in own if read_text(supply / "type") == "Battery"]
    if not states:
        return HealthCheck("battery", "fine", "none")
    seen = ", ".join(sorted((state or "unknown").lower() for state in states))
    return _judged("battery", "Discharging" in states, seen, "Plug the machine in: on battery the clock is lower.")


def all_threads(roofs: Roofs | None) -> HealthCheck:
    """Check that float32 multiply-adds scale to all threads."""
    peaks = {roof.threads: roof.best for roof in roofs.multiply_adds if roof.name == "float32"} if roofs else {}
    most = max(peaks, default=1)
    if most == 1:
        return _unknown("all threads", "roofs of one and of several threads are needed")
    scaling = peaks[most] / (most * peaks[1])
    seen = f"{most} threads reach {scaling:.0%} of {most} times what one reaches"
    mend = "End other work; if it stays, the threads share cores (hyperthreads, also a host's): measure with fewer."
    return _judged("all threads", scaling < MIN_SCALING, seen, mend)


def processor_times(stat: str) -> tuple[float, float, float] | None:
    """Parse the text of /proc/stat into busy, stolen and total seconds of all processors; None if it has none."""
    fields = stat.split("\n", 1)[0].split()
    if len(fields) < 9 or fields[0] != "cpu":
        return None
    # user and nice include guest time, which follows steal
    user, nice, system, idle, iowait, irq, softirq, stolen = (int(field) * TICK for field in fields[1:9])
    busy = user + nice + system + irq + softirq
    return busy, stolen, busy + stolen + idle + iowait


def process_seconds(proc: Path) -> dict[int, float]:
    """Return the processor seconds of every process visible in /proc, by ID."""
    found = {}
    for folder in proc.glob("[0-9]*"):
        text = read_text(folder / "stat")  # None: the process has ended
        if text:
            fields = text.rpartition(")")[2].split()  # the name in brackets may contain any character
            found[int(folder.name)] = (int(fields[11]) + int(fields[12])) * TICK
    return found


def cgroup_folders(membership: str, root: Path) -> list[Path]:
    """Return the folders of this process's control groups for processor time, and their parents.

    ``membership`` is the text of /proc/self/cgroup.  In a container it may hold the host's path, and only ``root`` is
    visible.
    """
    found = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = next((top for top in (root / controllers, root / "cpu") if top.is_dir()), root) if controllers else root
        own = top / path.strip("/")
        inside = [own, *own.parents]
        found += [folder for folder in inside[: inside.index(top) + 1] if (folder / "cpu.stat").exists()]
    return found


def throttled_seconds(folders: Sequence[Path]) -> float | None:
    """Return the seconds for which control groups throttled their threads; None if none counts them."""
    units = {"throttled_usec": 1e-6, "throttled_time": 1e-9}  # version 2 and version 1
    rows = [line.split() for folder in folders for line in (read_text(folder / "cpu.stat") or "").splitlines()]
    found = [int(row[1]) * units[row[0]] for row in rows if row[0] in units]
    return sum(found) if found else None


def _limit(folder: Path) -> float | None:
    """Return the processor time that a control group allows, in processors; None for no limit."""
    quota_and_period = (read_text(folder / "cpu.max") or "").split()
    if not quota_and_period:
        quota_and_period = [read_text(folder / "cpu.cfs_quota_us") or "-1", read_text(folder / "cpu.cfs_period_us") or "100000"]
    quota, period = quota_and_period
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _judged(check: str, wrong: bool, seen: str, mend: str) -> HealthCheck:
    return HealthCheck(check, "wrong", seen, mend) if wrong else HealthCheck(check, "fine", seen)


def _unknown(check: str, why: str) -> HealthCheck:
    return HealthCheck(check, "unknown", why)
