"""Lower bounds on the operations, memory traffic and memory of a call."""

import math
from typing import NamedTuple

from rnnbench.suite.case import Case


class Estimate(NamedTuple):
    """Lower bounds for one call of a case.

    ``flops``: operations.  ``recurrent_flops``: operations of the recurrence only.  ``traffic``: bytes moved.
    ``memory``: bytes held.
    """

    flops: int
    recurrent_flops: int
    traffic: int
    memory: int


def estimate(case: Case) -> Estimate:
    """Estimate the lower bounds of a case from the counts of ``Spec``.

    A tbptt case counts the steps that its passes record: T if the stride equals the window and divides T, and more if
    windows overlap.  ``forward`` calls between the passes are not counted.  Where sequences have lengths, operations and
    traffic are those of the steps that they have; the memory is that of T steps for all.
    The memory includes parameters, x and y; in training also the gradient of each, and the longest tape, with the saved
    values and the state of each step.
    """
    spec = case.spec()
    recorded, tape = _recorded(case)
    work, copies = (1, 1) if case.phase == "forward" else (3, 2)
    weights = {name: shape for name, shape in spec.param_shapes().items() if len(shape) == 2}
    recurrent = sum(math.prod(shape) for name, shape in weights.items() if not name.startswith("weight_ih"))
    kept = spec.kind.saved * spec.hidden_size + sum(shape[-1] for shape in spec.state_shapes(1))
    share = case.row_steps() / (case.T * case.B)
    tape_values = tape * case.B * spec.num_layers * spec.directions * kept
    return Estimate(
        flops=round(share * work * spec.forward_flops(recorded, case.B)),
        recurrent_flops=round(share * work * 2 * recurrent * recorded * case.B),
        traffic=round(share * copies * spec.forward_bytes(recorded, case.B)),
        memory=copies * spec.forward_bytes(case.T, case.B) + tape_values * spec.numpy_dtype.itemsize,
    )


def _recorded(case: Case) -> tuple[int, int]:
    """Return the number of time steps that a case runs or records, and that of its longest tape."""
    if case.phase == "forward":
        return case.T, 0
    if case.window is None:
        return case.T, case.T
    stride = case.stride or case.window
    ends = [*range(stride, case.T, stride), case.T]
    return sum(min(end, case.window) for end in ends), min(case.window, case.T)
