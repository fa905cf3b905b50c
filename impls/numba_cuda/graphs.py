"""Functions of networks as CUDA graphs, which the GPU runs again and again without Python and without a launch per kernel.

Capture and replay are PyTorch's (``torch.cuda.graph``), so that a function may also do what PyTorch can capture.  Written
from its documentation and code: what was tried is our part of it, in the simulator, which captures and replays the
launches of our kernels and nothing else.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from rnnbench.errors import ArgumentError, CaptureError
from rnnbench.impls.numba_cuda import capture
from rnnbench.impls.numba_cuda.device import require, simulated
from rnnbench.impls.numba_cuda.interop import on_stream, pytorch
from rnnbench.impls.numba_cuda.memory import Pool

WARM_UPS = 3
"""Calls before the capture, as many as ``torch.cuda.make_graphed_callables`` makes: they compile, load and allocate."""


class Captured:
    """A graph: ``inputs`` are the tensors that it reads, ``outputs`` what the function returned, which every replay
    overwrites.  Before the first replay they hold nothing of meaning.
    """

    def __init__(self, inputs: tuple[Any, ...], outputs: Any, replay: Callable[[], None], needed: list[Any]) -> None:
        self.inputs, self.outputs, self._replay, self._needed = inputs, outputs, replay, needed

    def __call__(self, *tensors: Any) -> Any:
        """Copy the tensors to ``inputs``, replay, and return ``outputs``; raises ArgumentError."""
        _check(tensors, self.inputs)
        with pytorch().no_grad():
            for static, given in zip(self.inputs, tensors, strict=True):
                static.copy_(given)
        self.replay()
        return self.outputs

    def replay(self) -> None:
        """Run the graph on PyTorch's current stream, with what is in ``inputs``."""
        self._replay()


def captured(function: Callable[..., Any], *tensors: Any) -> Captured:
    """Call a function WARM_UPS times with copies of the tensors, on a stream of its own, and capture a further call.

    The function may call networks (``forward``, ``record``, ``backward``, ``tbptt``) on ``interop.from_torch`` of its
    arguments; it must do the same each time and keep no array.  The graph has memory of its own, and keeps the networks
    and the weights that they had: after ``update``, capture again.  Other arrays that the function reads are the caller's
    to keep.  Raises CaptureError where the function copies to or from the host, waits, compiles or needs more memory in
    the capture than before it.
    """
    torch = pytorch()
    require()
    _check(tensors, tensors)
    inputs = tuple(tensor.detach().clone().requires_grad_(tensor.requires_grad) for tensor in tensors)
    pool = Pool()
    needed: list[Any] = [pool]
    capture_it = _simulated if simulated() else _on_gpu
    outputs, replay = capture_it(torch, pool, needed, function, inputs)
    return Captured(inputs, outputs, replay, needed)


def _on_gpu(
    torch: Any, pool: Pool, needed: list[Any], function: Callable[..., Any], inputs: tuple[Any, ...]
) -> tuple[Any, Callable[[], None]]:
    stream, graph, failed = torch.cuda.Stream(), torch.cuda.CUDAGraph(), None
    outputs = None
    with pool.in_use(), on_stream(stream.cuda_stream):
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function(*inputs)
        # Numba frees what it owns when enough has come together, which would end the capture
        with require().defer_cleanup(), torch.cuda.graph(graph, stream=stream), capture.into(needed):
            try:
                outputs = function(*inputs)
            except CaptureError as error:  # leaves a valid capture; raised inside, it would be covered by errors of its end
                failed = error
    if failed is not None:
        raise failed
    needed.append(stream)
    return outputs, graph.replay


def _simulated(
    torch: Any, pool: Pool, needed: list[Any], function: Callable[..., Any], inputs: tuple[Any, ...]
) -> tuple[Any, Callable[[], None]]:
    from rnnbench.impls.numba_cuda.simulated_driver import DRIVER

    with ExitStack() as held:
        held.enter_context(pool.in_use())
        for _ in range(WARM_UPS):
            function(*inputs)
        launches = held.enter_context(DRIVER.captured())
        held.enter_context(capture.into(needed))
        outputs = function(*inputs)

    def replay() -> None:
        for launch in launches:
            launch()

    return outputs, replay


def _check(tensors: tuple[Any, ...], like: tuple[Any, ...]) -> None:
    torch = pytorch()
    if len(tensors) != len(like):
        raise ArgumentError(f"{len(tensors)} tensors are given; expected {len(like)}, as were captured")
    for number, (given, expected) in enumerate(zip(tensors, like, strict=True)):
        if not isinstance(given, torch.Tensor):
            raise ArgumentError(
                f"argument {number} is a {type(given).__module__}.{type(given).__name__}; expected a torch.Tensor"
            )
        found, wanted = ((tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in (given, expected))
        if found != wanted:
            raise ArgumentError(f"argument {number} has shape, dtype, device {_shown(found)}; expected {_shown(wanted)}")


def _shown(facts: tuple[Any, ...]) -> str:
    return " ".join(map(str, facts))
