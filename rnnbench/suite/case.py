"""A case: one network, one phase and its sizes, which is what is checked and measured."""

import hashlib
from typing import Literal

import msgspec

from rnnbench.networks.spec import Spec
from rnnbench.suite.limits import Layers, Size

PHASES = ("forward", "step", "tbptt")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing to measure: a network, a phase and sizes.

    ``phase``: "forward" (inference), "step" (record and backward, all gradients) or "tbptt" (a whole sequence of T steps
    in windows).  ``window`` and ``stride`` belong to tbptt alone.  Sizes are held to their limits where a case is read.
    """

    cell: str
    phase: Literal["forward", "step", "tbptt"]
    T: Size
    B: Size
    I: Size  # noqa: E741  # the field's name for the input size
    H: Size
    layers: Layers = 1
    bidirectional: bool = False
    nonlinearity: str = "tanh"
    bias: bool = True
    output_size: Size | None = None
    window: Size | None = None
    stride: Size | None = None
    dtype: str = "float32"
    threads: Size = 1

    def spec(self) -> Spec:
        """The network of this case; raises SpecError."""
        return Spec(
            self.cell,
            self.I,
            self.H,
            num_layers=self.layers,
            bidirectional=self.bidirectional,
            nonlinearity=self.nonlinearity,
            bias=self.bias,
            output_size=self.output_size,
            dtype=self.dtype,
        )

    def key(self) -> str:
        """A short name that is the same for equal cases in every run."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:16]

    def label(self) -> str:
        """A readable name: ``lstm step T64 B16 I64 H256 window32``; what has its usual value is left out."""
        usual = Case(self.cell, self.phase, self.T, self.B, self.I, self.H)
        parts = [self.cell, self.phase, f"T{self.T}", f"B{self.B}", f"I{self.I}", f"H{self.H}"]
        for name in self.__struct_fields__[6:]:
            value = getattr(self, name)
            if value != getattr(usual, name):
                parts.append(name if value is True else f"{name}{value}")
        return " ".join(parts)
