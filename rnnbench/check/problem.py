"""A problem to check: a case with its weights and inputs, and a backend's results for it as named tensors."""

import contextlib
import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
import numpy as np

from rnnbench.networks.params import Params, init_params
from rnnbench.networks.threads import Limits, blas_limits
from rnnbench.networks.truncation import tbptt
from rnnbench.suite.case import Case
from rnnbench.suite.inputs import Inputs, make_input
from rnnbench.suite.lengths import drawn_lengths

Outputs = dict[str, np.ndarray]

INPUT_CHANGE = "change of the inputs"
"""Name under which ``outputs`` reports the largest change of a call's arguments."""

DISTINCT_ROWS = 4
"""Number of distinct rows that a batch repeats; the cost of the reference then does not depend on the batch size."""

_SMALL = 2**13
"""Number of parameters and inputs from which on few of them are kept: more would fill the memory."""

_DIVIDED = 2**26
"""Number of terms of all products from which on threads save the reference more than they cost it."""

WEIGHT_BITS = {"float32": 8, "float64": 8, "bfloat16": 3, "float16": 4}
COTANGENT_BITS = {"float32": 16, "float64": 16, "bfloat16": 5, "float16": 7}
"""Significant bits of the weights of repeated rows, from 0.5 to 1.5, and of the cotangents that they multiply.

Their products must be exact: float32 has 24 bits, bfloat16 8, float16 11.
"""


class Rows(NamedTuple):
    """The repetition of a few distinct rows in a batch: row b is row ``index[b]``, its cotangents times ``weight[b]``.

    Gradients are linear in the cotangents, so the reference needs to run only on the distinct rows to give every element of
    the whole call.  The weights have few enough bits to keep the products exact, but enough to make equal rows round
    differently.  One repeated row has weight 0: any gradient there has leaked from another row.
    """

    index: np.ndarray
    weight: np.ndarray

    @classmethod
    def of(cls, batch: int, seed: int, dtype: str, most: int = DISTINCT_ROWS) -> "Rows":
        distinct = min(batch, most)
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
        """The sum of the weights of each distinct row."""
        return np.bincount(self.index, self.weight)


@dataclass(frozen=True)
class Problem:
    """A case with the scheme of its weights and the source of its inputs.

    ``compute_dtype``: the dtype to compute in, if not the case's.  Weights and inputs are rounded to the case's dtype first,
    so that only the arithmetic differs.
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
        return {name: value.astype(self.compute_dtype or value.dtype) for name, value in _drawn(self).params.items()}

    def distinct_rows(self) -> int:
        """The number of distinct rows; rows of different lengths are all distinct."""
        return min(self.case.B, DISTINCT_ROWS) if self.case.lengths is None else self.case.B

    def rows(self) -> Rows:
        return Rows.of(self.case.B, self.seed, self.case.dtype, self.distinct_rows())

    def repeats(self) -> float:
        """The mean number of rows of the batch per distinct row."""
        return self.case.B / self.distinct_rows()

    def inputs(self) -> Inputs:
        """The arguments of the whole call, with repeated rows."""
        index, weight = self.rows()

        def repeated(array: np.ndarray) -> np.ndarray:
            return array[:, index]

        def weighted(array: np.ndarray) -> np.ndarray:
            return array[:, index] * weight[:, None].astype(array.dtype)

        return self._with_rows(repeated, weighted)

    def distinct_inputs(self) -> Inputs:
        """The distinct rows only, with the summed cotangents of their repetitions."""
        totals = self.rows().totals
        return self._with_rows(lambda array: array, lambda array: array * totals[:, None].astype(array.dtype))

    def computed_case(self) -> Case:
        return msgspec.structs.replace(self.case, dtype=self.compute_dtype or self.case.dtype)

    def _with_rows(self, operand: Any, cotangent: Any) -> Inputs:
        cast = _drawn(self).inputs.map(lambda array: array.astype(self.compute_dtype or array.dtype))
        operands, cotangents = cast.map(operand), cast.map(cotangent)
        return Inputs(operands.x, operands.state, cotangents.dy, cotangents.dstate)


class _Drawn(NamedTuple):
    """The parameters of a problem and the inputs of its distinct rows, in the case's dtype; not to be changed."""

    params: Params
    inputs: Inputs


def _drawn(problem: Problem) -> _Drawn:
    """What a problem draws, which its tolerances and comparisons ask for again and again."""
    drawn = replace(problem, compute_dtype=None)
    small = problem.case.spec().parameter_count() + problem.case.T * problem.distinct_rows() * problem.case.I < _SMALL
    return _drawn_small(drawn) if small else _drawn_large(drawn)


def _drawn_anew(problem: Problem) -> _Drawn:
    case = problem.case
    params = init_params(case.spec(), problem.seed, problem.scheme, problem.forget_bias)
    made = make_input(msgspec.structs.replace(case, B=problem.distinct_rows()), problem.source, problem.seed, problem.text_file)
    rounded = made.map(lambda array: _rounded_to_bits(array, COTANGENT_BITS[case.dtype]))
    return _Drawn(params, made._replace(dy=rounded.dy, dstate=rounded.dstate))


_drawn_small, _drawn_large = functools.lru_cache(maxsize=1024)(_drawn_anew), functools.lru_cache(maxsize=2)(_drawn_anew)


def _rounded_to_bits(array: np.ndarray, bits: int) -> np.ndarray:
    fraction, exponent = np.frexp(array.astype("float64"))
    return np.ldexp(np.rint(np.ldexp(fraction, bits)), exponent - bits).astype(array.dtype)


class Prepared:
    """A problem loaded on a backend, with its inputs in the backend's arrays; ``call`` runs the phase once.

    ``lengths``: the lengths of the sequences, as the last argument of a call, or nothing.
    """

    def __init__(self, backend: Any, problem: Problem, inputs: Inputs, params: Params) -> None:
        self.backend, self.case, self.params = backend, problem.computed_case(), params
        self.net = backend.load(self.case.spec(), params)
        self.x, self.state, self.dy, self.dstate = inputs.map(backend.asarray)
        self.lengths = lengths_of(problem.case)

    def call(self) -> dict[str, Any]:
        """Run the phase; return the results by name, in the backend's arrays."""
        call = {"forward": self._forward, "step": self._step, "tbptt": self._tbptt}[self.case.phase]
        return call()

    def _forward(self) -> dict[str, Any]:
        y, final = self.net.forward(self.x, self.state, *self.lengths)
        return named(self.case, y, final)

    def _step(self) -> dict[str, Any]:
        y, final, tape = self.net.record(self.x, self.state, *self.lengths)
        return named(self.case, y, final, self.net.backward(tape, self.dy, self.dstate))

    def _tbptt(self) -> dict[str, Any]:
        assert self.case.window is not None, "a tbptt case has a window"
        options = {"dstate": self.dstate, "lengths": self.lengths[0]} if self.lengths else {}
        return named(self.case, *tbptt(self.net, self.x, self.dy, self.case.window, self.case.stride, self.state, **options))


def lengths_of(case: Case) -> tuple[np.ndarray, ...]:
    """The lengths of a case's sequences as the last argument of a call, or nothing where all have T steps."""
    return () if case.lengths is None else (drawn_lengths(case.lengths, case.T, case.B),)


def named(case: Case, y: Any, final: Any, grads: Any = None) -> dict[str, Any]:
    """Return the results of a call by the names used in comparisons."""
    states = case.spec().kind.states
    found = {"y": y} | {f"final {name}": part for name, part in zip(states, final, strict=True)}
    if grads is not None:
        found |= {"dx": grads.x} | {f"d initial {name}": part for name, part in zip(states, grads.state, strict=True)}
        found |= {f"d {name}": value for name, value in grads.params.items()}
    return found


def outputs(backend: Any, problem: Problem) -> Outputs:
    """Load a network, call it once, and return its results as ``called`` does."""
    inputs = problem.inputs().map(np.copy)  # a NumPy backend uses these arrays themselves
    return called(Prepared(backend, problem, inputs, problem.params()), problem)


def called(prepared: Prepared, problem: Problem) -> Outputs:
    """Call once; return every output and gradient as a NumPy array, and the largest change of the arguments so far."""
    backend = prepared.backend
    results = prepared.call()
    backend.synchronize()
    found = {name: np.array(backend.to_numpy(value)) for name, value in results.items()}
    arguments = _flat((prepared.x, prepared.state, prepared.dy, prepared.dstate))
    now = [np.asarray(backend.to_numpy(array)) for array in arguments] + list(prepared.params.values())
    before = _flat(problem.inputs()) + list(problem.params().values())
    changes = [np.max(np.abs(a - b), initial=0) for a, b in zip(now, before, strict=True)]
    return found | {INPUT_CHANGE: np.max(changes)}


def distinct_outputs(reference: Any, problem: Problem, inputs: Inputs | None = None) -> Outputs:
    """Run the reference on the distinct rows, or on other ``inputs`` of the same shapes."""
    with _limits(problem):
        given = problem.distinct_inputs() if inputs is None else inputs
        prepared = Prepared(reference, problem, given, problem.params())
        return {name: np.asarray(reference.to_numpy(value)) for name, value in prepared.call().items()}


def _limits(problem: Problem) -> contextlib.AbstractContextManager[Any]:
    """One thread for the products of a problem too small to be divided."""
    case = problem.case
    terms = case.spec().parameter_count() * case.T * problem.distinct_rows()
    return _one_thread()() if terms < _DIVIDED else contextlib.nullcontext()


@functools.cache
def _one_thread() -> Limits:
    return blas_limits(1)


def truncation_error(reference: Any, problem: Problem) -> dict[str, float]:
    """Norm of (truncated - full) over norm of full, for each parameter's gradient and for ``all`` together."""
    whole = msgspec.structs.replace(problem.case, window=problem.case.T, stride=None)
    truncated, full = distinct_outputs(reference, problem), distinct_outputs(reference, replace(problem, case=whole))
    names = [name for name in full if name.removeprefix("d ") in problem.case.spec().param_shapes()]
    squares = {name: (np.sum((truncated[name] - full[name]) ** 2), np.sum(full[name] ** 2)) for name in names}
    squares["all"] = tuple(np.sum(list(squares.values()), axis=0))
    return {name.removeprefix("d "): float(np.sqrt(error / norm)) for name, (error, norm) in squares.items()}


def _flat(parts: Any) -> list[Any]:
    return [array for part in parts for array in (part if isinstance(part, tuple) else (part,))]
