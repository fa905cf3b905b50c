"""A run of two cases, and variants of it, for the tests of what is read from it, merged and exported."""

from pathlib import Path

import msgspec

from rnnbench.results.rows import End, Failure, Gate, Memory, Run, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

A = Case("lstm", "step", 7, 3, 4, 5)
B = Case("jordan", "tbptt", 7, 3, 4, 5, output_size=6, window=4, stride=2, dtype="float64", threads=2)
COMMIT = "0123456789abcdef" * 2 + "01234567"
RUN = Run(
    run="20260101T000000-tiny",
    started="2026-01-01T00:00:00+00:00",
    suite="tiny",
    command=["rnnbench", "run", "tiny", "--quick"],
    settings={"rounds": 2, "samples": 3, "text_file": None},
    environment={
        "machine": "some-cpu-2c",
        "cpu": "Some CPU",
        "cores": 2,
        "os": "Linux 6.1",
        "python": "3.11.7",
        "versions": {"rnnbench": "0.1.0", "numpy": "2.0"},
        "commit": COMMIT,
        "dirty": False,
    },
    backends={"one": {"device": "cpu"}, "two": {"device": "cpu"}, "three": {"unavailable": "needs a GPU"}},
    cases=[A, B],
)
HOSTILE = ["../../etc/up", "x" * 300, "</script>", "two\nlines\x1b[31m", "\U0001f9e8", '=cmd|"/c calc"!A1', "@SUM(1)", "-1+1"]


def time(case: Case, backend: str, number: int, *samples: float) -> Time:
    return Time(case, backend, number, 0, 8, list(samples))


ROWS = [
    Gate(A, "one", True, {"y": (1e-7, 3e-7)}, 0.25),
    Startup(A, "one", 0, True, 0.5, 0.25, 0.125),
    time(A, "one", 0, 0.375, 0.125, 0.25),
    time(A, "two", 0, 0.625, 0.5),
    time(A, "one", 1, 0.5),
    Memory(A, "one", 2**20),
    Truncation(B, 0.25, {"weight_hh_l0": 0.5}),
    Failure(B, "one", "load", "unsupported", "no jordan"),
    time(B, "two", 0, 1.0, 1.0, 1.0),
    Failure(B, "two", "time", "crashed", "killed by SIGSEGV\nat last", 1),
    End("2026-01-01T00:01:00+00:00", 60.0, 2.5, timing_seconds=30.0, sampled_seconds=27.5),
]


def store(path: Path, run: Run = RUN, rows: list | None = None) -> Path:
    with Writer(path) as writer:
        writer.append_all([run, *(ROWS if rows is None else rows)])
    return path


def environment(**changes) -> Run:
    return msgspec.structs.replace(RUN, environment=RUN.environment | changes)


def named(run: str, run_row: Run = RUN, **changes) -> Run:
    return msgspec.structs.replace(run_row, run=run, **changes)


def assert_one_line(result: tuple[int, str, str], code: int, *said: str) -> None:
    assert result[:2] == (code, ""), result
    (line,) = result[2].splitlines()
    assert line.startswith("rnnbench: ")
    for part in said:
        assert part in line
