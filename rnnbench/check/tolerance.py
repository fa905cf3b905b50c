"""What a right implementation may deviate: the float64 reference, run again with the noise of the target's rounding.

Every operation that rounds gets a relative error of the target's unit roundoff u times a standard normal number: a
product the noise u (|v| |w| + |bias|), an activation 2u, an elementwise result and a running sum u.  The largest
deviation of M such runs from the exact one, times four, is the tolerance of a tensor; a deviation of u times the largest
element is allowed in any case, because every result is rounded when it is stored.  The tolerance carries sequence length,
sizes and conditioning by itself; no number in it was chosen to make a check pass.

For a float64 target the reference rounds as much as what it is compared with, so twice the tolerance holds there.
"""

from typing import Any, NamedTuple

import numpy as np

from rnnbench.backend import load_backend
from rnnbench.check.problem import Outputs, Problem, outputs, truncation_error

NOISY_RUNS = 8
FACTOR = 4

UNIT_ROUNDOFF = {"float32": 2.0**-24, "float64": 2.0**-53}


class Expected(NamedTuple):
    """The reference's outputs in float64, and the tolerance of each."""

    values: Outputs
    tolerances: dict[str, float]


def expected(problem: Problem) -> Expected:
    """Run the reference on a problem, exactly and with noise."""
    reference = load_backend("numpy_ref")
    exact = outputs(reference, problem.in_float64())
    u = UNIT_ROUNDOFF[problem.case.dtype]
    deviations = {name: u * _largest(value) for name, value in exact.items()}
    for run in range(NOISY_RUNS):
        noise = _noise(reference.Arithmetic, u, np.random.default_rng([problem.seed, run]))
        noisy = outputs(_WithArithmetic(reference, noise), problem.in_float64())
        for name, value in noisy.items():
            deviations[name] = max(deviations[name], _largest(value - exact[name]))
    roundings = 2 if problem.case.dtype == "float64" else 1  # the target's alone, or the reference's as well
    return Expected(exact, {name: roundings * FACTOR * deviation for name, deviation in deviations.items()})


def _largest(array: np.ndarray) -> float:
    return float(np.max(np.abs(array), initial=0))


def window_cost(problem: Problem) -> dict[str, float]:
    """Relative error of the truncated gradients against full BPTT, by tensor and for ``all`` parameters, in float64."""
    return truncation_error(load_backend("numpy_ref"), problem.in_float64())


class _WithArithmetic:
    """The reference as a backend that computes with another arithmetic."""

    def __init__(self, reference: Any, arithmetic: Any) -> None:
        self._reference, self._arithmetic = reference, arithmetic

    def load(self, spec: Any, params: Any, *, threads: int | None = None) -> Any:
        return self._reference.load(spec, params, threads=threads, arithmetic=self._arithmetic)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reference, name)


def _noise(exact: Any, u: float, rng: np.random.Generator) -> Any:
    """An arithmetic that rounds each result of the class ``exact`` as a machine with unit roundoff ``u`` might."""

    def noise(like: np.ndarray) -> np.ndarray:
        return u * rng.standard_normal(like.shape, np.float32)

    class Noisy(exact):
        def tanh(self, z: np.ndarray) -> np.ndarray:
            return super().tanh(z) * (1 + 2 * noise(z))

        def sigmoid(self, z: np.ndarray) -> np.ndarray:
            return super().sigmoid(z) * (1 + 2 * noise(z))

        def product(self, v: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
            result = super().product(v, w, bias)
            return result + noise(result) * super().product(abs(v), abs(w), None if bias is None else abs(bias))

        def accumulated(self, total: np.ndarray, term: np.ndarray) -> np.ndarray:
            result = super().accumulated(total, term)
            return result * (1 + noise(result))

        def rounded(self, values: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
            return tuple(value * (1 + noise(value)) for value in super().rounded(values))

    return Noisy()
