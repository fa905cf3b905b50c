"""Measure the speed and memory of storing and loading results, with generated times."""

import itertools
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from rnnbench.errors import MissingLibrary
from rnnbench.installing import how_to_install
from rnnbench.measure.memory import measurable, peak_above
from rnnbench.results.frame import load_results
from rnnbench.results.rows import Run, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

BATCH = 500
"""Rows per sync to disk in the fast test."""

CASE_BATCH = 4
"""Rows per sync as in a run, which stores a case at a time, a row per backend."""

MIN_RATE = 2000.0
"""Least rate of appending, in rows per second."""

MAX_SECONDS = 10.0
"""Longest time to load a million rows, in seconds."""

BACKENDS = tuple("abcd")
ROUNDS = 40


class StoreSpeed(NamedTuple):
    """Measured speed and memory.

    ``appended``, ``by_case``: rows per second in batches of ``BATCH`` and ``CASE_BATCH``.  ``load``: seconds to load the
    frame.  ``file_bytes``, ``frame_bytes``: sizes in bytes.  ``peak``: peak memory while loading, in bytes; None if unknown.
    """

    rows: int
    appended: float
    by_case: float
    load: float
    file_bytes: int
    frame_bytes: int
    peak: int | None

    @property
    def met(self) -> bool:
        return self.appended >= MIN_RATE and self.load <= MAX_SECONDS * max(1.0, self.rows / 10**6)

    def text(self) -> str:
        peak = "not known here" if self.peak is None else f"{self.peak / 2**20:,.0f} MiB"
        return "\n".join(
            [
                f"{self.rows:,} times, {self.file_bytes / 2**20:,.0f} MiB",
                f"append, {BATCH} rows at once  {self.appended:>9,.0f} rows/s  bar: at least {MIN_RATE:,.0f}",
                f"append, {CASE_BATCH} rows at once    {self.by_case:>9,.0f} rows/s  as a run does after each case",
                f"load into pandas          {self.load:>9.2f} s       bar: at most {MAX_SECONDS:g} for a million",
                f"memory                    {self.frame_bytes / 2**20:>9,.0f} MiB     of the frame; while loading {peak}",
            ]
        )


def measure(rows: int, folder: Path) -> StoreSpeed:
    """Append ``rows`` times to a new file in ``folder`` and load it; raises MissingLibrary and StoreError."""
    if find_spec("pandas") is None:
        raise MissingLibrary(f"self-test store needs pandas: {how_to_install('report')}")
    path = folder / "bars.jsonl"
    cases = [Case("lstm", "step", number + 1, 8, 64, 64) for number in range(-(-rows // (len(BACKENDS) * ROUNDS)))]
    generated = itertools.islice(times(cases), rows)
    with Writer(path) as writer:
        writer.append(Run("bars", "2026-01-01T00:00:00+00:00", "bars", [], {}, {}, {name: {} for name in BACKENDS}, cases))
        first = list(itertools.islice(generated, min(rows // 2, 100 * CASE_BATCH)))
        by_case = _rate(writer, first, CASE_BATCH)
        appended = _rate(writer, generated, BATCH)
    found = {}

    def load() -> None:
        started = time.perf_counter()
        found["frame"] = load_results(path)
        found["seconds"] = time.perf_counter() - started

    peak = _peak(load)
    frame_bytes = int(found["frame"].memory_usage(deep=True).sum())
    return StoreSpeed(rows, appended, by_case, found["seconds"], path.stat().st_size, frame_bytes, peak)


def times(cases: list[Case]) -> Iterator[Time]:
    """Yield rows as a run appends them: round by round, case by case, backend by backend, with five samples each."""
    for number, case in itertools.product(range(ROUNDS), cases):
        for place, name in enumerate(BACKENDS):
            seconds = 1e-3 * (1 + place) * (1 + 1e-4 * number)
            samples = [seconds * (1 + 1e-3 * sample / 3) for sample in range(5)]
            yield Time(case, name, number, place, 4, samples, {"steal": 0.0, "run_delay": 1e-4 / 3, "canary_s": 5e-4 / 3})


def _rate(writer: Writer, rows: Iterator[Time] | list[Time], size: int) -> float:
    """Return the rate of appending in rows per second, without the time to generate the rows."""
    rows, total, seconds = iter(rows), 0, 0.0
    while batch := list(itertools.islice(rows, size)):
        started = time.perf_counter()
        writer.append_all(batch)
        seconds += time.perf_counter() - started
        total += len(batch)
    return total / seconds


def _peak(call: Callable[[], None]) -> int | None:
    if measurable():
        return peak_above(call)
    call()
    return None
