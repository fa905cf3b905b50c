"""Interface of a regime: the recurrence of one layer in one direction, forward and backward; ``layer`` does the rest."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from rnnbench.impls.numba_cuda.algebra import Weights
from rnnbench.impls.numba_cuda.kernels import Matrix
from rnnbench.impls.numba_cuda.slots import Sizes, Slots
from rnnbench.networks.params import Params


class Flow(NamedTuple):
    """Inputs and outputs of a pass: the initial state in, y and the final state out; in BPTT their cotangents, reversed.

    y (T*B, S) may have strided rows, and has the network's or the computed dtype; the parts of states (B, S) have the
    network's dtype.
    """

    sizes: Sizes
    initial: tuple[Matrix, ...]
    y: Matrix
    final: tuple[Matrix, ...]


class Kept(NamedTuple):
    """Tape of the recurrence: the states, ``saved`` (T*B, values*H), and the second product's ``operand`` (T*B, H) if any."""

    states: Slots
    saved: Matrix
    operand: Matrix | None


class Recurrence(Protocol):
    """One regime for the layers of one spec.

    ``work``: scratch arrays of the computed dtype, flat, with the sizes of ``forward_work`` and ``backward_work``; None for a
    size of 0.
    """

    name: str

    def pack(self, params: Params, /) -> Any:
        """Pack a layer's recurrent weights for this regime."""
        ...

    def forward_work(self, sizes: Sizes, keeps: bool, /) -> tuple[int, ...]: ...

    def forward(self, weights: Weights, packed: Any, a: Matrix, flow: Flow, kept: Kept | None, work: Sequence[Any], /) -> None:
        """Run all steps on the input products ``a`` (T*B, G*H); writes the tape to ``kept`` if given."""
        ...

    def backward_work(self, sizes: Sizes, /) -> tuple[int, ...]: ...

    def backward(
        self, weights: Weights, packed: Any, kept: Kept, flow: Flow, da: Matrix, db: Matrix, work: Sequence[Any], /
    ) -> Matrix | None:
        """Run BPTT; writes the cotangents of the input and recurrent products, ``da`` and ``db`` (T*B, G*H).

        ``da`` and ``db`` are one matrix for cells where the two are equal.  Returns the total cotangents of y (T*B, S) for
        cells that feed back their output.
        """
        ...
