"""The cells of ``torch_eager`` under torch.compile: what PyTorch users get for their own networks on the CPU.

One product computes the input of all time steps.  TorchInductor compiles the loop, forward and BPTT, in chunks of ``CHUNK``
steps plus one shorter chunk for the rest.  The chunk size was measured (PyTorch 2.13, one thread, lstm).  Compiled step by
step, the loop is no faster than eager, because every call passes guards and autograd.  Unrolled over 32 steps it is hardly
faster than in chunks of 8, but compiles in 40 s instead of 10.  PyTorch's prototype of a scan does not lower on the CPU.

Arrays are torch.Tensor on the CPU, with any strides; ``asarray`` and ``to_numpy`` copy.  The first call with a new shape,
dtype, number of threads or phase compiles for seconds and needs a C++ compiler; TorchInductor caches the result on disk.
So does the first call with lengths, whose loop has a mask; other lengths of the same shape use what it compiled.
"""

import functools
import inspect
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.errors import BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network, State
from rnnbench.networks.spec import Spec

try:
    import torch
    from torch import Tensor
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"torch_compile needs PyTorch: {how_to_install('torch')}") from error

from rnnbench.impls._torch import asarray, info, supports_lengths, synchronize, thread_limits, to_numpy
from rnnbench.impls.torch_eager import STEPS, EagerNetwork, Layer, over_lengths, over_time, supports

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy", "unavailable"]

CHUNK = 8
"""Number of time steps in one compiled graph."""


class CompiledNetwork(EagerNetwork):
    """``EagerNetwork`` with the loop of each layer compiled."""

    @functools.cached_property
    def _recurrence(self) -> Spec:
        """The part of the spec that the loop over time depends on."""
        return replace(self.spec, input_size=1, num_layers=1, bidirectional=False)

    def _forward_in_time(self, layer: Layer, state: State, x: Tensor, active: Tensor | None = None) -> tuple[Tensor, State]:
        layer, products = layer._replace(ih=_given), layer.ih(x)
        loop, masks = (over_time, []) if active is None else (over_lengths, [active.split(CHUNK)])
        outputs = []
        for part, *mask in zip(products.split(CHUNK), *masks, strict=True):
            run = _compiled(loop, self._recurrence, *part.shape[:2], torch.get_num_threads(), torch.is_grad_enabled())
            y, state = run(STEPS[self.spec.cell], layer, part, state, *mask)
            outputs.append(y)
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs), state


def _given(product: Tensor) -> Tensor:
    """Replaces a layer's input map, whose product is computed before the loop."""
    return product


@functools.cache
def _compiled(loop: Callable[..., Any], *graph: Any) -> Callable[..., tuple[Tensor, State]]:
    """The compiled ``loop`` of one ``graph``; separate functions save checking the guards of all others at every call.

    ``fullgraph`` turns code that cannot be compiled into an error.  ``isolate_recompiles`` allows any number of graphs.
    """
    compile_function: Any = torch.compile  # the declared overloads lack the last option
    return compile_function(loop, fullgraph=True, dynamic=False, isolate_recompiles=True)


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    return CompiledNetwork(spec, params, thread_limits(threads))


def unavailable() -> str | None:
    """Why torch.compile cannot work here, or None; uses TorchInductor's own search for a compiler."""
    if torch._dynamo.config.disable:
        return "torch.compile is turned off in this process: unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE"
    if "isolate_recompiles" not in inspect.signature(torch.compile).parameters:
        return f"this PyTorch, {torch.__version__}, is too old: {how_to_install('peers')}"
    if " " in torch.__file__:
        return "TorchInductor does not quote the path of PyTorch, which has a blank here: install it in a folder without one"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "torch.compile needs a C++ compiler at run time and finds none: install g++ or clang++, or name one in CXX"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    if not header.is_file():
        return "torch.compile needs Python's C headers at run time and finds no Python.h: install Python's development package"
    return None
