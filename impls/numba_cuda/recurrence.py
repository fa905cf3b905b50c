"""What a regime does: the recurrence of one layer in one direction, forward and back; the rest is common (``layer``)."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from rnnbench.impls.numba_cuda.algebra import Weights
from rnnbench.impls.numba_cuda.kernels import Matrix
from rnnbench.impls.numba_cuda.slots import Sizes, Slots
from rnnbench.networks.params import Params


class Flow(NamedTuple):
    """What flows into and out of a pass: forward the initial state in, y and the final state out, in BPTT their cotangents
    the other way.

    y (T*B, S) has rows that may lie apart, and the network's dtype or the computed one; the parts of states (B, S) have the
    network's.
    """

    sizes: Sizes
    initial: tuple[Matrix, ...]
    y: Matrix
    final: tuple[Matrix, ...]


class Kept(NamedTuple):
    """What the forward pass leaves for BPTT of every step: the states, ``saved`` (T*B, values*H) and ``operand`` (T*B, H) of
    the second product, if the cell has one."""

    states: Slots
    saved: Matrix
    operand: Matrix | None


class Recurrence(Protocol):
    """One regime on one spec's layers.  ``work`` are flat arrays of the computed dtype, as many elements each as
    ``forward_work`` and ``backward_work`` say, or None for none; they hold nothing before the call and after it."""

    name: str

    def pack(self, params: Params, /) -> Any:
        """A layer's recurrent weights in a form of the regime's own."""
        ...

    def forward_work(self, sizes: Sizes, keeps: bool, /) -> tuple[int, ...]: ...

    def forward(self, weights: Weights, packed: Any, a: Matrix, flow: Flow, kept: Kept | None, work: Sequence[Any], /) -> None:
        """Run all steps on the input products ``a`` (T*B, G*H), and write what BPTT needs to ``kept`` if it is given."""
        ...

    def backward_work(self, sizes: Sizes, /) -> tuple[int, ...]: ...

    def backward(
        self, weights: Weights, packed: Any, kept: Kept, flow: Flow, da: Matrix, db: Matrix, work: Sequence[Any], /
    ) -> Matrix | None:
        """BPTT: write the cotangents of both parts of the pre-activations, (T*B, G*H) each, one matrix where the cell's are
        the same.  For cells that feed back their output: all that flows into y, (T*B, S)."""
        ...
