"""The recurrent states of one layer and direction through time, in one flat device array."""

import math

from rnnbench.backend import Array, State
from rnnbench.impls.numba_cuda.arrays import Allocate
from rnnbench.impls.numba_cuda.kernels import Matrix, Values, plus
from rnnbench.impls.numba_cuda.launching import launch


class Slots:
    """States, or their cotangents, around the time steps: for every state of the cell T + 1 slots of (B, S).

    Slot t lies before step t in time order.  Thus, in either direction, the states from which the steps start, and
    those that they write, are each one contiguous block that is aligned with x.  ``allocate`` makes an array of a shape.
    """

    def __init__(self, allocate: Allocate, states: int, steps: int, batch: int, size: int, reverse: bool) -> None:
        self.steps, self.batch, self.size = steps, batch, size
        self._states, self.reverse = states, reverse
        self.array = allocate((self.position(0, states),))

    def before(self, t: int) -> int:
        """The slot from which step t starts."""
        return t + self.reverse

    def after(self, t: int) -> int:
        """The slot that step t writes."""
        return t + 1 - self.reverse

    @property
    def initial(self) -> int:
        return self.steps * self.reverse

    @property
    def final(self) -> int:
        return self.steps - self.initial

    def position(self, slot: int, state: int = 0) -> int:
        """Where the slot of a state begins in the array."""
        return (state * (self.steps + 1) + slot) * self.batch * self.size

    def matrix(self, slot: int, steps: int = 1) -> Matrix:
        """The cell's first state in the slots of several steps, (steps * B, S)."""
        return Matrix(self.array, self.position(slot), steps * self.batch, self.size, self.size, 1)

    def values(self, slot: int, state: int = 0) -> Values:
        """The values of a unit in a slot: ``state`` and those that follow it."""
        return Values(self.array, self.position(slot, state), self.size, self.position(0, 1))

    def outputs(self) -> Array:
        """The cell's first state after each step, (T, B, S), a view."""
        return self._view(self.position(self.after(0)), (self.steps, self.batch, self.size))

    def state(self, slot: int) -> State:
        """All states in one slot, each (B, S), views."""
        return tuple(self._view(self.position(slot, index), (self.batch, self.size)) for index in range(self._states))

    def add(self, slot: int, state: State) -> None:
        """Add contiguous arrays (B, S) to the states in a slot."""
        for total, part in zip(self.state(slot), state, strict=True):
            flat = total.reshape(part.size)
            launch(plus, part.size, flat, flat, part.reshape(part.size))

    def _view(self, first: int, shape: tuple[int, ...]) -> Array:
        return self.array[first : first + math.prod(shape)].reshape(shape)
