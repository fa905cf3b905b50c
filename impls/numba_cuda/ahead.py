"""Ahead-of-time compilation: compiles the kernels of given cases in parallel, without a GPU, and stores them (``cubins``).

Networks run as on a GPU, with arrays of the simulator, up to the point where they would load a kernel.  There the kernel is
compiled, and nothing is launched.
"""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from typing import Any
from unittest import mock

import numpy as np

from rnnbench.errors import BackendUnavailable
from rnnbench.impls.numba_cuda.device import SIMULATION, missing_compiler
from rnnbench.suite.case import Case

STEPS = 2
"""Number of time steps; kernels do not depend on it."""

Capability = tuple[int, int]


def compile_all(cases: Sequence[Case], capability: Capability, progress: Callable[[int, int], None]) -> None:
    """Compile all kernels that networks of the cases launch, and the exchanges of ``bringup``, on all processors.

    Raises BackendUnavailable without the compiler.
    """
    if reason := missing_compiler():
        raise BackendUnavailable(f"numba_cuda cannot compile here: {reason}")
    distinct = list({(case.spec(), case.B): case for case in cases}.values())
    workers = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        futures = [pool.submit(_compile_exchanges, capability)]
        futures += [pool.submit(compile_one, case, capability) for case in distinct]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            progress(done, len(futures))


def compile_one(case: Case, capability: Capability) -> None:
    """Compile the kernels of one case; runs in its own process."""
    import rnnbench
    from rnnbench.impls import numba_cuda
    from rnnbench.impls.numba_cuda.bringup import sends_messages
    from rnnbench.impls.numba_cuda.layout import BARRIER, MESSAGES
    from rnnbench.impls.numba_cuda.regimes import EXCHANGE, HOPPER

    spec = case.spec()
    weights = {name: np.zeros(shape, spec.numpy_dtype) for name, shape in spec.param_shapes().items()}
    for cublas, exchange in itertools.product((True, False), (BARRIER, MESSAGES)):  # cuBLAS changes the regime
        if exchange == MESSAGES and not sends_messages(case, HOPPER._replace(cublas=cublas)):
            continue
        before = EXCHANGE.set(exchange)
        with compiling_only(capability, cublas):
            net: Any = numba_cuda.load(spec, weights)
            x = numba_cuda.asarray(np.zeros((STEPS, case.B, spec.input_size), spec.numpy_dtype))
            net.forward(x)
            y, _, tape = net.record(x)
            net.backward(tape, y)
            rnnbench.tbptt(net, x, y, 1, 1)
        EXCHANGE.reset(before)


def _compile_exchanges(capability: Capability) -> None:
    from rnnbench.impls.numba_cuda import launching
    from rnnbench.impls.numba_cuda.bringup import exchange_shapes, exchanges
    from rnnbench.impls.numba_cuda.regimes import HOPPER
    from rnnbench.impls.numba_cuda.timing import SLEEP

    with compiling_only(capability, cublas=False):
        launching._empty(1, 0)
        SLEEP.launch(1, 1, 0, 1)
    for shape in exchange_shapes(HOPPER):
        exchanges(shape).compiled(_target(capability))


@contextmanager
def compiling_only(capability: Capability, cublas: bool) -> Iterator[None]:
    """Compile kernels instead of loading them, and launch nothing."""
    from rnnbench.impls.numba_cuda import launching, network
    from rnnbench.impls.numba_cuda.regimes import HOPPER

    def compiled(compile_for: Callable[[tuple[Any, ...]], Any], *_: Any) -> Any:
        return compile_for(_target(capability))

    stand_ins = {"simulated": lambda: False, "load": compiled, "address": lambda _: 0}
    with ExitStack() as held:
        held.enter_context(mock.patch.dict(os.environ, {SIMULATION: "1"}))
        held.enter_context(mock.patch.multiple(launching, **stand_ins, configuration=_nothing, _start=_nothing, _zero=_nothing))
        held.enter_context(mock.patch.object(network, "device_limits", return_value=HOPPER._replace(cublas=cublas)))
        yield


def _nothing(*_: Any, **__: Any) -> None:
    pass


def _target(capability: Capability) -> tuple[Any, ...]:
    from rnnbench.impls.numba_cuda.offline import target

    return target(capability)
