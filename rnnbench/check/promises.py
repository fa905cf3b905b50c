"""What a backend promises beyond right numbers in one call: each promise is examined on its own.

Where a promise is a relation between calls (a permuted batch, a sequence in pieces), what the second call must give
follows from what the reference gave for the first, so each call is compared with the reference, within its tolerance.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rnnbench.check import call_semantics, edge_cases, laziness, metamorphic
from rnnbench.check.comparing import Finding, gate
from rnnbench.check.problem import Problem
from rnnbench.check.tolerance import Expected
from rnnbench.networks.cells import CELLS
from rnnbench.suite.case import Case


class Promise(NamedTuple):
    """``says`` is the promise in one sentence, ``why`` what it is for, ``mend`` how a backend keeps it: as in docs/contract.md.

    ``examine(backend, problem, wanted)`` gives its findings, at least one where it could be examined.  ``wanted`` is
    what is expected of the problem itself; ``concerns(case)`` tells whether the promise can be examined on it.
    """

    says: str
    why: str
    mend: str
    examine: Callable[[Any, Problem, Expected], list[Finding]]
    concerns: Callable[[Case], bool]


def _trained(case: Case) -> bool:
    return case.phase == "step"


def _one_direction(case: Case) -> bool:
    return case.phase == "step" and not case.bidirectional


def _bounded(case: Case) -> bool:
    return case.phase == "step" and case.nonlinearity != "relu" and not CELLS[case.cell].feeds_back_output


def _with_biases(case: Case) -> bool:
    """Without them every value of a network with subnormal inputs is subnormal, and rounded as coarsely.  Not in bfloat16:
    processors' dot products of it take subnormal numbers for zero, whatever they are told (Intel, VDPBF16PS)."""
    return case.phase == "step" and case.bias and case.dtype != "bfloat16"


def _of_a_batch(case: Case) -> bool:
    return case.phase == "step" and case.B > 1


def _of_one_layer(case: Case) -> bool:
    return case.phase == "step" and case.layers == 1 and not case.bidirectional


PROMISES: dict[str, Promise] = {
    "second call": Promise(
        "The same call on the same network gives the same again.",
        "A result that depends on earlier calls can be neither checked nor repeated.",
        "Clear every buffer before adding to it and keep nothing between calls but the weights; where sums have no "
        'fixed order, let info() say "deterministic": False.',
        call_semantics.second_call,
        _trained,
    ),
    "inference": Promise(
        "forward gives what record gives, before it and after it.",
        "A network is trained with record and used with forward: both must be the same function.",
        "Let both run the same code or kernels, and read the initial state in both.",
        call_semantics.inference,
        _trained,
    ),
    "two tapes": Promise(
        "Several tapes may be alive; each serves its own call, in any order.",
        "Truncated BPTT, pipelines and accumulated gradients record several times before they go back.",
        "Keep all that backward reads in the tape that record returns, and none of it in the network.",
        call_semantics.two_tapes,
        _trained,
    ),
    "update": Promise(
        "update() replaces all weights; tapes keep theirs; arrays are copied.",
        "An optimiser replaces the weights at every step and goes on using its own arrays.",
        "Copy what update() gets into every packed or transposed form of the weights; let a tape hold those it was "
        "recorded with, and params() return copies.",
        call_semantics.update,
        _trained,
    ),
    "results kept": Promise(
        "What a call returned is not touched by later calls.",
        "A caller keeps results of many calls; they must not change behind its back.",
        "Return new arrays from every call; copy a buffer that is used again before returning it.",
        call_semantics.results_kept,
        _trained,
    ),
    "results lent": Promise(
        "y and the states may be overwritten before backward.",
        "The caller owns y and the states: it may scale y in place for its loss, or write the next state into them.",
        "Keep copies of y and of the states in the tape, or return copies; only x may be referred to until backward.",
        call_semantics.results_lent,
        _trained,
    ),
    "many shapes": Promise(
        "One network serves sequences and batches of any size, in turn.",
        "The last batch of an epoch is smaller, and sequences differ in length.",
        "Size buffers by the T and B of the call, or read only as much of a larger one; fix no size at load.",
        call_semantics.many_shapes,
        _trained,
    ),
    "threads": Promise(
        "One thread and two give the same answers.",
        "A number of threads may change the time alone.",
        "Give each thread whole rows or units, the rest of the division included, and partial sums of its own.",
        call_semantics.threads,
        _trained,
    ),
    "shared arrays": Promise(
        "dy may be y, and a final state the next initial one.",
        "With the loss sum(y * y) / 2 dy is y itself, and a final state is carried to the next call.",
        "Write to no argument and to nothing that was returned; copy a state before changing it.",
        call_semantics.shared_arrays,
        _trained,
    ),
    "computed": Promise(
        "When synchronize() returns, results are computed.",
        "What is computed only when results are read takes no time by a clock around the call.",
        "Compute in the call, or let synchronize() wait for all that was submitted; return no array that is computed "
        "when it is read.",
        laziness.computed,
        _trained,
    ),
    "other contents": Promise(
        "The same arrays with other contents give other results.",
        "Callers fill the same arrays again; an answer kept by the identity of its arguments is one for other numbers.",
        "Keep no results between calls, or look them up by all the values of the arguments.",
        call_semantics.other_contents,
        _trained,
    ),
    "refusals": Promise(
        "What cannot be computed is refused with an error.",
        "A wrong shape that is computed all the same gives numbers that mean nothing.",
        "Check axes, sizes and dtype of every argument, names and shapes in update(), and that a tape is this "
        "network's own and unused; raise any exception. Deriving from rnnbench.networks.CheckedNetwork does all of "
        "it.",
        call_semantics.refusals,
        _trained,
    ),
    "batch permuted": Promise(
        "The rows of a batch have no order.",
        "The rows of a batch are sequences that do not know of each other.",
        "Index the state, the cotangents and the tails of blocks by the row alone.",
        metamorphic.batch_permuted,
        _of_a_batch,
    ),
    "batch split": Promise(
        "The parts of a batch give the rows and the sums of the whole.",
        "A batch may be shared out among devices or calls.",
        "Serve batches smaller than a block, and sum the weights' gradients over rows: no mean.",
        metamorphic.batch_split,
        _of_a_batch,
    ),
    "reversed": Promise(
        "The backward direction is the forward one on reversed input.",
        "Both directions are the same network on other input.",
        "Run the backward direction from the last step to the first, return its y in the order of x, and as its "
        "final state that after step 0.",
        metamorphic.reversed_direction,
        _of_one_layer,
    ),
    "linear": Promise(
        "Gradients are linear in the cotangents; None stands for zeros.",
        "Gradients are linear in the cotangents by definition, and None is how most callers say zeros.",
        "Start from zeros where a state or dstate is None, and add nothing that does not come from dy or dstate.",
        metamorphic.linear,
        _trained,
    ),
    "chunked": Promise(
        "A sequence in pieces, the state carried, gives the whole.",
        "Long sequences are read in pieces.",
        "Start from the state that is given, and return the one after the last step.",
        metamorphic.chunked,
        _one_direction,
    ),
    "truncated": Promise(
        "Truncated BPTT is right for any window and stride.",
        "rnnbench.tbptt trains on windows over any network, by record and backward with a carried state.",
        "Make record and backward right for T = 1, for a carried state and with several tapes alive; no function "
        "of a backend's own is called.",
        metamorphic.truncated,
        _one_direction,
    ),
    "causal": Promise(
        "Later input does not change earlier output.",
        "An output that knows the future cannot be computed when it is needed.",
        "Read x_t at step t alone; normalise or pad over no axis of time.",
        metamorphic.causal,
        _one_direction,
    ),
    "units permuted": Promise(
        "Hidden units have no order.",
        "Hidden units have no order of their own; a misread layout of weights shows here.",
        "Honour the memory order of weights, or copy them, and index the rows of a gate by the unit, tails of blocks included.",
        metamorphic.units_permuted,
        _of_one_layer,
    ),
    "layouts": Promise(
        "Arrays of any memory layout serve.",
        "Slices, transposes and read-only arrays are arrays too.",
        "Let asarray copy to what the kernels need, as numpy.ascontiguousarray does, or honour strides.",
        edge_cases.layouts,
        _trained,
    ),
    "NaN": Promise(
        "NaN in a row stays in that row, and is not lost.",
        "A NaN that vanishes hides a fault; one that spreads spoils sound sequences.",
        "Use no nan_to_num, no fast-math flag and no comparison that drops NaN, and keep rows apart.",
        edge_cases.not_a_number,
        _of_a_batch,
    ),
    "saturated": Promise(
        "Huge inputs saturate the gates and make no NaN.",
        "Weights grow in training, and inputs are not always scaled.",
        "Take exp of non-positive numbers alone: sigmoid(z) = exp(min(z, 0)) / (1 + exp(-|z|)).",
        edge_cases.saturated,
        _bounded,
    ),
    "subnormal": Promise(
        "Subnormal inputs are computed like others.",
        "A library that sets the processor's flush-to-zero mode changes the results of all others.",
        "Leave denormals on: no -ffast-math, no set_flush_denormal.",
        edge_cases.subnormal,
        _with_biases,
    ),
    "zero steps": Promise(
        "A step whose input is zero is a step.",
        "Padding is the caller's affair: zero is a value as any other.",
        "Skip no step for its values; sequences that end earlier are the caller's to cut.",
        edge_cases.zero_steps,
        _trained,
    ),
    "empty": Promise(
        "A sequence without steps leaves the state as it is.",
        "A stream may have nothing to read yet.",
        "For T = 0 return y of shape (0, B, D*H), the given state, dstate as the state's gradient and zeros for all weights.",
        edge_cases.empty,
        _trained,
    ),
}


def examine(backend: Any, problem: Problem, wanted: Expected, promises: Iterable[str] = ()) -> list[Finding]:
    """Compare every tensor of one call with the reference, then examine promises; worst first."""
    findings = gate(backend, problem, wanted)
    for name in promises:
        findings += [finding._replace(promise=name) for finding in PROMISES[name].examine(backend, problem, wanted)]
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)
