"""A problem to check: a case with its weights and input, and what a backend makes of it as named tensors."""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rnnbench.networks.params import Params, init_params
from rnnbench.networks.truncation import tbptt
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import Inputs, make_input

Outputs = dict[str, np.ndarray]

INPUT_CHANGE = "change of the inputs"
"""The name under which ``outputs`` reports by how much a call changed its own arguments."""

DISTINCT_ROWS = 4
"""A batch repeats so many rows: the reference then costs the same at every batch size."""


WEIGHT_BITS = {"float32": 8, "float64": 8, "bfloat16": 3, "float16": 4}
COTANGENT_BITS = {"float32": 16, "float64": 16, "bfloat16": 5, "float16": 7}
"""Of the weights of repeated rows, which lie between 0.5 and 1.5, and of what they multiply: float32 has 24 bits, bfloat16 8,
float16 11."""


class Rows(NamedTuple):
    """How a batch repeats a few distinct rows: row b is row ``index[b]``, its cotangents times ``weight[b]``.

    Gradients are linear in the cotangents, so the reference on the distinct rows alone says what every element of the
    whole call must be.  Weights have so few bits that they round no cotangent, and yet so many that equal rows do not all
    round alike; one row of a batch with repetitions has 0: whatever gradient appears there has leaked in from another row.
    """

    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, batch: int, seed: int, dtype: str) -> "Rows":
        distinct = min(batch, DISTINCT_ROWS)
        rng = np.random.default_rng([seed, batch])
        index, weight = np.arange(batch) % distinct, np.ones(batch)
        rng.shuffle(index[distinct:])
        halfway = 2 ** WEIGHT_BITS[dtype] // 4
        weight[distinct:] = rng.integers(halfway, 3 * halfway, batch - distinct) / (2 * halfway)
        if batch > distinct:
            weight[rng.integers(distinct, batch)] = 0
        return cls(index, weight)

    @property
    def totals(self) -> np.ndarray:
        """The weights of each distinct row added up."""
        return np.bincount(self.index, self.weight)


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

    def rows(self) -> Rows:
        return Rows.of(self.case.B, self.seed, self.case.dtype)

    def repeats(self) -> float:
        """How many rows of the batch a distinct row stands for, on average."""
        return self.case.B / min(self.case.B, DISTINCT_ROWS)

    def inputs(self) -> Inputs:
        """The arguments of the whole call: the distinct rows, repeated."""
        index, weight = self.rows()

        def repeated(array: np.ndarray) -> np.ndarray:
            return array[:, index]

        def weighted(array: np.ndarray) -> np.ndarray:
            return array[:, index] * weight[:, None].astype(array.dtype)

        return self._with_rows(repeated, weighted)

    def distinct_inputs(self) -> Inputs:
        """The distinct rows alone, with the cotangents of all their repetitions."""
        totals = self.rows().totals
        return self._with_rows(lambda array: array, lambda array: array * totals[:, None].astype(array.dtype))

    def computed_case(self) -> Case:
        return msgspec.structs.replace(self.case, dtype=self.compute_dtype or self.case.dtype)

    def _with_rows(self, operand: Any, cotangent: Any) -> Inputs:
        distinct = msgspec.structs.replace(self.case, B=min(self.case.B, DISTINCT_ROWS))
        made = make_input(distinct, self.source, self.seed, self.text_file)
        short = made.map(lambda array: _shortened(array, COTANGENT_BITS[self.case.dtype]))
        cast = made._replace(dy=short.dy, dstate=short.dstate).map(
            lambda array: array.astype(self.compute_dtype or array.dtype)
        )
        operands, cotangents = cast.map(operand), cast.map(cotangent)
        return Inputs(operands.x, operands.state, cotangents.dy, cotangents.dstate)


def _shortened(array: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(array.astype("float64"))
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits).astype(array.dtype)


class Prepared:
    """A problem on a backend: network loaded, inputs in its arrays; ``call`` runs the case's phase once."""

    def __init__(self, backend: Any, problem: Problem, inputs: Inputs, params: Params) -> None:
        self.backend, self.case, self.params = backend, problem.computed_case(), params
        self.net = backend.load(self.case.spec(), params)
        self.x, self.state, self.dy, self.dstate = inputs.map(backend.asarray)

    def call(self) -> dict[str, Any]:
        """Run the phase; the results by name, in the backend's own arrays."""
        call = {"forward": self._forward, "step": self._step, "tbptt": self._tbptt}[self.case.phase]
        return call()

    def _forward(self) -> dict[str, Any]:
        y, final = self.net.forward(self.x, self.state)
        return named(self.case, y, final)

    def _step(self) -> dict[str, Any]:
        y, final, tape = self.net.record(self.x, self.state)
        return named(self.case, y, final, self.net.backward(tape, self.dy, self.dstate))

    def _tbptt(self) -> dict[str, Any]:
        assert self.case.window is not None, "a tbptt case has a window"
        return named(self.case, *tbptt(self.net, self.x, self.dy, self.case.window, self.case.stride, self.state))


def named(case: Case, y: Any, final: Any, grads: Any = None) -> dict[str, Any]:
    """What a call returned, by the names under which it is compared."""
    states = case.spec().kind.states
    found = {"y": y} | {f"final {name}": part for name, part in zip(states, final, strict=True)}
    if grads is not None:
        found |= {"dx": grads.x} | {f"d initial {name}": part for name, part in zip(states, grads.state, strict=True)}
        found |= {f"d {name}": value for name, value in grads.params.items()}
    return found


def outputs(backend: Any, problem: Problem) -> Outputs:
    """Load a network and call it once: ``called`` of it."""
    inputs = problem.inputs()
    lent = inputs.map(np.copy)  # a backend on NumPy arrays works on these themselves
    return called(Prepared(backend, problem, lent, problem.params()), problem)


def called(prepared: Prepared, problem: Problem) -> Outputs:
    """Every output and gradient of one call, as NumPy arrays, and by how much the calls so far changed their arguments."""
    backend = prepared.backend
    results = prepared.call()
    backend.synchronize()
    found = {name: np.array(backend.to_numpy(value)) for name, value in results.items()}
    lent = _flat((prepared.x, prepared.state, prepared.dy, prepared.dstate))
    now = [np.asarray(backend.to_numpy(array)) for array in lent] + list(prepared.params.values())
    before = _flat(problem.inputs()) + list(problem.params().values())
    changes = [np.max(np.abs(a - b), initial=0) for a, b in zip(now, before, strict=True)]
    return found | {INPUT_CHANGE: np.max(changes)}


def distinct_outputs(reference: Any, problem: Problem, inputs: Inputs | None = None) -> Outputs:
    """What the reference makes of the distinct rows alone, or of other ``inputs`` of their shapes."""
    given = problem.distinct_inputs() if inputs is None else inputs
    prepared = Prepared(reference, problem, given, problem.params())
    return {name: np.asarray(reference.to_numpy(value)) for name, value in prepared.call().items()}


def truncation_error(reference: Any, problem: Problem) -> dict[str, float]:
    """Norm of (truncated - full) over norm of full, for each parameter's gradient and for all of them together."""
    whole = msgspec.structs.replace(problem.case, window=problem.case.T, stride=None)
    cut, full = distinct_outputs(reference, problem), distinct_outputs(reference, replace(problem, case=whole))
    names = [name for name in full if name.removeprefix("d ") in problem.case.spec().param_shapes()]
    squares = {name: (np.sum((cut[name] - full[name]) ** 2), np.sum(full[name] ** 2)) for name in names}
    squares["all"] = tuple(np.sum(list(squares.values()), axis=0))
    return {name.removeprefix("d "): float(np.sqrt(error / norm)) for name, (error, norm) in squares.items()}


def _flat(parts: Any) -> list[Any]:
    return [array for part in parts for array in (part if isinstance(part, tuple) else (part,))]
