"""A backend that is slower than another by a known share, and gives the same numbers: what a comparison has to find."""

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
    """Write a module that is ``backend`` slowed by ``share`` of each call's time; gives its path, a backend's name."""
    path.write_text(f"from {__name__} import slowed\n\nglobals().update(slowed({backend!r}, {share!r}))\n")
    return str(path)


def slowed(backend: str, share: float) -> dict[str, Any]:
    """The functions of a backend whose networks spin after each call, for a share of its usual time."""
    module = load_backend(backend)

    def load(spec: Any, params: Any, *, threads: int | None = None) -> Network:
        return SlowedNetwork(module, module.load(spec, params, threads=threads), share)

    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")} | {"load": load}


class SlowedNetwork:
    """A network that spins after each call for ``share`` of the time that such a call usually takes."""

    def __init__(self, backend: Backend, net: Network, share: float) -> None:
        self.params, self.update = net.params, net.update
        self.forward, self.record, self.backward = (
            slowed_call(call, backend.synchronize, share) for call in (net.forward, net.record, net.backward)
        )


def slowed_call(call: Callable[..., Any], synchronize: Callable[[], None], share: float) -> Callable[..., Any]:
    """``call``, longer by ``share`` of its usual time; what reading the clock takes is a part of that, not beside it."""
    return _spinning(call, synchronize, share, _own_seconds(synchronize))


def _spinning(call: Callable[..., Any], synchronize: Callable[[], None], share: float, own: float) -> Callable[..., Any]:
    usual = _Usual()

    def spinning(*arguments: Any) -> Any:
        started = time.perf_counter()
        answer = call(*arguments)
        synchronize()
        ended = time.perf_counter()
        until = ended + share * usual.of(ended - started) - own
        while time.perf_counter() < until:
            pass
        return answer

    return spinning


def _own_seconds(synchronize: Callable[[], None]) -> float:
    """Seconds that a call takes longer for being followed by no spin at all."""

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


class _Usual:
    """The median of durations, in seconds, followed in steps of half a percent: what a call usually takes.

    A spin in proportion to a call that lost its core to another process would slow by more than was planted, for it keeps
    the core busy for time in which the call itself did not have it; so no call counts as longer than twice the usual one.
    Up to there it counts as what it took: on a core that is slow for a while the call is too, and so is its spin.
    """

    def __init__(self) -> None:
        self._calls, self._seconds = 0, math.inf

    def of(self, seconds: float) -> float:
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            self._seconds = min(self._seconds, seconds)  # the first ones compile or load code
        else:
            self._seconds *= STEP if seconds > self._seconds else 1 / STEP
        return min(seconds, 2 * self._seconds)
