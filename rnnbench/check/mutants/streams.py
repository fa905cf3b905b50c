# ruff: noqa: ARG005  # a mutant keeps the signature of the function that it replaces
"""Bugs in streams: their state, the weights that steps read, and the arrays that they return."""

from typing import Any

import numpy as np

from rnnbench.check.mutants.hooks import Mutant, Planted, in_network, zeros
from rnnbench.networks.contract import State
from rnnbench.networks.stream import ForwardStream


class Forgetful(ForwardStream):
    """Every step begins with zeros."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        self._state = zeros(self._state)
        return super()._step(x_t)


class LayersSwapped(ForwardStream):
    """The layers' states are kept in the opposite order."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        y = super()._step(x_t)
        self._state = tuple(part[::-1] for part in self._state)
        return y


class StaleWeights(ForwardStream):
    """Steps read the weights that the network had when the stream began."""

    def __init__(self, network: Any, batch_size: int, state: State | None) -> None:
        super().__init__(network, batch_size, state)
        self._weights = network._weights

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        current, self._network._weights = self._network._weights, self._weights
        y = super()._step(x_t)
        self._network._weights = current
        return y


class ReusedY(ForwardStream):
    """All steps return one array."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        y = super()._step(x_t)
        self._y = self.__dict__.get("_y", y)
        self._y[...] = y
        return self._y


class ReturnsItsState(ForwardStream):
    """y is the array that the next step reads as its state."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        super()._step(x_t)
        return self._state[0][-1]


class LendsItsState(ForwardStream):
    """The state that is read is the stream's own, which later steps change."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        own = self._state
        y = super()._step(x_t)
        for part, new in zip(own, self._state, strict=True):
            part[...] = new
        self._state = own
        return y

    def _read(self) -> State:
        return self._state


class SetsHAlone(ForwardStream):
    """Setting the state leaves c as it was."""

    def _write(self, state: State) -> None:
        super()._write((state[0], *self.__dict__.get("_state", state)[1:]))


class SetOnce(ForwardStream):
    """The state can be given at the beginning, and not be set later."""

    def _write(self, state: State) -> None:
        super()._write(self.__dict__.get("_state", state))


class StateOfTheStepBefore(ForwardStream):
    """The state that is read is one step old."""

    def _step(self, x_t: np.ndarray) -> np.ndarray:
        self._last = self._state
        return super()._step(x_t)

    def _write(self, state: State) -> None:
        self._last = state
        super()._write(state)

    def _read(self) -> State:
        return self._network._copied(self._last)


def streams_of(kind: type[ForwardStream]) -> Planted:
    return in_network(_stream=lambda right, net, batch_size, state: kind(net, batch_size, state))


_STREAMS = {
    "lstm: a stream forgets its state": Forgetful,
    "gru: a stream swaps the states of its layers": LayersSwapped,
    "elman: a stream keeps the weights it began with": StaleWeights,
    "gru: a stream overwrites the y of its last step": ReusedY,
    "elman: a stream's y is its state": ReturnsItsState,
    "lstm: the state read from a stream changes later": LendsItsState,
    "lstm: setting the state of a stream leaves c": SetsHAlone,
    "jordan: the state of a stream cannot be set": SetOnce,
    "gru: the state of a stream is one step old": StateOfTheStepBefore,
}

MUTANTS = [Mutant(name, "streams", (name.partition(":")[0],), streams_of(kind)) for name, kind in _STREAMS.items()]
