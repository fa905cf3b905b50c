"""A backend that is slower than another by a known share, and gives the same numbers: what a comparison has to find."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rnnbench.backend import Backend, Network, load_backend


def write_slowed(backend: str, share: float, path: Path) -> str:
    """Write a module that is ``backend`` slowed by ``share`` of each call's time; gives its path, a backend's name."""
    path.write_text(f"from rnnbench.measure.planted import slowed\n\nglobals().update(slowed({backend!r}, {share!r}))\n")
    return str(path)


def slowed(backend: str, share: float) -> dict[str, Any]:
    """The functions of a backend whose networks spin after each call, for a share of the time that this very call took."""
    module = load_backend(backend)

    def load(spec: Any, params: Any, *, threads: int | None = None) -> Network:
        return _SlowedNetwork(module, module.load(spec, params, threads=threads), share)

    return {name: getattr(module, name) for name in dir(module) if not name.startswith("_")} | {"load": load}


class _SlowedNetwork:
    def __init__(self, backend: Backend, net: Network, share: float) -> None:
        self._backend, self._net, self._share = backend, net, share
        self.params, self.update = net.params, net.update

    def forward(self, x: Any, state: Any = None) -> Any:
        return self._slowly(lambda: self._net.forward(x, state))

    def record(self, x: Any, state: Any = None) -> Any:
        return self._slowly(lambda: self._net.record(x, state))

    def backward(self, tape: Any, dy: Any, dstate: Any = None) -> Any:
        return self._slowly(lambda: self._net.backward(tape, dy, dstate))

    def _slowly(self, call: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        answer = call()
        self._backend.synchronize()
        until = started + (1 + self._share) * (time.perf_counter() - started)
        while time.perf_counter() < until:
            pass
        return answer
