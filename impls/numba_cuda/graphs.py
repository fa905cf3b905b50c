"""Functions of networks as CUDA graphs, which the GPU replays without Python and without a launch per kernel.

Capture and replay use PyTorch (``torch.cuda.graph``), so a function may also contain anything that PyTorch can capture.  Not
yet tried on a GPU; the simulator captures and replays the launches of our kernels only.
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
"""Number of calls before the capture, which compile, load and allocate (as in ``torch.cuda.make_graphed_callables``)."""


class Captured:
    """A captured graph.

    ``inputs`` are the tensors that it reads.  ``outputs`` is what the function returned; every replay overwrites its tensors,
    whose values are undefined before the first replay.
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
        """Run the graph on PyTorch's current stream, with the values in ``inputs``."""
        self._replay()


def captured(function: Callable[..., Any], *tensors: Any) -> Captured:
    """Call a function WARM_UPS times with copies of the tensors, on a separate stream, and capture one more call.

    The function may call networks (``forward``, ``record``, ``backward``, ``tbptt``) on ``interop.from_torch`` of its
    arguments.  It must do the same work in every call and keep no arrays.  The graph owns its memory and keeps the networks
    with their current weights: after ``update``, capture again.  The caller keeps all other arrays that the function reads.

    Raises CaptureError where the function copies to or from the host, waits, compiles, or needs more memory in the capture
    than before it.
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
        # Numba frees its memory in batches, which would end the capture
        with require().defer_cleanup(), torch.cuda.graph(graph, stream=stream), capture.into(needed):
            try:
                outputs = function(*inputs)
            except CaptureError as error:  # the capture stays valid; raised inside, errors of its end would hide this one
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
        raise ArgumentError(f"{len(tensors)} tensors are given; expected {len(like)}, as in the capture")
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
