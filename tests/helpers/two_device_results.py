"""A made-up run whose backends compute on two devices: as ``synthetic_results``, with two on a GPU that are far faster."""

from pathlib import Path

from helpers import synthetic_results
from helpers.synthetic_results import CELLS, ROUNDS
from rnnbench.results.rows import End, Failure, Gate, Memory, Row, Run, Startup, Time
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

GPU = "NVIDIA H100 80GB HBM3"
ON_CPU, ON_GPU = ("numba_cpu", "torch_nn"), ("numba_cuda", "torch_cuda", "jax_cuda")
RATIO = {"numba_cuda": 0.05, "torch_cuda": 0.08, "jax_cuda": 0.2}
"""Times over numba_cpu's; torch_cuda overtakes numba_cuda at H 256."""


def cases() -> list[Case]:
    return [
        Case(cell, phase, T, 16, 64, H)
        for cell in CELLS[1:]
        for phase in ("forward", "step")
        for T in (16, 64, 256)
        for H in (64, 128, 256)
    ]


def seconds(case: Case, backend: str) -> float:
    if backend in ON_CPU:
        return synthetic_results.seconds(case, backend)
    ratio = RATIO[backend] * (2 if backend == "numba_cuda" and case.H == 256 else 1)
    return synthetic_results.seconds(case, "numba_cpu") * ratio


def write(path: Path, *, gpu: str = GPU, cpu: str = "cpu") -> Path:
    """Write the file: every backend on every case, device times of the first two on the GPU, one failure there."""
    info: dict = {name: {"device": cpu} for name in ON_CPU} | {name: {"device": gpu} for name in ON_GPU}
    info["onnxruntime"] = {"unavailable": "onnxruntime is not installed"}
    settings = {"rounds": ROUNDS, "samples": 5, "seed": 0}
    environment = {"machine": "example", "cpu": "Example CPU", "cores": 2, "versions": {"numpy": "2.4.6"}}
    run = Run("two", "2025-01-02T03:04:05Z", "two", ["rnnbench", "run", "two"], settings, environment, info, cases())
    rows: list[Row] = [run]
    for case in run.cases:
        for name in (*ON_CPU, *ON_GPU):
            if name == "jax_cuda" and case.H == 256:
                rows.append(Failure(case, name, "time", "crashed", "worker died of signal 9"))
                continue
            rows.append(Gate(case, name, True, {"y": (1e-7, 2e-6), "dx": (2e-7, 2e-6)}, 0.1))
            steady = seconds(case, name)
            rows.append(Startup(case, name, 0, True, 1.0, 0.01, 2.0 if name in ON_GPU else 1.0))
            for number in range(ROUNDS):
                samples = [steady * (1 + 0.001 * ((number + turn) % 3)) for turn in range(5)]
                on_device = [0.9 * sample for sample in samples] if name in ON_GPU[:2] else []
                rows.append(Time(case, name, number, 0, 8, samples, device_samples=on_device))
            rows.append(Memory(case, name, 2_000_000))
    rows.append(End("2025-01-02T04:05:06Z", 3600.0, 120.0))
    with Writer(path) as writer:
        writer.append_all(rows)
    return path
