"""Dropout between the layers of a recurrent network, with masks that depend on a key alone."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rnnbench.networks.arrays import Arrays
from rnnbench.networks.contract import Array, Gradients, Network, State

Key = Sequence[int]
"""What masks are drawn from, such as a seed and the number of the step: equal keys give equal masks in every backend."""


Scaled = Callable[[Array, np.ndarray], Array]


def draw_mask(key: Key, layer: int, rate: float, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Draw a mask: 0 with probability ``rate``, else 1 / (1 - rate).  Srivastava et al. 2014; between layers as torch.nn's."""
    kept = np.random.default_rng([*key, layer]).random(shape, np.float32) >= np.float32(rate)
    return kept.astype(dtype) / dtype.type(1 - rate)


class LayeredNetwork:
    """A stack of one-layer networks, as one network (``rnnbench.networks.contract.Network``), and with masks between them.

    ``scaled(array, mask)`` returns their product.
    ``masks``: one (T, B, F) for each layer but the last; consecutive calls of ``record`` use consecutive steps of them.
    """

    def __init__(self, layers: Sequence[Network], arrays: Arrays, scaled: Scaled, masks: Sequence[np.ndarray] = ()) -> None:
        self._layers, self.arrays, self._scaled, self._masks, self._step = layers, arrays, scaled, masks, 0

    def forward(self, x: Array, state: State | None = None, *lengths: Any) -> tuple[Array, State]:
        finals = []
        for network, before in zip(self._layers, self._split(state), strict=True):
            x, final = network.forward(x, before, *lengths)
            finals.append(final)
        return x, self._joined(finals)

    def record(self, x: Array, state: State | None = None, *lengths: Any) -> tuple[Array, State, Any]:
        steps = slice(self._step, self._step + x.shape[0])
        self._step = steps.stop
        finals, tapes = [], []
        for place, (network, before) in enumerate(zip(self._layers, self._split(state), strict=True)):
            x, final, tape = network.record(x, before, *lengths)
            if place < len(self._masks):
                x = self._scaled(x, self._masks[place][steps])
            finals.append(final)
            tapes.append(tape)
        return x, self._joined(finals), (tapes, steps)

    def backward(self, tape: Any, dy: Array, dstate: State | None = None) -> Gradients:
        tapes, steps = tape
        grads: dict[str, Array] = {}
        initial = []
        for place, (network, of_final) in reversed(list(enumerate(zip(self._layers, self._split(dstate), strict=True)))):
            if place < len(self._masks):
                dy = self._scaled(dy, self._masks[place][steps])
            found = network.backward(tapes.pop(), dy, of_final)
            grads |= {name.replace("_l0", f"_l{place}"): value for name, value in found.params.items()}
            dy = found.x
            initial.insert(0, found.state)
        return Gradients(grads, dy, self._joined(initial))

    def _split(self, state: State | None) -> list[State | None]:
        if state is None:
            return [None] * len(self._layers)
        size = state[0].shape[0] // len(self._layers)
        return [tuple(part[place * size : (place + 1) * size] for part in state) for place in range(len(self._layers))]

    def _joined(self, states: Sequence[State]) -> State:
        return tuple(self.arrays.concat(list(parts), 0) for parts in zip(*states, strict=True))
