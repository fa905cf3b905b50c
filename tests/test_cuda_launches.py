"""How few launches and allocations a call of numba_cuda makes, in every regime, counted in the simulator.  About 5 s."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install 'rnnbench[cuda-offline]'")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")

import rnnbench
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda.memory import Pool
from rnnbench.impls.numba_cuda.simulated_driver import DRIVER
from rnnbench.networks.spec import Spec

pytestmark = pytest.mark.usefixtures("simulated_gpu")

STEPS = 4


class Counts(NamedTuple):
    """Launches, of kernels and of fills with zero, and blocks of memory from the network's pool."""

    launches: int
    blocks: int


class Expected(NamedTuple):
    spec: Spec
    regime: str
    forward: Counts
    record: Counts
    backward: Counts


# forward: the input product and the team, in a grid its mail; y, each part of the final state, and one block of scratch
# record: one block more, the tape
# backward: the team (in a grid its mail), x, two weights and two biases; x, the initial state, parameters and scratch
EXPECTED = {
    "small": Expected(Spec("elman", 2, 3), "small", Counts(2, 3), Counts(2, 4), Counts(6, 7)),
    "cluster": Expected(Spec("lstm", 2, 3), "cluster-persistent", Counts(2, 4), Counts(2, 5), Counts(6, 8)),
    "narrow": Expected(Spec("lstm", 2, 3, dtype="bfloat16"), "cluster-persistent", Counts(2, 4), Counts(2, 5), Counts(6, 8)),
    "two products": Expected(Spec("gru_reset_before", 2, 3), "cluster-persistent", Counts(2, 3), Counts(2, 4), Counts(8, 7)),
    "grid": Expected(Spec("lstm", 2, 20), "grid-persistent", Counts(3, 4), Counts(3, 5), Counts(7, 8)),
    "tensor cores": Expected(
        Spec("lstm", 2, 20, dtype="bfloat16"), "tensor-core grid", Counts(3, 4), Counts(3, 5), Counts(7, 8)
    ),
    # two launches a step; the states of both ends are copied, and y
    "per step": Expected(
        Spec("lstm", 2, 3, dtype="float64"),
        "per step",
        Counts(6 + 2 * STEPS, 4),
        Counts(6 + 2 * STEPS, 5),
        Counts(11 + 2 * STEPS, 8),
    ),
    # four layers, and a block for what the first two give the others
    "deep": Expected(
        Spec("gru", 2, 2, num_layers=2, bidirectional=True), "cluster-persistent", Counts(8, 7), Counts(8, 11), Counts(24, 25)
    ),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_launches_and_blocks_of_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, regime, *expected = EXPECTED[name]
    leased, lease = [], Pool.lease

    def counting(pool: Pool, size: int) -> Any:
        leased.append(size)
        return lease(pool, size)

    monkeypatch.setattr(Pool, "lease", counting)

    def counted(call: Callable[[], Any]) -> Counts:
        before = Counts(DRIVER.launches, len(leased))
        call()
        return Counts(DRIVER.launches - before.launches, len(leased) - before.blocks)

    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    x, dy = (numba_cuda.asarray(np.zeros((STEPS, 1, size), spec.numpy_dtype)) for size in (2, spec.features))
    tapes = [net.record(x)[2] for _ in range(2)]
    net.backward(tapes[0], dy)
    assert net.regime == regime
    found = [counted(lambda: net.forward(x)), counted(lambda: net.record(x)), counted(lambda: net.backward(tapes[1], dy))]
    assert found == expected
