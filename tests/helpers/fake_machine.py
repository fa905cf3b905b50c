"""A machine for tests: a folder like one of the kernel's, two cores, and measured roofs."""

from pathlib import Path

from rnnbench.machine.snapshot import Roof, Roofs


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
