"""The processor as the kernel describes it: caches, siblings, governors, virtualisation.

Functions take Linux's folders /sys/devices/system/cpu and /proc as arguments, and return None for what is missing there.
"""

import re
from pathlib import Path

import msgspec

CPU_FOLDER = Path("/sys/devices/system/cpu")
PROC = Path("/proc")

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_VECTORS = ("sse4_2", "avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve", "sve2", "bf16")


class Cache(msgspec.Struct, frozen=True):
    """One cache of a core; ``kind`` is "data", "instruction" or "unified"."""

    level: int
    kind: str
    bytes: int
    shared_by: int  # logical processors


def caches(folder: Path = CPU_FOLDER) -> list[Cache] | None:
    """Return the caches of the first core, lowest level first; None if unknown."""
    cpu = min(folder.glob("cpu[0-9]*/cache"), default=None, key=lambda path: int(path.parent.name[3:]))
    if cpu is None:
        return None
    found = []
    for index in cpu.glob("index[0-9]*"):
        size, level, kind = read_text(index / "size"), read_text(index / "level"), read_text(index / "type")
        parsed = re.fullmatch(r"(\d+)([KMG]?)", size or "")
        if parsed and level and kind:
            shared = cpu_list(read_text(index / "shared_cpu_list") or "")
            found.append(Cache(int(level), kind.lower(), int(parsed[1]) * _UNITS[parsed[2]], max(1, len(shared))))
    return sorted(found, key=lambda cache: (cache.level, cache.kind)) or None


def siblings(folder: Path = CPU_FOLDER) -> list[set[int]] | None:
    """Return the logical processors of each core; None if unknown."""
    texts = [read_text(path) for path in folder.glob("cpu[0-9]*/topology/thread_siblings_list")]
    cores = {frozenset(cpu_list(text)) for text in texts if text}
    return sorted((set(core) for core in cores), key=min) or None


def governors(folder: Path = CPU_FOLDER) -> list[str] | None:
    """Return the frequency governors in use; None if unknown, as in most virtual machines."""
    texts = {read_text(path) for path in folder.glob("cpu[0-9]*/cpufreq/scaling_governor")}
    return sorted(text for text in texts if text) or None


def boost(folder: Path = CPU_FOLDER) -> bool | None:
    """Return whether the clock may exceed its nominal rate; None if unknown."""
    allowed = read_text(folder / "cpufreq" / "boost")
    if allowed is not None:
        return allowed == "1"
    forbidden = read_text(folder / "intel_pstate" / "no_turbo")
    return None if forbidden is None else forbidden == "0"


def online(folder: Path = CPU_FOLDER) -> set[int] | None:
    """Return the logical processors that are online; None if unknown."""
    text = read_text(folder / "online")
    return cpu_list(text) if text else None


def vector_instructions(cpuinfo: str) -> list[str] | None:
    """Return the vector instruction sets in the text of /proc/cpuinfo; None if it lists no flags."""
    flags = _flags(cpuinfo)
    return None if flags is None else [name for name in _VECTORS if name in flags]


def hypervisor(cpuinfo: str) -> bool | None:
    """Return whether this is a virtual machine; None if unknown, as on processors other than x86."""
    flags = _flags(cpuinfo)
    return None if flags is None or "fpu" not in flags else "hypervisor" in flags


def cpu_list(text: str) -> set[int]:
    """Parse the kernel's notation for lists: "0-2,5" is {0, 1, 2, 5}."""
    numbers = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def read_text(path: Path) -> str | None:
    """Read one of the kernel's files, stripped; None if it is missing or unreadable."""
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _flags(cpuinfo: str) -> set[str] | None:
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
    return set(found[1].split()) if found else None
