"""Slow a backend down by a known share, with unchanged results, so that a comparison must find it."""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnbench.networks.contract import Backend, Network
from rnnbench.networks.registry import load_backend

WARM_UP_CALLS = 3

CALLS = 501

STEP = 1.005


def write_slowed(backend: str, share: float, path: Path) -> str:
    """Write a module of ``backend`` slowed by ``share`` of each call's time; return its path, which is a backend name."""
    path.write_text(f"from {__name__} import slowed\n\nglobals().update(slowed({backend!r}, {share!r}))\n")
    return str(path)


def slowed(backend: str, share: float) -> dict[str, Any]:
    """Return the functions of a backend whose networks spin after each call, for a share of the call's typical time."""
    module = load_backend(backend)

    def load(spec: Any, params: Any, *, threads: int | None = None) -> Network:
        return SlowedNetwork(module, module.load(spec, params, threads=threads), share)

    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")} | {"load": load}


class SlowedNetwork:
    """A network that spins after each call, for ``share`` of the call's typical time."""

    def __init__(self, backend: Backend, net: Network, share: float) -> None:
        self.params, self.update = net.params, net.update
        self.forward, self.record, self.backward = (
            slowed_call(call, backend.synchronize, share) for call in (net.forward, net.record, net.backward)
        )


def slowed_call(call: Callable[..., Any], synchronize: Callable[[], None], share: float) -> Callable[..., Any]:
    """Return ``call`` slowed by ``share`` of its typical time, which includes the cost of reading the clock."""
    return _spinning(call, synchronize, share, _spin_overhead(synchronize))


def _spinning(call: Callable[..., Any], synchronize: Callable[[], None], share: float, overhead: float) -> Callable[..., Any]:
    typical = _TypicalDuration()

    def spinning(*arguments: Any) -> Any:
        started = time.perf_counter()
        answer = call(*arguments)
        synchronize()
        ended = time.perf_counter()
        until = ended + share * typical.of(ended - started) - overhead
        while time.perf_counter() < until:
            pass
        return answer

    return spinning


def _spin_overhead(synchronize: Callable[[], None]) -> float:
    """Return the overhead of a spin of zero length, in seconds."""

    def nothing() -> None:
        pass

    spinning = _spinning(nothing, synchronize, 0.0, 0.0)
    return statistics.median(_seconds(spinning) for _ in range(CALLS)) - statistics.median(
        _seconds(nothing) for _ in range(CALLS)
    )


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


class _TypicalDuration:
    """A running median of call durations in seconds, adjusted in steps of half a percent.

    A call that loses its core to another process counts as at most twice the median.  A proportional spin would slow it by
    more than planted, as the spin keeps the core busy for time in which the call did not have it.  Shorter calls count as
    measured: on a temporarily slow core both the call and its spin take longer.
    """

    def __init__(self) -> None:
        self._calls, self._seconds = 0, math.inf

    def of(self, seconds: float) -> float:
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            self._seconds = min(self._seconds, seconds)  # the first calls compile or load code
        else:
            self._seconds *= STEP if seconds > self._seconds else 1 / STEP
        return min(seconds, 2 * self._seconds)
