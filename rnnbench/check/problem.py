"""A problem to check: a case with its weights and input, and what a backend makes of it as named tensors."""

from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from rnnbench.inputs import Inputs, make_input
from rnnbench.params import Params, init_params
from rnnbench.store import Case
from rnnbench.truncation import tbptt

Outputs = dict[str, np.ndarray]

INPUT_CHANGE = "change of the inputs"
"""The name under which ``outputs`` reports by how much a call changed its own arguments."""


@dataclass(frozen=True)
class Problem:
    """A case, how its weights are drawn and what it is fed; ``compute_dtype`` is what it is computed in, if not the case's.

    Weights and inputs are always rounded to the case's dtype first, so that only arithmetic differs.
    """

    case: Case
    scheme: str = "torch-default"
    forget_bias: float = 0.0
    source: str = "noise"
    text_file: str | None = None
    seed: int = 0
    compute_dtype: str | None = None

    def in_float64(self) -> "Problem":
        return replace(self, compute_dtype="float64")

    def params(self) -> Params:
        drawn = init_params(self.case.spec(), self.seed, self.scheme, self.forget_bias)
        return {name: value.astype(self.compute_dtype or value.dtype) for name, value in drawn.items()}

    def inputs(self) -> Inputs:
        made = make_input(self.case, self.source, self.seed, self.text_file)
        return Inputs(*(_cast(part, self.compute_dtype or self.case.dtype) for part in made))

    def computed_case(self) -> Case:
        return msgspec.structs.replace(self.case, dtype=self.compute_dtype or self.case.dtype)


class Prepared:
    """A problem on a backend: network loaded, inputs in its arrays; ``call`` runs the case's phase once."""

    def __init__(self, backend: Any, problem: Problem, inputs: Inputs, params: Params) -> None:
        self.backend, self.case = backend, problem.computed_case()
        self.net = backend.load(self.case.spec(), params)
        self.x, self.state, self.dy, self.dstate = (_converted(backend.asarray, part) for part in inputs)

    def call(self) -> dict[str, Any]:
        """Run the phase; the results by name, in the backend's own arrays."""
        call = {"forward": self._forward, "step": self._step, "tbptt": self._tbptt}[self.case.phase]
        return call()

    def _forward(self) -> dict[str, Any]:
        y, final = self.net.forward(self.x, self.state)
        return self._named(y, final)

    def _step(self) -> dict[str, Any]:
        y, final, tape = self.net.record(self.x, self.state)
        return self._named(y, final, self.net.backward(tape, self.dy, self.dstate))

    def _tbptt(self) -> dict[str, Any]:
        assert self.case.window is not None, "a tbptt case has a window"
        return self._named(*tbptt(self.net, self.x, self.dy, self.case.window, self.case.stride, self.state))

    def _named(self, y: Any, final: Any, grads: Any = None) -> dict[str, Any]:
        states = self.case.spec().kind.states
        named = {"y": y} | {f"final {name}": part for name, part in zip(states, final, strict=True)}
        if grads is not None:
            named |= {"dx": grads.x} | {f"d initial {name}": part for name, part in zip(states, grads.state, strict=True)}
            named |= {f"d {name}": value for name, value in grads.params.items()}
        return named


def outputs(backend: Any, problem: Problem) -> Outputs:
    """Every output and gradient of one call, as NumPy arrays, and by how much the call changed its arguments."""
    inputs = problem.inputs()
    lent = Inputs(*(_converted(np.copy, part) for part in inputs))  # a backend on NumPy arrays works on these themselves
    prepared = Prepared(backend, problem, lent, problem.params())
    results = prepared.call()
    backend.synchronize()
    named = {name: np.array(backend.to_numpy(value)) for name, value in results.items()}
    changes = [
        np.max(np.abs(np.asarray(backend.to_numpy(after)) - before), initial=0)
        for before, after in zip(_flat(inputs), _flat((prepared.x, prepared.state, prepared.dy, prepared.dstate)), strict=True)
    ]
    return named | {INPUT_CHANGE: np.max(changes)}


def truncation_error(reference: Any, problem: Problem) -> dict[str, float]:
    """Norm of (truncated - full) over norm of full, for each parameter's gradient and for all of them together."""
    whole = msgspec.structs.replace(problem.case, window=problem.case.T, stride=None)
    cut, full = outputs(reference, problem), outputs(reference, replace(problem, case=whole))
    names = [name for name in full if name.removeprefix("d ") in problem.case.spec().param_shapes()]
    squares = {name: (np.sum((cut[name] - full[name]) ** 2), np.sum(full[name] ** 2)) for name in names}
    squares["all"] = tuple(np.sum(list(squares.values()), axis=0))
    return {name.removeprefix("d "): float(np.sqrt(error / norm)) for name, (error, norm) in squares.items()}


def _cast(part: Any, dtype: str) -> Any:
    return _converted(lambda array: array.astype(dtype), part)


def _converted(convert: Any, part: Any) -> Any:
    return tuple(convert(array) for array in part) if isinstance(part, tuple) else convert(part)


def _flat(parts: Any) -> list[Any]:
    return [array for part in parts for array in (part if isinstance(part, tuple) else (part,))]
