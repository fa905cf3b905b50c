"""A made-up results file for the tests of the reports: plausible numbers, every kind of row, every reason of failure."""

import math
from pathlib import Path

import numpy as np

from rnnbench.machine.snapshot import HealthCheck, Machine, Roof, Roofs, write_machine
from rnnbench.results.rows import End, Failure, Gate, Memory, Row, Run, Startup, Time, Truncation
from rnnbench.results.writer import Writer
from rnnbench.suite.case import Case

BACKENDS = ("numpy_ref", "numba_cpu", "torch_nn", "torch_eager", "numba_cuda")
CELLS = ("elman", "lstm", "gru")
LENGTHS = (16, 64, 256, 1024)
HIDDEN = (32, 64, 128, 256)
WINDOWS = (8, 32, 128, 1024)
ROUNDS = 12
NOISY = ("gru", 64)
HOSTILE = '</script><img src=x onerror="alert(1)">\'"&\u2028{{ 7 * 7 }} \U0001f9e8 ' + "x" * 300

GATES = {"elman": 1, "lstm": 4, "gru": 3}
RATE = {"numpy_ref": 9e9, "numba_cpu": 45e9, "torch_nn": 40e9, "torch_eager": 20e9}  # operations per second
OVERHEAD = {"numpy_ref": 3e-5, "numba_cpu": 1e-6, "torch_nn": 5e-6, "torch_eager": 9e-5}  # seconds per time step
IMPORT = {"numpy_ref": 0.05, "numba_cpu": 0.6, "torch_nn": 1.4, "torch_eager": 1.4}
COMPILE = {"numpy_ref": 0.0, "numba_cpu": 11.0, "torch_nn": 0.02, "torch_eager": 0.01}


def cases() -> list[Case]:
    grid = [
        Case(cell, phase, T, 16, 64, H)
        for cell in CELLS
        for phase in ("forward", "step")
        for T in LENGTHS
        for H in HIDDEN
    ]  # fmt: skip
    return grid + [Case(cell, "tbptt", 1024, 16, 64, 128, window=window) for cell in CELLS for window in WINDOWS]


def seconds(case: Case, backend: str) -> float:
    """Operations over a rate, plus a cost per step; numba_cpu loses where H = 256; torch_nn ties with it on one size, and is
    as fast but noisy on another."""
    if backend == "torch_nn" and (case.cell, case.H) in (("lstm", 128), NOISY):
        return seconds(case, "numba_cpu")
    operations = 2 * GATES[case.cell] * case.T * case.B * case.H * (case.I + case.H) * (1 if case.phase == "forward" else 3)
    rate = RATE[backend] * (0.62 if backend == "numba_cpu" and case.H == 256 else 1)
    passes = math.ceil(case.T / case.window) if case.window else 1
    return operations / rate + case.T * OVERHEAD[backend] + passes * 2e-5


def write(path: Path, *, hostile: bool = True, rounds: int = ROUNDS) -> Path:
    """Write the file; ``hostile`` adds a backend, a case and messages whose names try to break a page."""
    random = np.random.default_rng(0)
    names = [*BACKENDS, HOSTILE] if hostile else list(BACKENDS)
    measured = [name for name in names if name != "numba_cuda"]
    all_cases = cases() + ([Case(HOSTILE, "step", 16, 16, 64, 32)] if hostile else [])
    info = {name: {"device": "cpu", "threads": 2} for name in measured}
    run = Run(
        run="20250102-030405-grid",
        started="2025-01-02T03:04:05Z",
        suite="grid",
        command=["rnnbench", "run", "grid", "--rounds", str(rounds), *(["--note", HOSTILE] if hostile else [])],
        settings={"rounds": rounds, "samples": 5, "threads": 2, "input": "normal", "seed": 0, "time_limit": 60.0},
        environment={
            "machine": "example",
            "cpu": "Example CPU, 2 cores",
            "cores": 2,
            "memory": 8 * 2**30,
            "os": "Linux 6.1",
            "python": "3.11.9",
            "versions": {"numpy": "2.4.6", "numba": "0.68.1", "torch": "2.13.0"},
            "commit": "0123456789abcdef",
            "dirty": True,
            **({HOSTILE: HOSTILE} if hostile else {}),
        },
        backends=info | {"numba_cuda": {"unavailable": "numba_cuda needs an NVIDIA GPU: none was found"}},
        cases=all_cases,
    )
    failures = _failures()
    rows: list[Row] = [run]
    for case in all_cases:
        if case.window:
            error = 0.0 if case.window >= case.T else 2.0 * math.exp(-case.window / 40)
            rows.append(Truncation(case, error, {"weight_hh_l0": error, "weight_ih_l0": error / 2}))
        for backend in measured:
            if failure := failures.get((case, backend)):
                rows.append(failure)
                if failure.reason == "wrong":
                    rows.append(_gate(random, case, backend, passed=False))
                if failure.round is None:
                    continue
            else:
                rows.append(_gate(random, case, backend, passed=True))
            _measurements(rows, random, case, backend, rounds)
    rows.append(End("2025-01-02T04:05:06Z", 3600.0, 120.0))
    with Writer(path) as writer:
        writer.append_all(rows)
    if hostile:
        with path.open("ab") as file:
            file.write(b'{"kind":"time","case":null}\n\xff\xfe not json\n{"kind":"ti')
    return path


def write_roofs(folder: Path) -> Path:
    """What ``rnnbench machine`` would store of the made-up machine: numba_cpu reaches 45 of 60 GFLOP/s with one thread."""
    reads = {"L1": 200e9, "L2": 100e9, "L3": 50e9, "memory": 10e9}
    roofs = Roofs(
        vectors="AVX2",
        multiply_adds=[Roof("float32", 1, 60e9, 59e9, 80), Roof("float64", 1, 30e9, 29e9, 80)],
        reads=[Roof(name, 1, best, best, 80, 2**14) for name, best in reads.items()],
        barrier=[],
        empty_call=Roof("empty call", 1, 3e-8, 3e-8, 80),
        clock_step=4e-8,
        missing=["barrier: with one core no two threads can meet at the same time"],
    )
    findings = [
        HealthCheck("load average", "wrong", "2.5 threads wanted to run", "Wait until it has fallen."),
        HealthCheck("swap", "fine", "none"),
    ]
    look = Machine("2025-01-02T03:00:00+00:00", {"machine": "example"}, None, None, [], findings, roofs)
    return write_machine(look, folder)


def _failures() -> dict[tuple[Case, str], Failure]:
    def case(cell: str, T: int, H: int) -> Case:  # noqa: N803  # the field's names of sizes
        return Case(cell, "step", T, 16, 64, H)

    rows = [
        Failure(case("elman", 1024, 32), "numpy_ref", "time", "timeout", "no answer after 60 s", 0),
        Failure(case("lstm", 1024, 256), "numpy_ref", "time", "timeout", "no answer after 60 s"),
        Failure(case("gru", 16, 32), "torch_eager", "gate", "wrong", "weight_hh_l0: error 0.3 above its tolerance 0.001"),
        Failure(case("gru", 64, 32), "torch_eager", "time", "crashed", f"worker died of signal 11 {HOSTILE}"),
        Failure(case("gru", 256, 32), "torch_eager", "load", "error", "RuntimeError: out of memory"),
        *(Failure(case("elman", T, 64), "torch_nn", "load", "unsupported", "no such nonlinearity") for T in LENGTHS),
    ]
    return {(row.case, row.backend): row for row in rows}


def _gate(random: np.random.Generator, case: Case, backend: str, *, passed: bool) -> Gate:
    errors: dict[str, tuple[float | None, float]] = {
        tensor: (float(1e-6 * 10 ** random.uniform(-3, 0)), 2e-6)
        for tensor in ("y", "state h", "dx", "weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    }
    if not passed:
        errors |= {"weight_hh_l0": (0.3, 1e-3), "y": (None, 2e-6), "dx": (0.0, 0.0), HOSTILE: (1.0, 0.0)}
    return Gate(case, backend, passed, errors, 0.4)


def _measurements(rows: list[Row], random: np.random.Generator, case: Case, backend: str, rounds: int) -> None:
    known = Case("elman", *(getattr(case, name) for name in case.__struct_fields__[1:])) if case.cell == HOSTILE else case
    twin = "torch_nn" if backend == HOSTILE else backend
    steady = seconds(known, twin)
    if case.T == 64 and case.H in (64, 256):
        for round_ in range(2):
            for cold in (True, False):
                compile_s = COMPILE[twin] if cold else COMPILE[twin] / 40
                rows.append(Startup(case, backend, round_, cold, IMPORT[twin], 0.002, compile_s + steady))
    for round_ in range(rounds):
        # half of the rounds far to each side: whatever the seed, the interval reaches from below 1 / 1.4 to above 1.4
        drift = 1.5 ** (-1) ** round_ if twin == "torch_nn" and (case.cell, case.H) == NOISY else 1.0
        samples = steady * drift * random.lognormal(0, 0.01) * random.lognormal(0, 0.005, 5)
        rows.append(Time(case, backend, round_, round_ % 4, 8, [float(sample) for sample in samples]))
    if case.phase != "forward":
        kept = min(case.window or case.T, case.T) * case.B * case.H * GATES[known.cell] * 8
        rows.append(Memory(case, backend, 2_000_000 + kept))
