"""The promises that a backend makes beyond correct results in one call; each is tested on its own.

Some promises relate two calls, such as a batch and its permutation.  The expected results of the second call then follow
from the reference's results of the first, so every call is compared with the reference, within its tolerance.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rnnbench.check import call_semantics, edge_cases, kept_states, laziness, lengths, metamorphic, streaming, training
from rnnbench.check.comparing import Finding, gate
from rnnbench.check.problem import Problem
from rnnbench.check.tolerance import Expected
from rnnbench.suite.case import Case


class Promise(NamedTuple):
    """One promise: what it ``says`` in a sentence, ``why`` it matters, and how to ``fix`` a backend that breaks it.

    docs/contract.md repeats the three texts.
    ``examine(backend, problem, wanted)`` returns the findings, at least one if the problem can test the promise; ``wanted``
    holds the expected results of the problem.  ``concerns(case)`` tells whether a case can test the promise.
    """

    says: str
    why: str
    fix: str
    examine: Callable[[Any, Problem, Expected], list[Finding]]
    concerns: Callable[[Case], bool]


def _trained(case: Case) -> bool:
    return case.phase == "step" and case.lengths is None


def _with_backward(case: Case) -> bool:
    return case.phase == "step"


def _one_direction(case: Case) -> bool:
    return _trained(case) and not case.bidirectional


def _bounded(case: Case) -> bool:
    return _trained(case) and case.nonlinearity != "relu" and not case.spec().kind.feeds_back_output


def _with_biases(case: Case) -> bool:
    """Whether the case has biases: without them every value of a network with subnormal inputs is subnormal itself.

    bfloat16 is excluded: processors' bfloat16 dot products always flush subnormal numbers to zero (Intel, VDPBF16PS).
    """
    return _trained(case) and case.bias and case.dtype != "bfloat16"


def _of_a_batch(case: Case) -> bool:
    return _trained(case) and case.B > 1


def _of_one_layer(case: Case) -> bool:
    return _trained(case) and case.layers == 1 and not case.bidirectional


PROMISES: dict[str, Promise] = {
    "second call": Promise(
        "Repeating a call on the same network gives the same results.",
        "Results that depend on earlier calls cannot be checked or reproduced.",
        "Clear every buffer before accumulating into it, and keep nothing but the weights between calls. If sums have no "
        'fixed order, let info() return "deterministic": False.',
        call_semantics.second_call,
        _trained,
    ),
    "inference": Promise(
        "forward gives the same results as record, before and after it.",
        "A network is trained with record and used with forward, so both must compute the same function.",
        "Run the same code or kernels in both, and read the initial state in both.",
        call_semantics.inference,
        _trained,
    ),
    "two tapes": Promise(
        "Several tapes may be alive at once; each serves its own call, in any order.",
        "Truncated BPTT, pipelining and gradient accumulation call record several times before backward.",
        "Keep everything that backward reads in the tape that record returns, and nothing in the network.",
        call_semantics.two_tapes,
        _trained,
    ),
    "update": Promise(
        "update() replaces all weights and copies its arrays; existing tapes keep the old weights.",
        "An optimiser replaces the weights at every step and keeps using its own arrays.",
        "Copy the new weights into every packed or transposed form. Let a tape keep the weights it was recorded with, and "
        "let params() return copies.",
        call_semantics.update,
        _trained,
    ),
    "results kept": Promise(
        "Later calls do not change the results of earlier ones.",
        "Callers keep the results of many calls.",
        "Return new arrays from every call, or copy a reused buffer before returning it.",
        call_semantics.results_kept,
        _trained,
    ),
    "results lent": Promise(
        "y and the states may be overwritten before backward.",
        "The caller owns y and the states: it may scale y in place for its loss, or write the next state into them.",
        "Keep copies of y and the states in the tape, or return copies. Only x may be referenced until backward.",
        call_semantics.results_lent,
        _trained,
    ),
    "many shapes": Promise(
        "One network accepts any sequence length and batch size, in any order.",
        "The last batch of an epoch is smaller, and sequences differ in length.",
        "Size buffers by the T and B of the call, or read only the part in use; fix no size in load.",
        call_semantics.many_shapes,
        _trained,
    ),
    "threads": Promise(
        "One thread and two threads give the same results.",
        "The number of threads may change only the time.",
        "Give each thread whole rows or units, including the remainder, and its own partial sums.",
        call_semantics.threads,
        _trained,
    ),
    "shared arrays": Promise(
        "dy may be y itself, and a final state may be the next initial state.",
        "For the loss sum(y * y) / 2, dy is y itself; a final state is carried to the next call.",
        "Do not write to arguments or to returned arrays; copy a state before changing it.",
        call_semantics.shared_arrays,
        _trained,
    ),
    "computed": Promise(
        "Results are computed when synchronize() returns.",
        "A timer around the call misses work that is deferred until the results are read.",
        "Compute during the call, or let synchronize() wait for all submitted work. Do not return arrays that are "
        "computed when read.",
        laziness.computed,
        _trained,
    ),
    "other contents": Promise(
        "New contents in the same arrays give new results.",
        "Callers refill the same arrays. A cache keyed by array identity returns the results of the old contents.",
        "Cache no results between calls, or key the cache by all values of the arguments.",
        call_semantics.other_contents,
        _trained,
    ),
    "refusals": Promise(
        "Invalid arguments are refused with an error.",
        "Computing with a wrong shape gives meaningless numbers.",
        "Check the axes, sizes and dtype of every argument, the names and shapes in update(), and that a tape is unused "
        "and belongs to this network; raise any exception. Deriving from rnnbench.networks.CheckedNetwork does all of "
        "this.",
        call_semantics.refusals,
        _trained,
    ),
    "batch permuted": Promise(
        "Permuting the batch permutes the results.",
        "The rows of a batch are independent sequences.",
        "Index the state, the cotangents and the tails of blocks by row only.",
        metamorphic.batch_permuted,
        _of_a_batch,
    ),
    "batch split": Promise(
        "Splitting a batch changes neither the rows of the results nor the summed gradients.",
        "A batch may be divided among devices or calls.",
        "Support batches smaller than a block. Sum the weights' gradients over rows; do not average them.",
        metamorphic.batch_split,
        _of_a_batch,
    ),
    "reversed": Promise(
        "The backward direction equals the forward direction on reversed input.",
        "Both directions are the same network on different input.",
        "Run the backward direction from the last step to the first. Return its y in the order of x, and the state after "
        "step 0 as its final state.",
        metamorphic.reversed_direction,
        _of_one_layer,
    ),
    "linear": Promise(
        "Gradients are linear in the cotangents, and None means zeros.",
        "Gradients are linear in the cotangents by definition, and most callers pass None for zeros.",
        "Start from zeros when state or dstate is None, and add nothing that does not come from dy or dstate.",
        metamorphic.linear,
        _trained,
    ),
    "chunked": Promise(
        "Processing a sequence in chunks with a carried state equals processing it at once.",
        "Long sequences are read in chunks.",
        "Start from the given state, and return the state after the last step.",
        metamorphic.chunked,
        _one_direction,
    ),
    "truncated": Promise(
        "Truncated BPTT is correct for any window and stride.",
        "rnnbench.tbptt trains any network on windows: it calls record and backward with a carried state.",
        "Make record and backward correct for T = 1, for a carried state and for several live tapes. A backend needs no "
        "tbptt of its own.",
        metamorphic.truncated,
        _one_direction,
    ),
    "causal": Promise(
        "Later input does not change earlier output.",
        "An output that depends on future input cannot be computed in time.",
        "Read only x_t at step t; do not normalise or pad along the time axis.",
        metamorphic.causal,
        _one_direction,
    ),
    "units permuted": Promise(
        "Permuting the hidden units changes nothing but their order.",
        "Hidden units have no inherent order, so a misread weight layout shows here.",
        "Honour the memory order of the weights, or copy them. Index the rows of a gate by unit, including the tails of "
        "blocks.",
        metamorphic.units_permuted,
        _of_one_layer,
    ),
    "layouts": Promise(
        "Arrays of any memory layout are accepted.",
        "Callers also pass slices, transposes and read-only arrays.",
        "Let asarray copy to the layout that the kernels need, as numpy.ascontiguousarray does, or honour strides.",
        edge_cases.layouts,
        _trained,
    ),
    "NaN": Promise(
        "A NaN stays in its row and is not lost.",
        "A NaN that vanishes hides an error; one that spreads corrupts valid sequences.",
        "Avoid nan_to_num, fast-math flags and comparisons that drop NaN, and keep rows separate.",
        edge_cases.not_a_number,
        _of_a_batch,
    ),
    "saturated": Promise(
        "Huge inputs saturate the gates without producing NaN.",
        "Weights grow during training, and inputs are not always scaled.",
        "Apply exp only to non-positive numbers: sigmoid(z) = exp(min(z, 0)) / (1 + exp(-|z|)).",
        edge_cases.saturated,
        _bounded,
    ),
    "subnormal": Promise(
        "Subnormal inputs are computed like any others.",
        "A library that enables the processor's flush-to-zero mode changes the results of every other library.",
        "Leave denormals enabled: no -ffast-math, no set_flush_denormal.",
        edge_cases.subnormal,
        _with_biases,
    ),
    "zero steps": Promise(
        "A step with zero input counts as a step.",
        "Padding is up to the caller; zero is a valid value.",
        "Do not skip steps because of their values; shortening sequences is up to the caller.",
        edge_cases.zero_steps,
        _trained,
    ),
    "empty": Promise(
        "A sequence with no steps leaves the state unchanged.",
        "A stream may have no data yet.",
        "For T = 0, return y of shape (0, B, D*H), the given state, dstate as the state's gradient, and zeros for all weights.",
        edge_cases.empty,
        _trained,
    ),
    "beyond the lengths": Promise(
        "From its length on, a row is not read: NaN there changes nothing, and y and dx are zero.",
        "Batches are padded with anything, and a loss may divide by zero in the padding.",
        "Do not multiply by a mask, since NaN times zero is NaN: leave the rows out, or select with where before and after. "
        "Clear y and dx before writing into them.",
        lengths.beyond_lengths,
        lengths.concerns,
    ),
    "lengths of T": Promise(
        "Lengths of T for all rows change nothing, and any integers are lengths.",
        "A batch whose sequences happen to be equally long must not differ from one without lengths.",
        "Convert lengths to one integer type, in a copy, and run the same code when no row is shorter than T.",
        lengths.lengths_of_all_steps,
        lengths.concerns,
    ),
    "lengths in any order": Promise(
        "Rows may be in any order of their lengths.",
        "Sorting a batch is up to the implementation, and the caller's rows must come back in their own order.",
        "Undo a sorting of rows in y, in the final state, in dx and in the gradient of the initial state.",
        lengths.lengths_in_any_order,
        lengths.concerns,
    ),
    "lengths refused": Promise(
        "Invalid lengths are refused with an error.",
        "A length beyond T, or one row of lengths too few, is a mistake in the caller's data.",
        "Check that lengths are integers of shape (B,) from 0 to T; rnnbench.networks.CheckedNetwork does.",
        lengths.lengths_refused,
        lengths.concerns,
    ),
    "model": Promise(
        "A model around the network has the right outputs, loss and gradients.",
        "People train models: an embedding, the network, an output layer and a loss, with masks, dropout and truncated BPTT.",
        "Without `parts` of its own, a backend needs only a right network; with them, compare each function with "
        "`rnnbench.models.Parts`.",
        training.model,
        training.concerns,
    ),
    "training": Promise(
        "A few steps of training give the right losses and parameters.",
        "Optimisers carry state, clip gradients together and replace the weights at every step.",
        "Let `update()` take effect at the next call, and let `parts.update` change parameters and slots in place.",
        training.training,
        training.concerns,
    ),
    "states": Promise(
        "The states of all steps, of every layer, can be read from a tape.",
        "Attention, probes of what a network has learnt, and decoders read the states inside a sequence.",
        "Return new arrays (L*D, T, B, H) in the order of time in both directions, with zeros where a row has no step. A "
        "backend without net.states makes no such promise.",
        kept_states.states,
        _with_backward,
    ),
    "streamed": Promise(
        "Steps of a stream give the same results as forward; its state can be read and set.",
        "Speech and control read one step at a time, and keep the state between steps.",
        "Carry all parts of every layer's state from step to step. Return copies of y and of the state, and read the "
        "weights of the last update(). A backend without net.stream makes no such promise; CheckedNetwork has one.",
        streaming.streamed,
        _one_direction,
    ),
}


def examine(backend: Any, problem: Problem, wanted: Expected, promises: Iterable[str] = ()) -> list[Finding]:
    """Compare every tensor of one call with the reference, then test promises; worst findings first."""
    findings = gate(backend, problem, wanted)
    for name in promises:
        findings += [finding._replace(promise=name) for finding in PROMISES[name].examine(backend, problem, wanted)]
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)
