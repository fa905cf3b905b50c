"""The experiment behind docs/tolerance.md: the tolerance by noisy runs, its closed form, and real errors, over a grid.

    python docs/tolerance.py > table.md          # 25 minutes on two cores
    python docs/tolerance.py --quick             # two minutes: T to 256, H to 128

For each case it prints the tolerance in units of the unit roundoff times the tensor's largest element (the largest over
the outputs and over the gradients), the range of closed form / noisy runs over all tensors and gates, and the largest
error / tolerance of each backend.  A range within 1/4 to 4 in every line is what the closed form promises.
"""

import argparse
import importlib.metadata
import platform
import sys
import time
from collections.abc import Iterator

import numpy as np

import rnnbench
from rnnbench.check import Expected, Problem, gate
from rnnbench.check.tolerance import FACTOR, UNIT_ROUNDOFF, closed_form, noisy_runs
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case

BACKENDS = ("numpy_ref", "numba_cpu", "torch_nn", "torch_eager")

DEFAULT, LONG_MEMORY = "default", "long memory"

GRID = ((16, 16), (16, 128), (16, 1024), (256, 16), (256, 128), (256, 512), (4096, 16), (4096, 128))
"""(T, H); lstm at T 1024, H 1024 besides."""


def problems(quick: bool) -> Iterator[tuple[str, Problem]]:
    for cell, kind in CELLS.items():
        for steps, size in GRID:
            if quick and (steps > 256 or size > 128):
                continue
            for regime in (DEFAULT, LONG_MEMORY) if size <= 128 else (DEFAULT,):
                yield regime, problem(cell, steps, size, regime)
        for more in (
            {"layers": 2, "bidirectional": True},
            {"dtype": "float64"},
            {"nonlinearity": kind.nonlinearities[-1]},
            {"B": 64},
            {"B": 1024},
        ):
            yield DEFAULT, problem(cell, 64, 33, DEFAULT, **more)
        yield DEFAULT, problem(cell, 64, 33, DEFAULT, phase="tbptt", window=20, stride=7)
    if not quick:
        yield DEFAULT, problem("lstm", 1024, 1024, DEFAULT)


def problem(cell: str, steps: int, size: int, regime: str, phase: str = "step", **more) -> Problem:
    kind = CELLS[cell]
    sizes = {"T": steps, "B": 4, "I": size, "H": size} | more
    case = Case(cell, phase, output_size=size if kind.feeds_back_output else None, **sizes)
    if regime == DEFAULT:
        return Problem(case, seed=steps + size)
    return Problem(case, "orthogonal", 3.0 if kind.memory_gate else 0.0, seed=steps + size)


def line(regime: str, problem: Problem, modules: dict) -> str:
    case = problem.case
    wanted, closed = noisy_runs(problem), closed_form(problem)
    ratios = np.concatenate([closed.tolerances[name] / wanted.tolerances[name] for name in wanted.values])
    gradients = [name for name in wanted.values if name.startswith("d")]
    forward = [name for name in wanted.values if not name.startswith("d")]
    parts = [case.label(), regime, *(f"{size(wanted, names, case.dtype):.0f}" for names in (forward, gradients))]
    parts.append(f"{ratios.min():.2f} - {ratios.max():.2f}")
    for module in modules.values():
        supported = module.supports(case.spec()) is None
        parts.append(f"{gate(module, problem, wanted)[0].ratio:.2f}" if supported else "")
    return "| " + " | ".join(parts) + " |"


def size(wanted: Expected, names: list[str], dtype: str) -> float:
    """The largest tolerance in units of the unit roundoff times its tensor's largest element."""
    scales = {name: np.abs(wanted.values[name]).max() for name in names}
    return max(wanted.tolerances[name].max() / (scales[name] * UNIT_ROUNDOFF[dtype]) for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="leave out the long and the wide cases")
    quick = parser.parse_args().quick
    modules = {name: rnnbench.load_backend(name) for name in BACKENDS}
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("numpy", "numba", "torch"))
    print(f"rnnbench {rnnbench.__version__}, Python {platform.python_version()}, {versions}; {FACTOR} x largest deviation\n")
    headings = ["case", "weights", "outputs / u", "gradients / u", "closed form / noisy runs", *BACKENDS]
    print("| " + " | ".join(headings) + " |\n|" + " --- |" * len(headings))
    started = time.monotonic()
    for regime, each in problems(quick):
        print(line(regime, each, modules), flush=True)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
