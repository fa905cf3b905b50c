"""Which kernels run a network, and how its weights are laid out for them.  About 10 s."""

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

import rnnbench
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda.cells import CELLS
from rnnbench.impls.numba_cuda.choosing import choose
from rnnbench.impls.numba_cuda.layout import Shape, backward_products, forward_products, pack, places
from rnnbench.impls.numba_cuda.regimes import (
    CLUSTER,
    GRID,
    HOPPER,
    PER_STEP,
    SIMULATED,
    SMALL,
    TENSOR_GRID,
    Limits,
    by_size,
    with_rows,
)
from rnnbench.networks.spec import Spec


@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "regime", "blocks"),
    [
        ("lstm", 32, "float32", SMALL, 1),
        ("lstm", 128, "float32", CLUSTER, 2),
        ("lstm", 256, "float32", CLUSTER, 8),
        ("lstm", 512, "float32", CLUSTER, 16),
        ("lstm", 1024, "float32", GRID, 128),
        ("lstm", 2048, "float32", PER_STEP, None),
        ("gru", 1500, "float32", GRID, 125),
        ("lstm", 256, "float64", PER_STEP, None),
        ("gru", 512, "float32", CLUSTER, 16),
        ("gru_reset_before", 512, "float32", CLUSTER, 16),
        ("elman", 128, "float32", SMALL, 1),
        ("elman", 1000, "float32", CLUSTER, 16),
        ("jordan", 256, "float32", CLUSTER, 8),
        ("lstm", 256, "bfloat16", CLUSTER, 8),
        ("lstm", 256, "float16", CLUSTER, 8),
        ("jordan", 1000, "float32", GRID, 125),
        ("lstm", 512, "bfloat16", CLUSTER, 16),
        ("lstm", 1024, "bfloat16", TENSOR_GRID, 128),
        ("lstm", 2112, "bfloat16", TENSOR_GRID, 132),
        ("lstm", 2113, "bfloat16", PER_STEP, None),
        ("gru", 1060, "bfloat16", TENSOR_GRID, 106),
        ("elman", 4224, "bfloat16", TENSOR_GRID, 132),
    ],
)
def test_the_table_on_hopper(cell: str, hidden: int, dtype: str, regime: str, blocks: int | None) -> None:
    chosen = choose(Spec(cell, 64, hidden, dtype=dtype), HOPPER)
    assert chosen.name == regime
    assert (chosen.forward and chosen.forward.blocks) == blocks


@pytest.mark.parametrize("cell", CELLS)
def test_without_clusters_the_grid_takes_over(cell: str) -> None:
    older = HOPPER._replace(cluster=0)
    assert choose(Spec(cell, 4, 256), older).name == GRID
    assert choose(Spec(cell, 4, 256), older._replace(multiprocessors=0)).name == PER_STEP


@pytest.mark.parametrize("cell", CELLS)
def test_without_tensor_cores_bfloat16_runs_as_float32_does(cell: str) -> None:
    older = HOPPER._replace(tensor_cores=False)
    for hidden in (100, 1024, 2000):
        assert choose(Spec(cell, 4, hidden, dtype="bfloat16"), older) == choose(Spec(cell, 4, hidden), older)


@pytest.mark.parametrize("cell", CELLS)
def test_tensor_cores_hold_larger_networks_than_lanes_and_all_their_blocks_have_units(cell: str) -> None:
    held = [h for h in range(1, 5000, 61) if choose(Spec(cell, 1, h, dtype="bfloat16"), HOPPER).name == TENSOR_GRID]
    assert max(held) > max(h for h in range(1, 5000, 61) if choose(Spec(cell, 1, h), HOPPER).name == GRID)
    for hidden in held:
        spec = Spec(cell, 1, hidden, dtype="bfloat16")
        for shape, products in zip(choose(spec, HOPPER)[1:], (forward_products(spec), backward_products(spec)), strict=True):
            chosen = with_rows(shape, products, 1000, HOPPER)
            assert chosen.blocks <= HOPPER.multiprocessors
            assert (chosen.blocks - 1) * chosen.units < hidden <= chosen.blocks * chosen.units
            assert chosen.units * chosen.lanes <= chosen.threads == HOPPER.threads
            assert 4 * places(products, chosen)[1] <= HOPPER.shared
            assert places(products, shape)[0][0].resident > 0


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("limits", [HOPPER, SIMULATED])
def test_shapes_stay_within_the_limits_and_no_block_is_idle(cell: str, limits: Limits) -> None:
    for hidden in (1, 2, 3, 5, 8, 13, 31, 33, 64, 100, 127, 200, 257, 300, 512, 513, 600):
        spec = Spec(cell, 1, hidden)
        for shape, products in zip(choose(spec, limits)[1:], (forward_products(spec), backward_products(spec)), strict=True):
            if shape is None:
                continue
            for batch in (1, 2, 17, 1000):
                chosen = with_rows(shape, products, batch, limits)
                assert chosen.threads <= limits.threads
                assert chosen.blocks <= (limits.multiprocessors if chosen.grid else limits.cluster)
                assert 4 * places(products, chosen)[1] <= limits.shared
                assert 1 <= chosen.rows <= chosen.lanes <= 32
                assert (chosen.blocks - 1) * chosen.units < hidden <= chosen.blocks * chosen.units


def test_a_batch_is_spread_over_clusters_before_they_take_more_rows() -> None:
    spec = Spec("lstm", 1, 256)
    products, shape = forward_products(spec), choose(spec, HOPPER).forward
    rows = [with_rows(shape, products, batch, HOPPER).rows for batch in (1, 16, 17, 32, 64, 10_000)]
    assert rows == [1, 1, 2, 2, 4, 8]


def test_each_thread_finds_its_weights() -> None:
    """By block, quad, gate, thread and element; what no thread has is zero."""
    spec = Spec("gru", 1, 10)
    shape = Shape(blocks=3, units=4, lanes=4, rows=2, resident=1 << 20)
    (place,), _ = places(forward_products(spec), shape)
    weights = np.random.default_rng(0).standard_normal((10, 3, 10)).astype("float32")
    packed = pack(weights, place, shape).reshape(3, place.quads, 3, shape.threads, 4)
    found = np.zeros_like(weights)
    for unit in range(10):
        for k in range(10):
            quad, lane = divmod(k // 4, 4)
            found[unit, :, k] = packed[unit // 4, quad, :, unit % 4 * 4 + lane, k % 4]
    np.testing.assert_array_equal(found, weights)
    assert np.count_nonzero(packed) == weights.size


@pytest.mark.usefixtures("simulated_gpu")
def test_a_network_and_info_say_which_regime_runs_it() -> None:
    sizes = {5: CLUSTER, 20: GRID, 40: PER_STEP}
    specs = [Spec("lstm", 2, hidden) for hidden in sizes]
    networks = [numba_cuda.load(spec, rnnbench.init_params(spec, 0)) for spec in specs]
    assert [network.regime for network in networks] == list(sizes.values())
    assert [numba_cuda.info(spec)["regime"] for spec in specs] == list(sizes.values())


@pytest.mark.parametrize(
    ("cell", "hidden", "dtype", "batch", "regime"),
    [
        ("lstm", 256, "float32", 64, CLUSTER),
        ("lstm", 256, "float32", 1024, PER_STEP),
        ("lstm", 512, "float32", 64, CLUSTER),
        ("lstm", 512, "float32", 128, PER_STEP),
        ("lstm", 1024, "float32", 16, GRID),
        ("lstm", 1024, "float32", 256, PER_STEP),
        ("lstm", 1024, "bfloat16", 16, TENSOR_GRID),
        ("lstm", 256, "float64", 1, PER_STEP),
    ],
)
def test_many_passes_over_time_are_left_to_launches_of_steps(
    cell: str, hidden: int, dtype: str, batch: int, regime: str
) -> None:
    assert choose(Spec(cell, 64, hidden, dtype=dtype), HOPPER, batch).name == regime


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("hidden", [64, 256, 512, 1024])
def test_a_larger_batch_never_brings_a_resident_regime_back(cell: str, hidden: int) -> None:
    for dtype in ("float32", "bfloat16"):
        names = [choose(Spec(cell, 1, hidden, dtype=dtype), HOPPER, 2**power).name for power in range(13)]
        first = by_size(Spec(cell, 1, hidden, dtype=dtype), HOPPER).name
        resident = names.count(first)
        assert names == [first] * resident + [PER_STEP] * (len(names) - resident)
        assert names[0] == first


def test_fewer_clusters_at_once_mean_more_rows_and_sooner_launches_of_steps() -> None:
    """What the device answers counts, not what its multiprocessors would have room for."""
    spec, crowded = Spec("lstm", 1, 512), HOPPER._replace(at_once=(132, 66, 32, 16, 1))
    products, shape = forward_products(spec), choose(spec, HOPPER).forward
    assert [with_rows(shape, products, 8, limits).rows for limits in (HOPPER, crowded)] == [1, 8]
    assert [choose(spec, limits, 64).name for limits in (HOPPER, crowded)] == [CLUSTER, PER_STEP]
    assert HOPPER.clusters(3) == 44
    assert crowded.clusters(16) == 1


def test_slow_products_of_steps_keep_a_batch_resident() -> None:
    """Without cuBLAS each step's product is a kernel of our own."""
    spec = Spec("lstm", 1, 512)
    assert [choose(spec, HOPPER._replace(cublas=found), 128).name for found in (True, False)] == [PER_STEP, CLUSTER]


@pytest.mark.usefixtures("simulated_gpu")
def test_a_network_changes_regime_with_the_batch_and_an_update_reaches_both() -> None:
    spec = Spec("lstm", 2, 20, dtype="float32")
    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    large = next(batch for batch in range(1, 100) if net.regime_of(batch) == PER_STEP)
    assert (net.regime, net.regime_of(large), numba_cuda.info(spec, large)["regime"]) == (GRID, PER_STEP, PER_STEP)
    x = np.random.default_rng(0).standard_normal((2, large, 2)).astype("float32")
    results = []
    for seed in (0, 1):
        net.update(rnnbench.init_params(spec, seed))
        whole, one = (numba_cuda.to_numpy(net.forward(numba_cuda.asarray(given))[0]) for given in (x, x[:, :1]))
        np.testing.assert_allclose(whole[:, :1], one, rtol=1e-4, atol=1e-6)
        results.append(whole)
    assert np.abs(results[0] - results[1]).max() > 0.01


@pytest.mark.usefixtures("simulated_gpu")
def test_a_tape_is_read_by_the_regime_that_wrote_it() -> None:
    """... also where the next calls of the network are of another batch."""
    spec = Spec("gru", 2, 20)
    net = numba_cuda.load(spec, rnnbench.init_params(spec, 0))
    large = next(batch for batch in range(1, 100) if net.regime_of(batch) == PER_STEP)
    x, dy = (
        np.random.default_rng(seed).standard_normal((2, large, size)).astype("float32") for seed, size in ((0, 2), (1, 20))
    )
    small, tape = net.record(numba_cuda.asarray(x[:, :1]))[2], net.record(numba_cuda.asarray(x))[2]
    one, whole = net.backward(small, numba_cuda.asarray(dy[:, :1])), net.backward(tape, numba_cuda.asarray(dy))
    np.testing.assert_allclose(numba_cuda.to_numpy(whole.x)[:, :1], numba_cuda.to_numpy(one.x), rtol=1e-4, atol=1e-6)
