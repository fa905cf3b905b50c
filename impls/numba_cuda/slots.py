"""The recurrent states of one layer and direction through time, in one flat device array."""

from typing import Any, NamedTuple

from rnnbench.impls.numba_cuda.kernels import Matrix, Values, matrix


class Sizes(NamedTuple):
    """Of one pass over a sequence; ``reverse`` is 1 where time runs backwards."""

    steps: int
    batch: int
    reverse: int

    @property
    def rows(self) -> int:
        return self.steps * self.batch


class Slots:
    """States, or their cotangents, around the time steps: for every state of the cell T + 1 slots of (B, S).

    Slot t lies before step t in time order.  Thus, in either direction, the states from which the steps start, and
    those that they write, are each one contiguous block that is aligned with x.  ``array`` has ``slots_size`` elements.
    """

    def __init__(self, array: Any, states: int, sizes: Sizes, size: int) -> None:
        self.array, self._states, self.size = array, states, size
        self.steps, self.batch, self.reverse = sizes

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
        return matrix(self.array, steps * self.batch, self.size, self.position(slot))

    def states(self, slot: int) -> tuple[Matrix, ...]:
        """All states in one slot, each (B, S)."""
        return tuple(matrix(self.array, self.batch, self.size, self.position(slot, state)) for state in range(self._states))

    def values(self, slot: int, state: int = 0) -> Values:
        """The values of a unit in a slot: ``state`` and those that follow it."""
        return Values(self.array, self.position(slot, state), self.size, self.position(0, 1))


def slots_size(states: int, sizes: Sizes, size: int) -> int:
    """How many elements slots take."""
    return states * (sizes.steps + 1) * sizes.batch * size
