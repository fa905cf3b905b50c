"""The persistent CUDA kernels, simulated: every cell, forward and BPTT, in a block, a cluster and a grid, within the derived
tolerance; and faults planted in their source are caught.

Planted faults are text that is replaced in a copy of a module.  About 30 s, all of it the simulator's and the reference's.
"""

import functools
import types
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest
from helpers.patched_source import patched

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from rnnbench.check import Expected, Problem, expected, gate
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import (
    network,
    persistent,
    persistent_backward,
    persistent_forward,
    regimes,
    sharing,
    simulator,
)
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.layout import BARRIER, MESSAGES, Product, Shape, backward_products, forward_products
from rnnbench.impls.numba_cuda.regimes import CLUSTER, Limits, Regime, cluster_of, grid_of
from rnnbench.impls.numba_cuda.simulated_faults import SimulationError
from rnnbench.networks.spec import NARROW, Spec
from rnnbench.suite.case import Case

ROOMY = Limits(threads=96, resident=128, shared=1 << 20, cluster=3, multiprocessors=3, tensor_cores=True)
TIGHT = ROOMY._replace(resident=16)
"""So few registers that most weights lie in shared memory."""

ORDERS = ("ascending", "descending", 7)

SIZES = {"block": 7, "cluster": 10, "messages": 11, "grid": 10}
"""Hidden sizes; 10 units are 4, 4 and 2 in three blocks, of which the last has no output of jordan: no block may do so where
they exchange messages."""


pytestmark = pytest.mark.usefixtures("simulated_gpu")


def run_in(monkeypatch: pytest.MonkeyPatch, team: str, limits: Limits) -> None:
    """Every network runs in one block, in clusters of three, which may exchange messages, or in a grid of three."""

    def shape(products: tuple[Product, ...]) -> Shape | None:
        if team == "grid":
            return grid_of(products, limits)
        return cluster_of(products, 1 if team == "block" else 3, limits)

    def choose(spec: Spec, _: Limits, batch: int) -> Regime:
        return Regime(CLUSTER, shape(forward_products(spec)), shape(backward_products(spec)))

    monkeypatch.setattr(network, "choose", choose)
    monkeypatch.setattr(network, "device_limits", lambda: limits)
    if team == "messages":
        monkeypatch.setattr(regimes, "EXCHANGE", ContextVar("exchange", default=MESSAGES))


@functools.cache
def problem(cell: str, hidden: int, batch: int, bidirectional: bool = False) -> Problem:
    size = hidden - 2 if CELLS[cell].feeds_back_output else None
    case = Case(phase="step", cell=cell, T=3, B=batch, I=2, H=hidden, output_size=size, bidirectional=bidirectional)
    return Problem(case)


@functools.cache
def wanted(given: Problem) -> Expected:
    return expected(given)


@pytest.mark.parametrize("team", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_ragged_sizes_in_registers(monkeypatch: pytest.MonkeyPatch, cell: str, team: str) -> None:
    """Neither blocks nor rows nor quads come out even, and the last team has rows beyond the batch."""
    check_at("ascending", monkeypatch, ROOMY, team, problem(cell, SIZES[team], 5))


@pytest.mark.parametrize("team", SIZES)
@pytest.mark.parametrize("cell", CELLS)
def test_both_directions_with_weights_in_shared_memory(monkeypatch: pytest.MonkeyPatch, cell: str, team: str) -> None:
    """... at a random order of the threads; one direction runs time backwards."""
    check_at(7, monkeypatch, TIGHT, team, problem(cell, SIZES[team], 2, bidirectional=True))


@pytest.mark.parametrize("team", ["cluster", "messages", "grid"])
@pytest.mark.parametrize("cell", ["lstm", "jordan"])
def test_the_last_block_first(monkeypatch: pytest.MonkeyPatch, cell: str, team: str) -> None:
    """One cell with one product, one with two."""
    check_at("descending", monkeypatch, ROOMY, team, problem(cell, SIZES[team], 3))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("cell", ["lstm", "jordan"])
@pytest.mark.parametrize("case", [{"phase": "step", "bidirectional": True}, {"phase": "tbptt", "window": 2, "stride": 1}])
def test_narrow_dtypes(cell: str, case: dict[str, Any], dtype: str) -> None:
    """Arrays hold the dtype, and directions, windows and gradients are joined and added in it."""
    size = 4 if CELLS[cell].feeds_back_output else None
    given = Problem(Case(cell=cell, T=3, B=2, I=2, H=5, output_size=size, dtype=dtype, **case))
    assert [str(finding) for finding in gate(numba_cuda, given, wanted(given)) if not finding.passed] == []


def check_at(order: str | int, monkeypatch: pytest.MonkeyPatch, limits: Limits, team: str, given: Problem) -> None:
    run_in(monkeypatch, team, limits)
    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, order=order))
    assert [str(finding) for finding in gate(numba_cuda, given, wanted(given)) if not finding.passed] == []


@dataclass(frozen=True)
class Fault:
    """In a module, each text is replaced by another, wherever it stands."""

    module: types.ModuleType
    replaced: tuple[tuple[str, str], ...]
    cell: str = "lstm"
    team: str = "cluster"

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        wrong = patched(self.module, *self.replaced)
        for user in (persistent, persistent_forward, persistent_backward):
            for name in ("forward_kernel", "backward_kernel", "sharing", "barriers", "clearing"):
                if getattr(user, name, None) is getattr(self.module, name, self):
                    monkeypatch.setattr(user, name, getattr(wrong, name))


def no_barrier(module: types.ModuleType, team: str = "cluster") -> Fault:
    """The blocks neither arrive at a step's barrier nor wait for it."""
    return Fault(
        module, (("            arrive(shared, mail, s)\n", ""), ("            wait(shared, mail, s)\n", "")), team=team
    )


def test_blocks_that_would_send_nothing_meet_at_barriers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would hear from them whether they have read what came before."""
    monkeypatch.setattr(regimes, "EXCHANGE", ContextVar("exchange", default=MESSAGES))
    for outputs, exchange in ((9, MESSAGES), (8, BARRIER)):
        products = forward_products(Spec("jordan", 1, 11, output_size=outputs))
        shape = cluster_of(products, 3, ROOMY)
        assert shape is not None
        assert shape.exchange == exchange


def by_messages(replaced: tuple[tuple[str, str], ...]) -> Fault:
    return Fault(sharing, replaced, team="messages")


FAULTS = {
    "no barrier in a step": no_barrier(persistent_forward),
    "no barrier in a step of BPTT": no_barrier(persistent_backward),
    "no barrier in a step of a grid": no_barrier(persistent_forward, team="grid"),
    "no barrier in a step of BPTT of a grid": no_barrier(persistent_backward, team="grid"),
    "no barrier before the second product": Fault(
        persistent_forward,
        (
            (
                "            arrive(shared, mail, 2 * s)\n            if active:\n                write_operand",
                "            if active:\n                write_operand",
            ),
            ("            wait(shared, mail, 2 * s)\n", ""),
        ),
        "gru_reset_before",
    ),
    "no barrier before the second product of BPTT": Fault(
        persistent_backward,
        (
            (
                "            arrive(shared, mail, 2 * s)\n            if active_2:\n                write_outputs",
                "            if active_2:\n                write_outputs",
            ),
            ("            wait(shared, mail, 2 * s)\n", ""),
        ),
        "jordan",
    ),
    "no barrier before the first step": Fault(persistent_forward, (("        begin_exchanges(shared, mail)\n", ""),)),
    "arrives but does not wait": Fault(persistent_forward, (("            wait(shared, mail, s)\n", ""),)),
    "a grid's barrier opens one exchange early": Fault(
        sharing, (("(number + 2) * blocks", "(number + 1) * blocks"),), team="grid"
    ),
    "a grid's barrier opens one block early": Fault(
        sharing, (("(number + 2) * blocks", "(number + 2) * blocks - 1"),), team="grid"
    ),
    "a block arrives before its threads have": Fault(
        sharing,
        (
            (
                "        cuda.syncthreads()\n        if cuda.threadIdx.x == 0:\n            count",
                "        if cuda.threadIdx.x == 0:\n            count",
            ),
        ),
        team="grid",
    ),
    "threads go on before their block has waited": Fault(
        sharing,
        (("uint32((number + 2) * blocks))\n        cuda.syncthreads()", "uint32((number + 2) * blocks))"),),
        team="grid",
    ),
    "mail is read before all of it is copied": Fault(
        sharing, (("copied + i))\n        cuda.syncthreads()", "copied + i))"),), team="grid"
    ),
    "mail is collected from the other buffer": Fault(
        persistent_forward, (("collect(shared, mail, 1 - buffer)", "collect(shared, mail, buffer)"),), team="grid"
    ),
    "mail is posted a row too far": Fault(
        sharing, (("(buffer * rows + lane) * padded", "(buffer * rows + lane + 1) * padded"),), team="grid"
    ),
    "sends to a wrong peer": Fault(sharing, (("uint32(rank)", "uint32(rank // 2)"),)),
    "sends to a peer too many": Fault(sharing, (("rank < blocks", "rank <= blocks"),)),
    "writes the buffer that is read": Fault(persistent_forward, (("1 - buffer", "buffer"),)),
    "reads the other buffer in BPTT": Fault(
        persistent_backward, (("multiply(weights, shared, mail, s & 1)", "multiply(weights, shared, mail, 1 - (s & 1))"),)
    ),
    "one row off in the operand": Fault(
        sharing,
        (("buffer * apart + part * together * padded", "buffer * apart + (part + 1) * together * padded"),),
    ),
    "a unit too many": Fault(persistent_forward, (("unit < units", "unit <= units"),)),
    "a row too many": Fault(persistent_forward, (("row < batch", "row <= batch"),)),
    "only the first lane has its row": Fault(sharing, (("if lane // together == part:", "if lane == 0:"),)),
    "the last state is not written": Fault(
        persistent_forward,
        (
            (
                "            if active:\n                y[",
                "            if active and s + 1 < steps:\n                y[",
            ),
        ),
    ),
    "a row of cotangents is not written": Fault(
        persistent_backward,
        (("            if active:\n                write_da", "            if active and row:\n                write_da"),),
    ),
    "the initial cotangent is not written": Fault(
        persistent_backward,
        (("        if active:\n            write_initial", "        if active and row:\n            write_initial"),),
    ),
    "no barrier in a step of one block": Fault(
        persistent_forward, (("            wait(shared, mail, s)\n", ""),), team="block"
    ),
    "no barrier in a step of BPTT of one block": Fault(
        persistent_backward, (("            wait(shared, mail, s)\n", ""),), team="block"
    ),
    "no bytes are expected": by_messages((("uint32(odd if number % 2 else even)", "uint32(0)"),)),
    "nobody says what is expected": Fault(
        persistent_forward, (("            arrive(shared, mail, s)\n", ""),), team="messages"
    ),
    "too few bytes are expected": by_messages((("FLOAT_BYTES * shape.rows", "FLOAT_BYTES * (shape.rows - 1)"),)),
    "bytes of padding are expected": by_messages((("product.length for number", "padded for number"),)),
    "a wrong parity": by_messages((("number // 2 % 2", "(number // 2 + 1) % 2"),)),
    "a parity that never changes": by_messages((("number // 2 % 2", "0"),)),
    "one mbarrier for all exchanges": by_messages(
        (("number % 2 * 2", "0"), ("uint32(number // 2 % 2)", "uint32(number % 2)")),
    ),
    "messages wait for nobody": by_messages(
        (("    def ready():\n        cuda.syncthreads()", "    def ready():\n        pass"),)
    ),
    "blocks end before their messages are there": by_messages(
        (("have arrived\n        cluster_arrive()\n        cluster_wait()", "have arrived\n        pass"),)
    ),
    "mbarriers are used before they are made": by_messages(
        (("shared_address(shared, 2))\n        cluster_arrive()\n        cluster_wait()", "shared_address(shared, 2))"),)
    ),
    "messages count in their sender": by_messages((("peer_address(counter, uint32(rank))", "counter"),)),
    "messages to one buffer": Fault(
        persistent_forward, (("s, 1 - buffer, unit", "s, 0, unit"), ("mail, buffer)", "mail, 0)")), team="messages"
    ),
    "messages to one buffer in BPTT": Fault(persistent_backward, (("s & 1", "0"),), team="messages"),
    "the other product's messages are expected": Fault(
        persistent_forward, (("barriers(shape, place_2, place)", "barriers(shape, place, place_2)"),), "jordan", "messages"
    ),
    "padding is not cleared": Fault(sharing, (("    first, end = place.operand, place.weights", "    first, end = 0, 0"),)),
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_caught(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """By the simulator, or as an error beyond ten times the tolerance, at one of the orders at which all cells are right."""
    fault = FAULTS[name]
    run_in(monkeypatch, fault.team, ROOMY)
    fault.plant(monkeypatch)
    given, run = problem(fault.cell, SIZES[fault.team], 3), simulator.run

    def caught_at(order: str | int) -> str | None:
        monkeypatch.setattr(simulator, "run", functools.partial(run, order=order))
        return caught(given)

    assert any(caught_at(order) for order in ORDERS)


def caught(given: Problem) -> str | None:
    """What was found."""
    try:
        worst: Any = gate(numba_cuda, given, wanted(given))[0]
    except SimulationError as error:
        return str(error)
    return str(worst) if worst.ratio > 10 else None
