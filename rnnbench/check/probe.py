"""Calls of a backend's network with NumPy arrays, and comparisons of their results; the tests of promises use them."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from rnnbench.check.comparing import Finding, compared
from rnnbench.check.problem import Outputs, Prepared, Problem, named
from rnnbench.check.tolerance import Expected
from rnnbench.networks.params import Params
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.suite.inputs import Inputs


class Probe:
    """One network of a backend; arguments are copied to the backend's arrays, results to NumPy arrays."""

    def __init__(
        self, backend: Any, problem: Problem, *, params: Params | None = None, spec: Spec | None = None, **options: Any
    ) -> None:
        self.backend, self.case, self._states = backend, problem.case, problem.case.spec().kind.states
        self.net = backend.load(spec or problem.case.spec(), problem.params() if params is None else params, **options)

    def to_backend(self, part: Any) -> Any:
        """Copy a NumPy array, or a state as a tuple of them, to the backend's arrays."""
        if isinstance(part, tuple):
            return tuple(self.to_backend(array) for array in part)
        return self.backend.asarray(np.copy(part))

    def to_numpy(self, results: Mapping[str, Any]) -> Outputs:
        self.backend.synchronize()
        return {name: np.array(self.backend.to_numpy(value)) for name, value in results.items()}

    def forward(self, x: np.ndarray, state: Any, *lengths: Any) -> Outputs:
        y, final = self.net.forward(self.to_backend(x), state if state is None else self.to_backend(state), *lengths)
        return self.to_numpy(named(self.case, y, final))

    def record(self, x: np.ndarray, state: Any, *lengths: Any) -> tuple[Outputs, Any]:
        """Return the outputs and the tape."""
        y, final, tape = self.net.record(self.to_backend(x), state if state is None else self.to_backend(state), *lengths)
        return self.to_numpy(named(self.case, y, final)), tape

    def backward(self, tape: Any, dy: np.ndarray, dstate: Any) -> Outputs:
        grads = self.net.backward(tape, self.to_backend(dy), dstate if dstate is None else self.to_backend(dstate))
        return self.to_numpy(gradients(self._states, grads))

    def step(self, inputs: Inputs, *lengths: Any) -> Outputs:
        found, tape = self.record(inputs.x, inputs.state, *lengths)
        return found | self.backward(tape, inputs.dy, inputs.dstate)


def gradients(states: Iterable[str], grads: Any) -> dict[str, Any]:
    """Return gradients by the names used in comparisons."""
    found = {"dx": grads.x} | {f"d initial {name}": part for name, part in zip(states, grads.state, strict=True)}
    return found | {f"d {name}": value for name, value in grads.params.items()}


def compare_with_reference(got: Outputs, wanted: Expected, dtype: str) -> list[Finding]:
    """Compare the tensors in ``got`` with the reference's; other tensors may be missing."""
    values = {name: value for name, value in wanted.values.items() if name in got}
    return compared(got, wanted._replace(values=values), dtype)


def compare_calls(got: Outputs, first: Outputs, wanted: Expected | None = None) -> list[Finding]:
    """Compare the results of two calls: bit for bit, or within the tolerances of ``wanted``."""
    findings = []
    for name, value in first.items():
        if got[name].shape != value.shape or got[name].dtype != value.dtype:
            reason = f"is {got[name].dtype} {got[name].shape}; was {value.dtype} {value.shape} before"
            findings.append(Finding(name, None, 0.0, reason))
            continue
        difference = np.abs(got[name].astype("float64") - value.astype("float64"))
        error = float(np.max(np.where(np.isnan(got[name]) & np.isnan(value), 0, difference), initial=0))
        tolerance = 0.0 if wanted is None else float(np.max(wanted.tolerances[name]))
        findings.append(
            Finding(name, error if np.isfinite(error) else None, tolerance, None if np.isfinite(error) else "differs")
        )
    return sorted(findings, key=lambda finding: finding.ratio, reverse=True)


def call_tolerance(backend: Any, wanted: Expected) -> Expected | None:
    """The tolerance between two equal calls: None, for bit-identical, unless ``info()`` has ``deterministic`` False."""
    return None if backend.info().get("deterministic", True) else wanted


def run_reference(problem: Problem, inputs: Inputs | None = None, params: Params | None = None) -> Outputs:
    """Run the reference in float64 on the problem, with other inputs (of the distinct rows) or weights if given."""
    exact = problem.in_float64()
    given = exact.distinct_inputs() if inputs is None else inputs
    cast = in_float64(given)
    weights = exact.params() if params is None else {name: value.astype("float64") for name, value in params.items()}
    return {name: np.asarray(value) for name, value in Prepared(reference_backend(), exact, cast, weights).call().items()}


def in_float64(inputs: Inputs) -> Inputs:
    return inputs.map(lambda array: array.astype("float64"))
