"""What a backend promises beyond right numbers in one call: each promise is examined on its own.

Where a promise is a relation between calls (a permuted batch, a sequence in pieces), what the second call must give
follows from what the reference gave for the first, so each call is compared with the reference, within its tolerance.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rnnbench.check import computed, contract, extremes, relations
from rnnbench.check.gate import Finding, gate
from rnnbench.check.problem import Problem
from rnnbench.check.tolerance import Expected
from rnnbench.store import Case


class Promise(NamedTuple):
    """``says`` is the promise in one sentence; ``examine(backend, problem, wanted)`` gives its findings.

    ``wanted`` is what is expected of the problem itself; ``concerns(case)`` tells whether the promise can be examined on it.
    """

    says: str
    examine: Callable[[Any, Problem, Expected], list[Finding]]
    concerns: Callable[[Case], bool]


def _trained(case: Case) -> bool:
    return case.phase == "step"


def _one_direction(case: Case) -> bool:
    return case.phase == "step" and not case.bidirectional


def _bounded(case: Case) -> bool:
    return case.phase == "step" and case.nonlinearity != "relu" and case.cell != "jordan"


def _with_biases(case: Case) -> bool:
    """Without them every value of a network with subnormal inputs is subnormal, and rounded as coarsely.  Not in bfloat16:
    processors' dot products of it take subnormal numbers for zero, whatever they are told (Intel, VDPBF16PS)."""
    return case.phase == "step" and case.bias and case.dtype != "bfloat16"


def _of_a_batch(case: Case) -> bool:
    return case.phase == "step" and case.B > 1


def _of_one_layer(case: Case) -> bool:
    return case.phase == "step" and case.layers == 1 and not case.bidirectional


PROMISES: dict[str, Promise] = {
    "second call": Promise("The same call on the same network gives the same again.", contract.second_call, _trained),
    "inference": Promise("forward gives what record gives, before it and after it.", contract.inference, _trained),
    "two tapes": Promise("Several tapes may be alive; each serves its own call, in any order.", contract.two_tapes, _trained),
    "update": Promise("update() replaces all weights; tapes keep theirs; arrays are copied.", contract.update, _trained),
    "results kept": Promise("What a call returned is not touched by later calls.", contract.results_kept, _trained),
    "results lent": Promise("y and the states may be overwritten before backward.", contract.results_lent, _trained),
    "many shapes": Promise("One network serves sequences and batches of any size, in turn.", contract.many_shapes, _trained),
    "threads": Promise("One thread and two give the same answers.", contract.threads, _trained),
    "shared arrays": Promise("dy may be y, and a final state the next initial one.", contract.shared_arrays, _trained),
    "computed": Promise("When synchronize() returns, results are computed.", computed.computed, _trained),
    "other contents": Promise("The same arrays with other contents give other results.", contract.other_contents, _trained),
    "refusals": Promise("What cannot be computed is refused with an error.", contract.refusals, _trained),
    "batch permuted": Promise("The rows of a batch have no order.", relations.batch_permuted, _of_a_batch),
    "batch split": Promise("The parts of a batch give the rows and the sums of the whole.", relations.batch_split, _of_a_batch),
    "reversed": Promise(
        "The backward direction is the forward one on reversed input.", relations.reversed_direction, _of_one_layer
    ),
    "linear": Promise("Gradients are linear in the cotangents; None stands for zeros.", relations.linear, _trained),
    "chunked": Promise("A sequence in pieces, the state carried, gives the whole.", relations.chunked, _one_direction),
    "truncated": Promise("Truncated BPTT is right for any window and stride.", relations.truncated, _one_direction),
    "causal": Promise("Later input does not change earlier output.", relations.causal, _one_direction),
    "units permuted": Promise("Hidden units have no order.", relations.units_permuted, _of_one_layer),
    "layouts": Promise("Arrays of any memory layout serve.", extremes.layouts, _trained),
    "NaN": Promise("NaN in a row stays in that row, and is not lost.", extremes.not_a_number, _of_a_batch),
    "saturated": Promise("Huge inputs saturate the gates and make no NaN.", extremes.saturated, _bounded),
    "subnormal": Promise("Subnormal inputs are computed like others.", extremes.subnormal, _with_biases),
    "zero steps": Promise("A step whose input is zero is a step.", extremes.zero_steps, _trained),
    "empty": Promise("A sequence without steps leaves the state as it is.", extremes.empty, _trained),
}


def examine(backend: Any, problem: Problem, wanted: Expected, promises: Iterable[str] = ()) -> list[Finding]:
    """Compare every tensor of one call with the reference, then examine promises; worst first."""
    findings = gate(backend, problem, wanted)
    for name in promises:
        findings += [finding._replace(promise=name) for finding in PROMISES[name].examine(backend, problem, wanted)]
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)
