"""The persistent CUDA kernels, simulated: every cell, forward and BPTT, in one block and in clusters, within the derived
tolerance; and faults planted in their source are caught.

Planted faults are text that is replaced in a copy of a module.  About 20 s, all of it the simulator's and the reference's.
"""

import functools
import inspect
import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install 'rnnbench[cuda-offline]'")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")

from rnnbench.cells import CELLS
from rnnbench.check import Expected, Problem, expected, gate
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import (
    device,
    network,
    persistent,
    persistent_backward,
    persistent_forward,
    sharing,
    simulator,
)
from rnnbench.impls.numba_cuda.layout import backward_products, forward_products
from rnnbench.impls.numba_cuda.regimes import CLUSTER, Limits, Regime, cluster_of
from rnnbench.impls.numba_cuda.simulator import SimulationError
from rnnbench.spec import Spec
from rnnbench.store import Case

ROOMY = Limits(threads=96, resident=128, shared=1 << 20, cluster=3, multiprocessors=6)
TIGHT = ROOMY._replace(resident=16)
"""So few registers that most weights lie in shared memory."""

SIZES = {1: 7, 3: 10}
"""Hidden sizes by blocks of a cluster; 10 units are 4, 4 and 2."""


@pytest.fixture(autouse=True)
def simulated(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process's device is the simulated one while a test runs."""
    monkeypatch.setenv(device.SIMULATION, "1")
    _forget()
    yield
    _forget()


def _forget() -> None:
    for cached in (device.require, device.device_limits, persistent.kernel, simulator.simulated):
        cached.cache_clear()


def clusters_of(monkeypatch: pytest.MonkeyPatch, blocks: int, limits: Limits) -> None:
    """Every network runs in clusters of so many blocks."""

    def choose(spec: Spec, _: Limits) -> Regime:
        return Regime(CLUSTER, *(cluster_of(of(spec), blocks, limits) for of in (forward_products, backward_products)))

    monkeypatch.setattr(network, "choose", choose)
    monkeypatch.setattr(network, "device_limits", lambda: limits)


@functools.cache
def problem(cell: str, hidden: int, batch: int, bidirectional: bool = False) -> Problem:
    size = hidden - 2 if CELLS[cell].feeds_back_output else None
    case = Case(phase="step", cell=cell, T=3, B=batch, I=2, H=hidden, output_size=size, bidirectional=bidirectional)
    return Problem(case)


@functools.cache
def wanted(given: Problem) -> Expected:
    return expected(given)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_ragged_sizes_in_registers(monkeypatch: pytest.MonkeyPatch, cell: str, blocks: int) -> None:
    """Neither blocks nor rows nor quads come out even, and the last cluster has rows beyond the batch."""
    clusters_of(monkeypatch, blocks, ROOMY)
    given = problem(cell, SIZES[blocks], 5)
    assert [str(finding) for finding in gate(numba_cuda, given, wanted(given)) if not finding.passed] == []


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_with_weights_in_shared_memory(monkeypatch: pytest.MonkeyPatch, cell: str, blocks: int) -> None:
    """... and another order of the threads; one direction runs time backwards."""
    clusters_of(monkeypatch, blocks, TIGHT)
    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, order=blocks))
    given = problem(cell, SIZES[blocks], 2, bidirectional=True)
    assert [str(finding) for finding in gate(numba_cuda, given, wanted(given)) if not finding.passed] == []


@dataclass(frozen=True)
class Fault:
    """In the module, each text is replaced by another; the k-th of equal ones where a number follows the module's name."""

    module: types.ModuleType
    replaced: tuple[tuple[str, str], ...]
    cell: str = "lstm"

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        source = inspect.getsource(self.module)
        for old, new in self.replaced:
            assert old in source, old
            source = source.replace(old, new)
        wrong = types.ModuleType(self.module.__name__)
        wrong.__file__ = self.module.__file__
        exec(compile(source, str(self.module.__file__), "exec"), wrong.__dict__)
        for user in (persistent, persistent_forward, persistent_backward):
            for name in ("forward_kernel", "backward_kernel", "sharing"):
                if getattr(user, name, None) is getattr(self.module, name, self):
                    monkeypatch.setattr(user, name, getattr(wrong, name))


STEP_BARRIER = "            cluster_arrive()\n", "            cluster_wait()\n"

FAULTS = {
    "no barrier in a step": Fault(persistent_forward, tuple((line, "") for line in STEP_BARRIER)),
    "no barrier in a step of BPTT": Fault(persistent_backward, tuple((line, "") for line in STEP_BARRIER)),
    "no barrier before the second product": Fault(
        persistent_forward,
        (
            (
                "            cluster_arrive()\n            if active:\n                write_operand",
                "            if active:\n                write_operand",
            ),
            ("            cluster_wait()\n            sums_2", "            sums_2"),
        ),
        "gru_reset_before",
    ),
    "no barrier before the second product of BPTT": Fault(
        persistent_backward,
        (
            (
                "            cluster_arrive()\n            if active_2:\n                write_one",
                "            if active_2:\n                write_one",
            ),
            ("            cluster_wait()\n            da_values", "            da_values"),
        ),
        "jordan",
    ),
    "no barrier before the first step": Fault(
        persistent_forward, (("        cluster_arrive()\n        cluster_wait()\n        for", "        for"),)
    ),
    "arrives but does not wait": Fault(persistent_forward, ((STEP_BARRIER[1], ""),)),
    "sends to a wrong peer": Fault(sharing, (("uint32(rank)", "uint32(rank // 2)"),)),
    "sends to a peer too many": Fault(sharing, (("rank < blocks", "rank <= blocks"),)),
    "writes the buffer that is read": Fault(persistent_forward, (("1 - buffer", "buffer"),)),
    "reads the other buffer in BPTT": Fault(
        persistent_backward, (("multiply(weights, shared, s & 1)", "multiply(weights, shared, 1 - (s & 1))"),)
    ),
    "one row off in the operand": Fault(
        sharing,
        (("operand + (buffer * rows + b) * padded + 4 * lane", "operand + (buffer * rows + b + 1) * padded + 4 * lane"),),
    ),
    "a unit too many": Fault(persistent_forward, (("unit < units", "unit <= units"),)),
    "a row too many": Fault(persistent_forward, (("row < batch", "row <= batch"),)),
    "every lane has the last row": Fault(sharing, (("if lane == b:", "if b == b:"),)),
    "the last state is not written": Fault(
        persistent_forward,
        (
            (
                "            if active:\n                write_state",
                "            if active and s + 1 < steps:\n                write_state",
            ),
        ),
    ),
    "a row of cotangents is not written": Fault(
        persistent_backward,
        (("            if active:\n                write_da", "            if active and row:\n                write_da"),),
    ),
    "the initial cotangent is not written": Fault(
        persistent_backward,
        (("        if active:\n            write_states", "        if active and row:\n            write_states"),),
    ),
    "padding is not cleared": Fault(persistent_forward, (("    zeros = 2 * rows * padded", "    zeros = 0"),)),
}


@pytest.mark.parametrize("order", ["ascending", "descending"])
@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch, name: str, order: str) -> None:
    """By the simulator, or as an error beyond ten times the tolerance."""
    fault = FAULTS[name]
    clusters_of(monkeypatch, 3, ROOMY)
    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, order=order))
    fault.plant(monkeypatch)
    given = problem(fault.cell, SIZES[3], 3)
    assert caught(given)


def caught(given: Problem) -> str | None:
    """What was found."""
    try:
        worst: Any = gate(numba_cuda, given, wanted(given))[0]
    except SimulationError as error:
        return str(error)
    return str(worst) if worst.ratio > 10 else None
