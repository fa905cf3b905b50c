"""A backend that is slower than another by a known share, and gives the same numbers: what a comparison has to find."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnbench.backend import Backend, Network, load_backend

WARM_UP_CALLS = 3

STEP = 1.005


def write_slowed(backend: str, share: float, path: Path) -> str:
    """Write a module that is ``backend`` slowed by ``share`` of each call's time; gives its path, a backend's name."""
    path.write_text(f"from rnnbench.measure.planted import slowed\n\nglobals().update(slowed({backend!r}, {share!r}))\n")
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
        self._synchronize = backend.synchronize
        self.params, self.update = net.params, net.update
        self.forward, self.record, self.backward = (
            self._slowed(call, share) for call in (net.forward, net.record, net.backward)
        )

    def _slowed(self, call: Callable[..., Any], share: float) -> Callable[..., Any]:
        usual = _Usual()

        def slowed_call(*arguments: Any) -> Any:
            started = time.perf_counter()
            answer = call(*arguments)
            self._synchronize()
            ended = time.perf_counter()
            until = ended + share * usual.after(ended - started)
            while time.perf_counter() < until:
                pass
            return answer

        return slowed_call


class _Usual:
    """The median of durations, in seconds, followed in steps of half a percent.

    Not the last duration: where another process took the core meanwhile, a spin in proportion would slow by more than was
    planted, as it keeps the core busy for time in which the call itself did not have it.
    """

    def __init__(self) -> None:
        self._calls, self._seconds = 0, math.inf

    def after(self, seconds: float) -> float:
        self._calls += 1
        if self._calls <= WARM_UP_CALLS:
            self._seconds = min(self._seconds, seconds)  # the first ones compile or load code
        else:
            self._seconds *= STEP if seconds > self._seconds else 1 / STEP
        return self._seconds
