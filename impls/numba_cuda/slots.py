"""Recurrent states of one layer and direction over time, in one flat device array."""

from typing import Any, NamedTuple

from rnnbench.impls.numba_cuda.kernels import Matrix, Values, matrix


class Sizes(NamedTuple):
    """Sizes of one pass over a sequence; ``reverse`` is 1 where time runs backwards."""

    steps: int
    batch: int
    reverse: int

    @property
    def rows(self) -> int:
        return self.steps * self.batch


class Slots:
    """States between time steps, or their cotangents: T + 1 slots of (B, S) for every state of the cell.

    Slot t precedes step t in time.  So in either direction the states that the steps start from are one contiguous block
    aligned with x, and so are the states that they write.  ``array`` has ``slots_size`` elements.
    """

    def __init__(self, array: Any, states: int, sizes: Sizes, size: int) -> None:
        self.array, self._states, self.size = array, states, size
        self.steps, self.batch, self.reverse = sizes

    def before(self, t: int) -> int:
        """The slot that step t starts from."""
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
        """Offset of a slot of a state in the array."""
        return (state * (self.steps + 1) + slot) * self.batch * self.size

    def matrix(self, slot: int, steps: int = 1) -> Matrix:
        """The cell's first state in ``steps`` slots, (steps * B, S)."""
        return matrix(self.array, steps * self.batch, self.size, self.position(slot))

    def states(self, slot: int) -> tuple[Matrix, ...]:
        """All states in one slot, each (B, S)."""
        return tuple(matrix(self.array, self.batch, self.size, self.position(slot, state)) for state in range(self._states))

    def values(self, slot: int, state: int = 0) -> Values:
        """The values of each unit in a slot: ``state`` and the states after it."""
        return Values(self.array, self.position(slot, state), self.size, self.position(0, 1))


def slots_size(states: int, sizes: Sizes, size: int) -> int:
    """Number of elements of all slots."""
    return states * (sizes.steps + 1) * sizes.batch * size
