"""Streams: a network run one time step at a time, with its state kept between the steps."""

from abc import ABC, abstractmethod
from typing import Any, NoReturn

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.networks.contract import Array, State
from rnnbench.networks.spec import Spec


class Stream(ABC):
    """A network at work on ``batch_size`` sequences, one step at a time; the base class checks the arguments.

    Steps read the network's current weights: ``update`` takes effect at the next step and leaves the state as it is.
    A stream serves one thread at a time; a network may have several streams, each with its own state.
    """

    def __init__(self, network: Any, batch_size: int, state: State | None) -> None:
        self.batch_size = batch_size
        self._network, self._row = network, (self.batch_size, network.spec.input_size)
        self.state = state

    def step(self, x_t: Array) -> Array:
        """Run one step on x_t (B, I); return y (B, H), a new array that later steps leave alone (O instead of H for jordan)."""
        self._check(x_t)
        return self._step(x_t)

    def reset(self) -> None:
        """Begin new sequences: set the state to zeros."""
        self.state = None

    @property
    def state(self) -> State:
        """The state after the last step, a copy; each part is (L, B, H).  Setting it copies; None means zeros."""
        return self._read()

    @state.setter
    def state(self, state: State | None) -> None:
        self._write(self._network._copied(self._network._check_state("state", state, self.batch_size)))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a stream cannot be copied or pickled: copy its network, and begin another with this state")

    def _check(self, x_t: Array) -> None:
        self._network._check_array("x_t", x_t, ("B", "I"), self._row)

    @abstractmethod
    def _step(self, x_t: Array) -> Array: ...

    @abstractmethod
    def _read(self) -> State:
        """Return a copy of the state."""

    @abstractmethod
    def _write(self, state: State) -> None:
        """Take over a state that nobody else refers to."""


class ForwardStream(Stream):
    """A stream of any network: each step is a call of its ``forward`` with T = 1."""

    def _step(self, x_t: Array) -> Array:
        y, self._state = self._network.forward(x_t.reshape((1, *self._row)), self._state)
        return y.reshape((self.batch_size, self._network.spec.features))

    def _read(self) -> State:
        return self._network._copied(self._state)

    def _write(self, state: State) -> None:
        self._state = state


def check_streamed(spec: Spec, batch_size: int) -> int:
    """Return ``batch_size`` as a Python int; raises ArgumentError if it or the network cannot run step by step."""
    if spec.bidirectional:
        raise ArgumentError(
            "a bidirectional network has no stream: its backward direction begins at the last step of a sequence; "
            "expected a network with bidirectional=False"
        )
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise ArgumentError(f"batch_size is {batch_size!r}; expected an integer >= 1")
    return int(batch_size)
