"""A run with every kind of row, and why the store refuses what it refuses."""

from pathlib import Path

import pytest

from rnnbench.errors import StoreError
from rnnbench.results.rows import End, Failure, Gate, Memory, Run, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

CASE = Case("lstm", "step", 7, 3, 4, 5)
WINDOWED = Case("jordan", "tbptt", 7, 3, 4, 5, output_size=6, window=4, stride=2, dtype="float64", threads=2)

RUN = Run(
    run="20260101T000000-tiny",
    started="2026-01-01T00:00:00+00:00",
    suite="tiny",
    command=["rnnbench", "run", "tiny"],
    settings={"rounds": 2, "time_limit": 1.5, "text_file": None},
    environment={"machine": "some-cpu-2c", "versions": {"numpy": "2.0"}, "dirty": False},
    backends={"numpy_ref": {"device": "cpu"}, "torch_nn": {"unavailable": "needs PyTorch"}},
    cases=[CASE, WINDOWED],
)

ROWS = [
    Gate(CASE, "numpy_ref", True, {"y": (1e-7, 3e-7), "dx": (0.0, 2.5e-7)}, 0.25),
    Gate(CASE, "numba_cpu", False, {"y": (None, 3e-7)}, 0.25),
    Startup(CASE, "numpy_ref", 0, True, 0.5, 0.25, 0.125),
    Time(CASE, "numpy_ref", 1, 2, 64, [1e-3, 1.1e-3, 0.1 + 0.2]),
    Memory(CASE, "numpy_ref", 2**40 + 1),
    Truncation(WINDOWED, 0.25, {"weight_hh_l0": 0.5}),
    Failure(CASE, "torch_nn", "time", "crashed", 'killed by "SIGSEGV"\nat \u2028 \U0001f9e8 \x00', 1),
    Failure(WINDOWED, "torch_nn", "load", "unsupported", "no jordan"),
    End("2026-01-01T00:01:00+00:00", 60.0, 2.5, interrupted=True),
]


def write_rows(folder: Path) -> Path:
    """A results file with every kind of row."""
    path = folder / "machine" / "run.jsonl"
    with Writer(path) as writer:
        for row in [RUN, *ROWS]:
            writer.append(row)
    return path


def message(call, *arguments, **options) -> str:
    with pytest.raises(StoreError) as caught:
        call(*arguments, **options)
    return str(caught.value)
