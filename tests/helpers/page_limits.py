"""How large the page of a large run gets, and how long it takes to build and to open.

Started in ``tests``: ``python -m helpers.page_limits``.

Prints a line per made-up run.  The tests hold the limits of size on smaller runs; times depend on the machine.
"""

import tempfile
import time
from pathlib import Path

import numpy as np

from helpers import synthetic_results
from helpers.browser import Opened, launched
from rnnbench.reports import write_html
from rnnbench.results.rows import End, Gate, Memory, Row, Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

RUNS = {"10,000 rows": (180, 4, 12), "5,000 results": (1250, 4, 5), "10^5 rows": (1785, 4, 12), "10^5 results": (10_000, 10, 2)}
"""Cases, backends and rounds."""


def cases(count: int) -> list[Case]:
    sizes = [
        Case(cell, phase, T, B, H, H)
        for cell in ("lstm", "gru", "elman")
        for phase in ("forward", "step")
        for B in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
        for T in range(16, 1024, 63)
        for H in (16, 32, 64, 128, 256, 512, 1024, 2048)
    ]  # fmt: skip
    return sizes[:count]


def write(path: Path, count: int, backends: int, rounds: int) -> int:
    """Write a results file of plausible numbers; returns the number of its rows."""
    random = np.random.default_rng(0)
    names = [f"backend{number}" for number in range(backends)]
    info: dict = {name: {} for name in names}
    run = Run("large", "2025-01-02T03:04:05Z", "large", ["rnnbench"], {"seed": 0}, {"machine": "example"}, info, cases(count))
    rows: list[Row] = [run]
    for case in run.cases:
        for number, name in enumerate(names):
            steady = synthetic_results.seconds(case, "numba_cpu") * (1 + 0.3 * number)
            rows.append(Gate(case, name, True, {"y": (1e-7, 2e-6), "dx": (2e-7, 2e-6)}, 0.1))
            for round_ in range(rounds):
                samples = steady * random.lognormal(0, 0.02) * random.lognormal(0, 0.005, 5)
                rows.append(Time(case, name, round_, 0, 1, [float(sample) for sample in samples]))
            rows.append(Memory(case, name, 2_000_000))
    rows.append(End("2025-01-02T04:05:06Z", 3600.0, 120.0))
    with Writer(path) as writer:
        writer.append_all(rows)
    return len(rows)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, launched() as browser:
        for name, sizes in RUNS.items():
            file = Path(folder) / "large.jsonl"
            file.unlink(missing_ok=True)
            rows = write(file, *sizes)
            start, processor = time.perf_counter(), time.process_time()
            page = write_html(file, Path(folder) / "large.html")
            built, used = time.perf_counter() - start, time.process_time() - processor
            start = time.perf_counter()
            Opened(browser, page).context.close()
            opened = time.perf_counter() - start
            print(
                f"{name:>14}: {rows:7,} rows, {sizes[0] * sizes[1]:7,} results, {page.stat().st_size / 1e6:.2f} MB, "
                f"built in {built:.1f} s ({used:.1f} s of a processor), opened and drawn in {opened:.1f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
