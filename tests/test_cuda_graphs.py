"""Functions of networks as CUDA graphs: a replay computes what a call does, from memory of its own; what no graph can hold
is refused in words.  In the simulator, which captures and replays launches.  About 8 s.
"""

import gc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]' in the checkout of rnnbench")

import torch

import rnnbench
from rnnbench.errors import ArgumentError, CaptureError
from rnnbench.impls import numba_cuda
from rnnbench.impls.numba_cuda import capture, interop, launching
from rnnbench.impls.numba_cuda.graphs import captured
from rnnbench.impls.numba_cuda.interop import from_torch, to_torch
from rnnbench.impls.numba_cuda.simulated_driver import DRIVER
from rnnbench.networks.spec import Spec

SPECS = {
    "cluster-lstm-bfloat16": Spec("lstm", 2, 3, dtype="bfloat16"),
    "grid-elman": Spec("elman", 2, 9),
    "per-step-jordan": Spec("jordan", 2, 3, output_size=2, dtype="float64", num_layers=2),
}
STEPS = 3


pytestmark = pytest.mark.usefixtures("simulated_gpu")


def loaded(spec: Spec, seed: int = 0) -> Any:
    return numba_cuda.load(spec, rnnbench.init_params(spec, seed))


def drawn(net: Any, features: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(STEPS, 1, features, generator=generator, dtype=torch.float64).to(getattr(torch, net.spec.dtype))


def step(net: Any) -> Callable[..., Any]:
    """y and all gradients of tensors x and dy."""

    def run(x: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
        y, final, tape = net.record(from_torch(x))
        grads = net.backward(tape, from_torch(dy))
        return [to_torch(array) for array in (y, *final, *grads.params.values(), grads.x, *grads.state)]

    return run


def truncated(net: Any) -> Callable[..., Any]:
    def run(x: torch.Tensor, dy: torch.Tensor) -> list[torch.Tensor]:
        y, final, grads = rnnbench.tbptt(net, from_torch(x), from_torch(dy), 2, 1)
        return [to_torch(array) for array in (y, *final, *grads.params.values(), grads.x, *grads.state)]

    return run


def forward(net: Any) -> Callable[..., Any]:
    return lambda x: to_torch(net.forward(from_torch(x))[0])


@pytest.mark.parametrize("function", [step, truncated])
@pytest.mark.parametrize("name", SPECS)
def test_a_replay_computes_what_a_call_does(name: str, function: Callable[..., Any]) -> None:
    net = loaded(SPECS[name])
    graph = captured(function(net), *(drawn(net, size, 0) for size in (2, net.spec.features)))
    for seed in (1, 2):
        given = [drawn(net, size, seed) for size in (2, net.spec.features)]
        expected = [tensor.clone() for tensor in function(net)(*given)]
        before = DRIVER.allocations, DRIVER.synchronisations
        found = graph(*given)
        assert (DRIVER.allocations, DRIVER.synchronisations) == before
        assert found is graph.outputs
        for a, b in zip(expected, found, strict=True):
            assert torch.equal(a, b)


def test_a_graphs_memory_is_its_own() -> None:
    """Calls between replays disturb no graph, replays disturb no result of a call, and graphs not each other."""
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    x = [drawn(net, 2, seed) for seed in range(3)]
    run = forward(net)
    first, second = captured(run, x[0]), captured(run, x[0])
    kept = run(x[2])
    expected = [run(given).clone() for given in x]
    y0, y1 = first(x[0]), second(x[1])
    run(x[2])
    for a, b in zip(expected, (y0, y1, kept), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first(x[1]), expected[1])
    assert y0 is first.outputs, "a graph's outputs are the same tensors each time"


def test_a_graph_keeps_its_network_and_weights() -> None:
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    x = drawn(net, 2, 0)
    graph = captured(forward(net), x)
    expected = forward(net)(x).clone()
    weights = arrays_in(net._weights)
    net.update(rnnbench.init_params(net.spec, 1))
    del net
    gc.collect()
    kept = {id(array) for array in arrays_in(graph._needed)}
    assert weights
    assert all(id(array) in kept for array in weights)
    assert torch.equal(graph(x), expected)


def arrays_in(things: Any) -> list[Any]:
    """Arrays in nested lists, tuples and dictionaries."""
    if isinstance(things, np.ndarray):
        return [things]
    parts = things.values() if isinstance(things, dict) else things if isinstance(things, tuple | list) else ()
    return [array for part in parts for array in arrays_in(part)]


def test_a_captured_call_launches_nothing_until_it_is_replayed() -> None:
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    graph = captured(forward(net), drawn(net, 2, 0))
    before = graph.outputs.clone()
    expected = forward(net)(graph.inputs[0])
    assert not torch.equal(before, expected)
    graph.replay()
    assert torch.equal(graph.outputs, expected)


def fails_in_the_capture(ordinary: Callable[[], Any], special: Callable[[], Any]) -> Callable[[], Any]:
    """A function that does something else the time that it is captured."""
    return lambda: special() if capture.underway() else ordinary()


def test_what_no_graph_can_hold_is_refused_in_words() -> None:
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    x, longer = (from_torch(torch.zeros(steps, 1, 2, dtype=torch.bfloat16)) for steps in (STEPS, STEPS + 9))
    other = loaded(Spec("gru", 2, 3, dtype="bfloat16"))
    y, _ = net.forward(x)
    refused: dict[str, Callable[[], Any]] = {
        r"would allocate \d+ bytes": lambda: net.forward(longer),
        r"would compile \w+": lambda: loaded_for_the_first_time(other, x),
        "would copy to the host": lambda: numba_cuda.to_numpy(y),
        "would copy from the host": lambda: net.update(net.params()),
        "would wait for the device": numba_cuda.synchronize,
    }
    for words, special in refused.items():
        with pytest.raises(CaptureError, match=words):
            captured(fails_in_the_capture(lambda: net.forward(x), special))
        assert not DRIVER.capturing, "a capture that failed has ended"
    assert np.isfinite(numba_cuda.to_numpy(net.forward(x)[0]).astype("float32")).all()


def loaded_for_the_first_time(net: Any, x: Any) -> None:
    """A call whose memory is there, as of other kernels that have run, but whose kernel is not loaded."""
    kernels, DRIVER._loaded = DRIVER._loaded, set()
    try:
        net.forward(x)
    finally:
        DRIVER._loaded = kernels


def test_results_that_the_function_keeps_are_missed_in_the_capture() -> None:
    net, kept = loaded(SPECS["cluster-lstm-bfloat16"]), []
    x = from_torch(torch.zeros(STEPS, 1, 2, dtype=torch.bfloat16))
    with pytest.raises(
        CaptureError, match=r"would allocate \d+ bytes while a CUDA graph is being captured; expected only what"
    ):
        captured(lambda: kept.append(net.forward(x)))


def test_a_capture_of_somebody_elses_is_refused() -> None:
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    x = from_torch(torch.zeros(STEPS, 1, 2, dtype=torch.bfloat16))
    with DRIVER.captured(), pytest.raises(CaptureError, match=r"graph is being captured that is not one of .*graphs\.captured"):
        net.forward(x)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "0 tensors are given; expected 1, as in the capture"),
        ((np.zeros((STEPS, 1, 2)),), "argument 0 is a numpy.ndarray; expected a torch.Tensor"),
        (
            (torch.zeros(STEPS, 2, 2),),
            r"argument 0 has shape, dtype, device \(3, 2, 2\) torch.float32 cpu; expected \(3, 1, 2\) torch.bfloat16 cpu",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(given: tuple[Any, ...], words: str) -> None:
    net = loaded(SPECS["cluster-lstm-bfloat16"])
    graph = captured(forward(net), drawn(net, 2, 0))
    with pytest.raises(ArgumentError, match=words):
        graph(*given)


def test_inputs_are_copies_that_may_want_gradients() -> None:
    given = torch.ones(2, requires_grad=True)
    graph = captured(lambda x: x, given)
    assert graph.inputs[0].requires_grad
    assert graph.inputs[0].data_ptr() != given.data_ptr()
    graph(torch.full((2,), 3.0))
    assert graph.inputs[0].tolist() == [3, 3]
    assert given.tolist() == [1, 1]


def test_the_stream_of_a_graph_is_set_back() -> None:
    with interop.on_stream(16):
        captured(lambda: None)
        assert launching.STREAM.get() == 16
