"""A case: one network, one phase and its sizes."""

import hashlib
from typing import Any, Literal

import msgspec

from rnnbench.networks.contract import unsupported, unsupported_lengths
from rnnbench.networks.spec import Spec
from rnnbench.suite.lengths import drawn_lengths
from rnnbench.suite.limits import Layers, Size

PHASES = ("forward", "step", "tbptt")


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One case to check or measure: a network, a phase and sizes.

    ``phase``: "forward" (inference), "step" (record and backward, all gradients) or "tbptt" (truncated BPTT over a sequence
    of T steps).  ``window`` and ``stride`` apply only to tbptt.  ``lengths``: the distribution of the lengths of sequences, one
    of ``rnnbench.suite.lengths.DISTRIBUTIONS``; None means T for all.  The limits of sizes are enforced when a case is read
    from a file.  Default values are not written, so that earlier versions read cases without what they do not know.
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
    lengths: str | None = None
    projection_size: Size | None = None

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
            projection_size=self.projection_size,
            dtype=self.dtype,
        )

    def key(self) -> str:
        """A short hash that identifies equal cases across runs; what a case does not have does not enter it."""
        fields = msgspec.structs.asdict(self)
        for name in ("lengths", "projection_size"):  # cases of earlier versions have no such field, and keep their keys
            if fields[name] is None:
                del fields[name]
        return hashlib.sha256(msgspec.json.encode(fields)).hexdigest()[:16]

    def row_steps(self) -> int:
        """The time steps of all rows: T B, or the sum of the lengths."""
        return self.T * self.B if self.lengths is None else int(drawn_lengths(self.lengths, self.T, self.B).sum())

    def label(self) -> str:
        """A readable name without default values: ``lstm step T64 B16 I64 H256 window32``."""
        default = Case(self.cell, self.phase, self.T, self.B, self.I, self.H)
        parts = [self.cell, self.phase, f"T{self.T}", f"B{self.B}", f"I{self.I}", f"H{self.H}"]
        for name in self.__struct_fields__[6:]:
            value = getattr(self, name)
            if value != getattr(default, name):
                parts.append(name if value is True else f"{value} {name}" if name == "lengths" else f"{name}{value}")
        return " ".join(parts)


def refusal(module: Any, case: Case) -> str | None:
    """Return the reason why a backend cannot run a case, or None; raises TypeError for an invalid answer of the backend."""
    reason = unsupported(module, case.spec(), case.phase)
    return unsupported_lengths(module, case.spec()) if reason is None and case.lengths is not None else reason
