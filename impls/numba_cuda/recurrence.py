"""What a regime does: the recurrence of one layer in one direction, forward and back; the rest is common (``layer``)."""

from typing import Any, NamedTuple, Protocol

from rnnbench.backend import Array
from rnnbench.impls.numba_cuda.algebra import Weights
from rnnbench.impls.numba_cuda.kernels import Matrix
from rnnbench.impls.numba_cuda.slots import Slots
from rnnbench.params import Params


class Record(NamedTuple):
    """What the forward pass leaves for BPTT; ``operand`` is what a second product of the step read, jordan's h for one."""

    x: Array
    states: Slots
    saved: Matrix
    operand: Matrix | None


class Recurrence(Protocol):
    """One regime on one spec's layers."""

    def pack(self, params: Params) -> Any:
        """A layer's recurrent weights in a form of the regime's own."""
        ...

    def forward(self, weights: Weights, packed: Any, a: Matrix, states: Slots, keeps: bool) -> tuple[Matrix, Matrix | None]:
        """Run all steps on the input products ``a`` (T*B, G*H); ``states`` hold the initial state and are completed.

        With ``keeps``: what BPTT needs of every step, ``saved`` (T*B, values*H) and ``operand`` (T*B, H) of the second
        product, if the cell has one.  Without it their contents mean nothing.
        """
        ...

    def backward(self, weights: Weights, packed: Any, saved: Matrix, states: Slots, dstates: Slots) -> tuple[Matrix, Matrix]:
        """BPTT: the cotangents of both parts of the pre-activations, (T*B, G*H) each, for ``dstates`` as ``Slots`` of what
        flows in from outside; it is completed."""
        ...
