"""numba_cuda's memory: the second call allocates nothing and waits for nothing, live arrays share none, graphs keep theirs.

In the simulator, whose driver counts and whose arrays lie where a GPU's would.  About 8 s.
"""

import gc
import itertools
import threading
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from numba.cuda.cudadrv.driver import CudaAPIError

import rnnbench
from rnnbench.errors import TapeError
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import interop, memory
from rnnbench.impls.numba_cuda.memory import GRAIN, Pool
from rnnbench.impls.numba_cuda.simulated_driver import DRIVER
from rnnbench.networks.spec import Spec

# of every regime, layers, directions and dtype at least one
SPECS = {
    "cluster-lstm": Spec("lstm", 2, 3),
    "cluster-gru_reset_before-bfloat16": Spec("gru_reset_before", 2, 3, dtype="bfloat16"),
    "deep-both-ways-gru": Spec("gru", 2, 2, num_layers=2, bidirectional=True),
    "grid-elman": Spec("elman", 2, 9),
    "per-step-jordan": Spec("jordan", 2, 3, output_size=2, dtype="float64"),
}
STEPS = 3


pytestmark = pytest.mark.usefixtures("simulated_gpu")


def loaded(spec: Spec) -> Any:
    return numba_cuda.load(spec, rnnbench.init_params(spec, 0))


def drawn(*shape: int, spec: Spec, seed: int = 0) -> Any:
    return numba_cuda.asarray(np.random.default_rng(seed).standard_normal(shape).astype(spec.numpy_dtype))


def problem(name: str, steps: int = STEPS) -> tuple[Any, Any, Any]:
    """A network, x and dy."""
    spec = SPECS[name]
    return loaded(spec), drawn(steps, 1, spec.input_size, spec=spec), drawn(steps, 1, spec.features, spec=spec, seed=1)


def counted(call: Callable[[], Any]) -> tuple[int, int]:
    """How often a call allocated, and how often it waited."""
    before = DRIVER.allocations, DRIVER.synchronisations
    call()
    return DRIVER.allocations - before[0], DRIVER.synchronisations - before[1]


def step(net: Any, x: Any, dy: Any) -> Any:
    return net.backward(net.record(x)[2], dy)


def calls(net: Any, x: Any, dy: Any) -> dict[str, Callable[[], Any]]:
    found = {"forward": lambda: net.forward(x), "record": lambda: net.record(x), "step": lambda: step(net, x, dy)}
    return found if net.spec.bidirectional else found | {"tbptt": lambda: rnnbench.tbptt(net, x, dy, 2, 1)}


def arrays_of(results: Any) -> list[np.ndarray]:
    if isinstance(results, np.ndarray):
        return [results]
    parts = results.values() if isinstance(results, dict) else results if isinstance(results, tuple | list) else ()
    return [array for part in parts for array in arrays_of(part)]


def contents(results: Any) -> list[np.ndarray]:
    return [np.array(array) for array in arrays_of(results)]


@pytest.mark.parametrize("name", SPECS)
def test_the_second_call_allocates_nothing_and_waits_for_nothing(name: str) -> None:
    net, x, dy = problem(name)
    assert counted(lambda: net.forward(x))[0] > 0, "the count must see what is new"
    for phase, call in calls(net, x, dy).items():
        call()
        assert counted(call) == (0, 0), phase


def test_results_that_are_kept_are_all_that_the_next_call_allocates() -> None:
    net, x, dy = problem("cluster-lstm")
    kept = [net.forward(x)]
    before = [contents(results) for results in kept]
    found = counted(lambda: kept.append(net.forward(x)))
    assert found == (len(arrays_of(kept[0])), 0)
    kept += [net.record(x)[:2], step(net, x, dy), rnnbench.tbptt(net, x, dy, 2, 1)]
    for then, now in zip(before, kept, strict=False):
        for a, b in zip(then, arrays_of(now), strict=True):
            np.testing.assert_array_equal(a, b, "results were overwritten")


@pytest.mark.parametrize("name", SPECS)
def test_live_tapes_and_results_share_no_memory(name: str) -> None:
    """Each of two tapes gives the gradients that it would give alone, in any order, with other work in between."""
    net, x, dy = problem(name)
    other = drawn(*x.shape, spec=net.spec, seed=2)
    alone = [contents(step(net, given, dy)) for given in (x, other)]
    first, second = net.record(x), net.record(other)
    net.forward(x)
    later = net.backward(second[2], dy)
    net.forward(other)
    earlier = net.backward(first[2], dy)
    for expected, found in zip(alone, (earlier, later), strict=True):
        for a, b in zip(expected, arrays_of(found), strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in itertools.combinations(arrays_of((*first[:2], *second[:2], earlier, later)), 2):
        assert not np.shares_memory(a, b)


def test_a_tape_that_is_dropped_gives_its_memory_back() -> None:
    net, x, _ = problem("cluster-lstm")
    kept = net.record(x)[2]
    assert counted(lambda: net.record(x))[0] > 0
    del kept
    tapes = []
    assert counted(lambda: tapes.extend(net.record(x)[2:] for _ in range(2))) == (0, 0)


def test_an_array_made_on_the_way_leaves_nothing_stale_behind() -> None:
    """Memory that is used again holds NaN in the simulator until it is written: results do not depend on what was there."""
    net, x, dy = problem("per-step-jordan")
    first = contents(step(net, x, dy))
    for a, b in zip(first, contents(step(net, x, dy)), strict=True):
        assert np.isfinite(b).all()
        np.testing.assert_array_equal(a, b)


def test_another_shape_works_and_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GRAIN", 4)  # so that no shape's arrays fit another's
    net, _, _ = problem("cluster-lstm")
    fresh, most, largest = loaded(net.spec), 0, 0
    for steps in (1, 4, 2, 5, 3, 6, 1):
        x = drawn(steps, 1, net.spec.input_size, spec=net.spec)
        largest = max(largest, counted_most(net.spec, x))
        for a, b in zip(contents(net.forward(x)), contents(fresh.forward(x)), strict=True):
            np.testing.assert_array_equal(a, b)
        most = max(most, net._pool.held)
        fresh = loaded(net.spec)
    assert largest <= most <= 2 * largest


def counted_most(spec: Spec, x: Any) -> int:
    """The memory of one call of a new network."""
    alone = loaded(spec)
    alone.forward(x)
    return alone._pool.held


def test_a_network_that_is_gone_holds_nothing_but_what_others_keep() -> None:
    net, x, _ = problem("cluster-lstm")
    y = net.forward(x)[0]
    pool, expected = weakref.ref(net._pool), contents(y)
    del net
    gc.collect()
    assert pool() is not None, "y lies in it"
    np.testing.assert_array_equal(contents(y)[0], expected[0])
    del y
    gc.collect()
    assert pool() is None


def test_two_streams_share_no_memory() -> None:
    """What one stream may still be reading is not given to the other."""
    net, x, _ = problem("cluster-lstm")
    with interop.on_stream(16):
        net.forward(x)
    with interop.on_stream(32):
        assert counted(lambda: net.forward(x))[0] > 0
    for stream in (16, 32):
        with interop.on_stream(stream):
            assert counted(lambda: net.forward(x)) == (0, 0)


def test_a_tape_of_another_stream_is_refused_and_stays_good() -> None:
    net, x, dy = problem("cluster-lstm")
    expected = contents(step(net, x, dy))
    with interop.on_stream(16):
        tape = net.record(x)[2]
    with pytest.raises(TapeError, match="recorded on stream 0x10 and backward is called on 0x0; expected the same stream"):
        net.backward(tape, dy)
    with interop.on_stream(16):
        found = contents(net.backward(tape, dy))
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_pool_serves_several_threads() -> None:
    """No block is given out twice: each lease is filled with its owner's mark, which nobody else overwrites."""
    pool, wrong = Pool(), []

    def work(mark: int) -> None:
        rng = np.random.default_rng(mark)
        for _ in range(300):
            held = [np.asarray(pool.lease(int(size))) for size in rng.integers(1, 4 * GRAIN, 3)]
            for array in held:
                array[...] = mark
            wrong.extend(array for array in held if (array != mark).any())

    threads = [threading.Thread(target=work, args=(mark,)) for mark in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_pool_gives_up_what_lay_idle_longest() -> None:
    pool = Pool()

    def use(*grains: int) -> int:
        """Hold blocks of so many grains at once."""
        return counted(lambda: [pool.lease(GRAIN * size) for size in grains])[0]

    assert use(4) == 1  # at most 4 at once: 8 may be held
    assert use(3) == 1
    assert pool.held == 7 * GRAIN
    assert use(2) == 1  # the block of 4 goes
    assert pool.held == 5 * GRAIN
    assert use(3, 1) == 1
    assert use(4) == 1


def test_a_pool_gives_up_all_that_lies_idle_before_memory_is_out(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, given = Pool(), memory._of_driver

    def short(size: int) -> Any:
        """A driver with room for four."""
        if pool.held + size > 4 * GRAIN:
            raise CudaAPIError(2, "CUDA_ERROR_OUT_OF_MEMORY")
        return given(size)

    monkeypatch.setattr(memory, "_of_driver", short)
    kept = [pool.lease(2 * GRAIN)]
    pool.lease(GRAIN)
    pool.lease(GRAIN)
    kept.append(pool.lease(2 * GRAIN))
    assert pool.held == 4 * GRAIN
    with pytest.raises(CudaAPIError, match="OUT_OF_MEMORY"):
        pool.lease(1)


def test_views_of_numbas_arrays_keep_their_memory() -> None:
    """Of its own class, without a GPU: what is done with arrays here does not let a lease end before the last view."""
    pool = Pool()
    lease = pool.lease(48)
    address, bytes_of_numba = lease.address, SimpleNamespace(gpu_data=SimpleNamespace(context=None), kept=lease.memory)
    lease._block = memory.Block(bytes_of_numba, address)
    array = memory.device_array(lease, (3, 2, 2), np.dtype("float32"))
    del lease
    part = array._do_getitem(1).reshape(4).view(np.dtype(SPECS["cluster-gru_reset_before-bfloat16"].numpy_dtype))
    del array
    assert part.__cuda_array_interface__["data"][0] == address + 16
    assert counted(lambda: pool.lease(48)) == (1, 0), "the first block is in use"
    held = [pool.lease(48)]
    del part
    assert counted(lambda: held.append(pool.lease(48))) == (0, 0)


def test_arrays_of_no_network_are_the_drivers() -> None:
    """What a user puts on the device is not in a network's memory."""
    assert memory.leased(8) is None
    assert counted(lambda: numba_cuda.asarray(np.zeros(3, "float32"))) == (1, 1)
    assert counted(lambda: numba_cuda.to_numpy(numba_cuda.asarray(np.zeros(3, "float32")))) == (1, 2)
    assert counted(numba_cuda.synchronize) == (0, 1)
