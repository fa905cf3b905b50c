"""What a call of a case needs at least: operations, bytes and memory."""

import math
from typing import NamedTuple

from rnnbench.suite.case import Case


class Estimate(NamedTuple):
    """The least that one case costs: operations, those of the recurrence alone, bytes moved, bytes held."""

    flops: int
    recurrent_flops: int
    traffic: int
    memory: int


def estimate(case: Case) -> Estimate:
    """Count the least that a case costs, with the counts of ``Spec``.

    A tbptt case is charged the steps that its passes record: T where the stride is the window and divides T, else more, as
    windows overlap.  Passes of ``forward`` in between are not charged.
    ``memory``: parameters, x and y, in training the gradient of each, and the longest tape, which keeps for each step
    the values that the cell saves and its state.
    """
    spec = case.spec()
    recorded, tape = _recorded(case)
    work, copies = (1, 1) if case.phase == "forward" else (3, 2)
    weights = {name: shape for name, shape in spec.param_shapes().items() if name.startswith("weight")}
    recurrent = sum(math.prod(shape) for name, shape in weights.items() if not name.startswith("weight_ih"))
    kept = spec.kind.saved * spec.hidden_size + len(spec.kind.states) * spec.state_size
    tape_values = tape * case.B * spec.num_layers * spec.directions * kept
    return Estimate(
        flops=work * spec.forward_flops(recorded, case.B),
        recurrent_flops=work * 2 * recurrent * recorded * case.B,
        traffic=copies * spec.forward_bytes(recorded, case.B),
        memory=copies * spec.forward_bytes(case.T, case.B) + tape_values * spec.numpy_dtype.itemsize,
    )


def _recorded(case: Case) -> tuple[int, int]:
    """How many time steps a case runs or records in all, and how many its longest tape holds."""
    if case.phase == "forward":
        return case.T, 0
    if case.window is None:
        return case.T, case.T
    stride = case.stride or case.window
    ends = [*range(stride, case.T, stride), case.T]
    return sum(min(end, case.window) for end in ends), min(case.window, case.T)
