"""The promises about models on a backend: outputs, losses, gradients, and the parameters after a few steps of training.

What is expected comes from ``rnnbench.check.witness``, the tolerances from the reference's own models with random rounding
errors, as those of networks do.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from rnnbench.check.comparing import Finding, compared
from rnnbench.check.noise import WithArithmetic, noisy
from rnnbench.check.problem import Outputs, Problem, Rows
from rnnbench.check.tolerance import FACTOR, FLUSHED, NOISE, NOISY_RUNS, ROUNDINGS, UNIT_ROUNDOFF, Expected
from rnnbench.check.witness import Descent, Optimising, run_pass
from rnnbench.models.dropout import draw_mask
from rnnbench.models.model import load_model
from rnnbench.models.optimisers import OPTIMISERS
from rnnbench.models.spec import DTYPES, ModelSpec, init_model_params
from rnnbench.networks.cells import CELLS
from rnnbench.networks.params import Params
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.spec import Spec
from rnnbench.suite.case import Case

VOCABULARY, CLASSES, VALUES = 11, 9, 3

STEPS = 3
"""Number of updates: the second is the first one with a momentum, the third the first with a corrected bias of two."""

ADAM = Optimising("adam", {"rate": 0.05, "epsilon": 0.01, "clip_norm": 0.05})
OTHERS = (
    Optimising("adamw", {"rate": 0.05, "epsilon": 0.01, "weight_decay": 0.1, "betas": (0.8, 0.95)}),
    Optimising("sgd", {"rate": 0.5, "momentum": 0.9, "nesterov": True, "clip_norm": 1e9}),
    Optimising("sgd", {"rate": 0.5, "momentum": 0.5, "clip_value": 0.01}),
    Optimising("sgd", {"rate": 0.5}),
)
"""An epsilon far above that of use keeps Adam from dividing rounding errors by each other."""


class Tools(NamedTuple):
    """What trains: the functions under test."""

    load_model: Any
    optimisers: Any


RIGHT = Tools(load_model, OPTIMISERS)
TOOLS = RIGHT


@dataclass(frozen=True)
class ModelProblem:
    """A model, its sizes and how it is trained."""

    spec: ModelSpec
    T: int
    B: int
    seed: int
    window: int | None = None
    stride: int | None = None

    def params(self) -> Params:
        return init_model_params(self.spec, self.seed)

    def batch(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and mask; some targets are ignored, symbols repeat, and half of them come in every other step."""
        rng = np.random.default_rng([self.seed, step, 7])
        shape, spec, dtype = (self.T, self.B), self.spec, self.spec.numpy_dtype
        if spec.vocabulary:
            inputs = rng.integers(0, VOCABULARY // 2, shape) + step % 2 * (VOCABULARY // 2)
        else:
            inputs = _numbers(rng, (*shape, spec.rnn.input_size), dtype)
        if spec.loss == "cross_entropy":
            targets, mask = rng.integers(0, CLASSES, shape), (rng.random(shape) < 0.7).astype(dtype)
        else:
            targets = _numbers(rng, (*shape, VALUES), dtype)
            mask = (rng.integers(0, 3, targets.shape) / 2).astype(dtype)
        mask.flat[0] = 1
        return inputs, targets, mask

    def key(self, step: int) -> tuple[int, int]:
        return self.seed, step

    def dropped(self, step: int) -> list[np.ndarray]:
        spec = self.spec
        layers = range(spec.rnn.num_layers - 1) if spec.dropout else ()
        shape = (self.T, self.B, spec.rnn.features)
        return [draw_mask(self.key(step), layer, spec.dropout, shape, spec.numpy_dtype) for layer in layers]


def concerns(case: Case) -> bool:
    """Models are of float32 and float64; what stands around a network does not depend on its nonlinearity."""
    return (
        case.phase == "step"
        and case.lengths is None
        and case.dtype in DTYPES
        and case.nonlinearity == CELLS[case.cell].nonlinearities[0]
    )


def model_problems(problem: Problem) -> list[ModelProblem]:
    """A language model, truncated where time may be cut, and a model of numbers, with dropout where layers allow it."""
    case = problem.case
    rnn = case.spec()
    window, stride = (max(1, case.T // 2), max(1, case.T // 3)) if not case.bidirectional else (None, None)
    dropout = 0.25 if case.layers > 1 else 0.0
    words = ModelSpec(rnn, CLASSES, vocabulary=VOCABULARY)
    activation = ("tanh", "sigmoid", "identity")[problem.seed % 3]
    numbers = ModelSpec(rnn, VALUES, loss="mse", activation=activation, dropout=dropout)
    return [
        ModelProblem(words, case.T, case.B, problem.seed, window, stride),
        ModelProblem(numbers, case.T, case.B, problem.seed),
    ]


def model(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The promise "model": outputs, loss and gradients of one pass."""
    return [f for each in model_problems(problem) for f in _judged(backend, each, None)]


def training(backend: Any, problem: Problem, wanted: Expected) -> list[Finding]:
    """The promise "training": losses and parameters over a few steps of Adam, and of the others on a small model."""
    words, numbers = model_problems(problem)
    small = _small(numbers)
    return _judged(backend, words, ADAM) + [finding for other in OTHERS for finding in _judged(backend, small, other)]


def _small(problem: ModelProblem) -> ModelProblem:
    """One layer in one direction and few steps: what an optimiser does with gradients does not depend on their network."""
    rnn = replace(problem.spec.rnn, num_layers=1, bidirectional=False)
    return replace(problem, spec=replace(problem.spec, rnn=rnn, dropout=0.0), T=min(problem.T, 3))


def _judged(backend: Any, problem: ModelProblem, optimising: Optimising | None) -> list[Finding]:
    got = run(TOOLS, backend, problem, problem.spec.rnn.dtype, optimising)
    return compared(got, expected_of(problem, optimising), problem.spec.rnn.dtype)


@functools.lru_cache(maxsize=256)
def expected_of(problem: ModelProblem, optimising: Optimising | None) -> Expected:
    """The witness's results, and tolerances from noisy runs of the reference."""
    dtype, reference = problem.spec.rnn.dtype, reference_backend()
    values, exact = witnessed(problem, optimising), run(RIGHT, reference, problem, "float64", optimising)
    deviations = dict.fromkeys(values, 0.0)
    for number in range(NOISY_RUNS):
        rng = np.random.default_rng([problem.seed, number])
        noisy_reference = WithArithmetic(reference, noisy(reference.Arithmetic, NOISE[dtype], rng))
        for name, value in run(RIGHT, noisy_reference, problem, "float64", optimising).items():
            deviations[name] = max(deviations[name], float(np.max(abs(value - exact[name]))) / NOISE[dtype])
    factor = FACTOR * ROUNDINGS[dtype] * UNIT_ROUNDOFF[dtype]
    smallest = {name: float(np.max(abs(value))) for name, value in values.items()}
    tolerances = {n: np.array([max(factor * max(d, smallest[n]), FLUSHED[dtype])]) for n, d in deviations.items()}
    return Expected(values, tolerances, Rows(np.arange(0), np.arange(0)))


def run(tools: Tools, backend: Any, problem: ModelProblem, dtype: str, optimising: Optimising | None) -> Outputs:
    """Run a model on a backend: one pass, or ``STEPS`` updates with the state carried from step to step."""
    spec = _in(problem.spec, dtype)
    params = {name: value.astype(dtype) for name, value in problem.params().items()}
    model = tools.load_model(spec, params, backend)
    if optimising is None:
        inputs, targets, mask = _cast(problem.batch(0), dtype)
        outputs, _ = model.forward(inputs)
        found = model.gradients(inputs, targets, mask, window=problem.window, stride=problem.stride, key=problem.key(0))
        named = {"outputs": outputs, "loss": np.array([found.loss], dtype)}
        named["loss of an evaluation"] = np.array([model.evaluate(inputs, targets, mask).loss], dtype)
        named |= {f"state {i}": value for i, value in enumerate(model.state_to_numpy(found.state))}
        return named | {f"gradient of {n}": v for n, v in model.gradients_to_numpy(found.gradients).items()}
    optimiser = tools.optimisers[optimising.name](model, **optimising.options)
    state, named = None, {}
    for step in range(STEPS):
        inputs, targets, mask = _cast(problem.batch(step), dtype)
        found = model.gradients(
            inputs, targets, mask, state, window=problem.window, stride=problem.stride, key=problem.key(step)
        )
        optimiser.step(found.gradients)
        state = found.state
        named[f"loss {step + 1}"] = np.array([found.loss], dtype)
    return named | {f"{name} after {STEPS} steps": value for name, value in model.params().items()}


def witnessed(problem: ModelProblem, optimising: Optimising | None) -> Outputs:
    """The same results from the witness, in float64."""
    spec = _in(problem.spec, "float64")
    params = {name: value.astype("float64") for name, value in problem.params().items()}

    def at(step: int, params: Params, state: Any, dropped: list[np.ndarray]) -> Any:
        inputs, targets, mask = _cast(problem.batch(step), "float64")
        return run_pass(spec, params, inputs, targets, mask, state, problem.window, problem.stride, dropped)

    if optimising is None:
        found, plain = at(0, params, None, problem.dropped(0)), at(0, params, None, [])
        named = {"outputs": plain.outputs, "loss": np.array([found.loss]), "loss of an evaluation": np.array([plain.loss])}
        named |= {f"state {i}": value for i, value in enumerate(found.state)}
        return named | {f"gradient of {name}": value for name, value in found.gradients.items()}
    descent, state, named = Descent(optimising, params), None, {}
    for step in range(STEPS):
        found = at(step, descent.params, state, problem.dropped(step))
        descent.step(found.gradients)
        state = found.state
        named[f"loss {step + 1}"] = np.array([found.loss])
    return named | {f"{name} after {STEPS} steps": value for name, value in descent.params.items()}


def _in(spec: ModelSpec, dtype: str) -> ModelSpec:
    rnn: Spec = replace(spec.rnn, dtype=dtype)
    return replace(spec, rnn=rnn)


def _cast(batch: tuple[np.ndarray, ...], dtype: str) -> tuple[np.ndarray, ...]:
    return tuple(array.astype(dtype) if array.dtype.kind == "f" else array for array in batch)


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return rng.uniform(-1, 1, shape).astype(dtype)
