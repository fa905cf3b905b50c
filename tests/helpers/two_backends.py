"""Stored results to choose from: a backend that is faster on small shapes and one that is on large ones."""

import itertools
from pathlib import Path

import msgspec
import numpy as np

from helpers import stored_results
from rnnbench.choose.choose import Measurements, stored
from rnnbench.machine.facts import machine_name
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate

CASE = Case("lstm", "step", 64, 8, 64, 64)


def shape(T: int = 64, B: int = 8, H: int = 64, I: int | None = None, **fields) -> Case:  # noqa: E741, N803
    return msgspec.structs.replace(CASE, T=T, B=B, H=H, I=I or H, **fields)


def measurements(tmp_path: Path, times, others=(), name: str = "run", **facts) -> Measurements:
    return stored([stored_results.write(tmp_path / f"{name}.jsonl", times, others, **facts)], machine_name())


def law(case: Case, call: float, step: float, rate: float) -> float:
    """Seconds of a backend with the given overheads (s) and rate (operations/s)."""
    return call + step * case.T + estimate(case).flops / rate


QUICK_START = {"call": 2e-5, "step": 1e-6, "rate": 8e9}
QUICK_LATER = {"call": 8e-5, "step": 2e-4, "rate": 5e10}
GRID = [shape(T, B, H) for T, B, H in itertools.product((16, 64, 256), (1, 8, 64), (32, 128, 512))]


def two_backends(noise: float = 0.01, rounds: int = 6) -> dict[tuple[str, Case], list[float]]:
    """A backend that is faster on small shapes and one that is on large ones."""
    random = np.random.default_rng(0)
    return {
        (name, case): (law(case, **constants) * random.lognormal(0, noise, rounds)).tolist()
        for case in GRID
        for name, constants in (("small", QUICK_START), ("large", QUICK_LATER))
    }


def times_of(case: Case) -> dict[str, float]:
    return {"small": law(case, **QUICK_START), "large": law(case, **QUICK_LATER)}
