"""The promise about the states of all steps, which a network may read from a tape."""

from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding
from rnnbench.check.probe import Probe, compare_calls, compare_with_reference
from rnnbench.check.problem import Outputs, Problem, lengths_of, named
from rnnbench.check.tolerance import Expected


def states(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The states of all steps, read before and after another call, hold y, each row's final states, and those halfway.

    A network without ``states``, or whose ``keeps_states`` is false, promises nothing.
    """
    inputs, probe, lengths = problem.inputs(), Probe(backend, problem), lengths_of(problem.case)
    if not getattr(probe.net, "keeps_states", hasattr(probe.net, "states")):
        return []
    _, tape = probe.record(inputs.x, inputs.state, *lengths)
    first = probe.net.states(tape)
    got, findings = _results(problem, probe, first, inputs.state)
    probe.record(np.ascontiguousarray(inputs.x[::-1]), inputs.state, *lengths)
    again, _ = _results(problem, probe, probe.net.states(tape), inputs.state)
    gradients = probe.backward(tape, inputs.dy, inputs.dstate)
    kept, _ = _results(problem, probe, first, inputs.state)
    dtype = problem.case.dtype
    compared = [f for each in (got | gradients, again, kept) for f in compare_with_reference(each, wanted, dtype)]
    return compared + findings + _halfway(problem, probe, first, wanted)


def _halfway(problem: Problem, probe: Probe, found: Any, wanted: Expected) -> list[Finding]:
    """The states halfway, against the final states of the first half; of the layers whose inputs are the same in both."""
    case, inputs, cut = problem.case, problem.inputs(), (problem.case.T + 1) // 2
    lengths = tuple(np.minimum(each, cut) for each in lengths_of(case))
    half = probe.forward(inputs.x[:cut], inputs.state, *lengths)
    layers = slice(0, 1 if case.bidirectional else case.layers)
    ended = np.zeros(case.B, bool) if not lengths else lengths[0] < cut
    parts = {f"final {name}": part[layers, cut - 1] for name, part in zip(case.spec().kind.states, found, strict=True)}
    got = {name: np.where(ended[:, None], half[name][layers], part) for name, part in probe.to_numpy(parts).items()}
    findings = compare_calls(got, {name: half[name][layers] for name in got}, wanted)
    return [finding._replace(tensor=finding.tensor.replace("final", "halfway")) for finding in findings]


def _results(problem: Problem, probe: Probe, found: Any, initial: tuple[np.ndarray, ...]) -> tuple[Outputs, list[Finding]]:
    """y and the final states, taken from the states of all steps; and what is not zero where a row has no step."""
    case, spec = problem.case, problem.case.spec()
    parts = list(probe.to_numpy(dict(zip(spec.kind.states, found, strict=True))).values())
    lengths = lengths_of(case)[0] if case.lengths else np.full(case.B, case.T)
    y = np.concatenate(list(parts[0][-spec.directions :]), axis=2)
    finals = tuple(_final(part, before, lengths, spec.directions) for part, before in zip(parts, initial, strict=True))
    beyond = np.arange(case.T)[:, None] >= lengths
    stray = float(max(np.max(np.abs(part[:, beyond].astype("float64")), initial=0) for part in parts))
    zeros = Finding("states beyond the lengths", stray, 0.0, "is not zero" if stray else None)
    return named(case, y, finals), [zeros]


def _final(part: np.ndarray, initial: np.ndarray, lengths: np.ndarray, directions: int) -> np.ndarray:
    """The state of each row after its last step, (L*D, B, size), from those of all steps (L*D, T, B, size)."""
    final = initial.copy()
    for index in range(len(part)):
        for row, length in enumerate(lengths):
            if length:
                final[index, row] = part[index, 0 if index % directions else length - 1, row]
    return final
