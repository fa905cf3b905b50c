"""What truncated BPTT costs and saves: loss, error of the gradient, memory of the tape and speed over window and stride."""

import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.models.model import Model
from rnnbench.networks.params import Params, init_params
from rnnbench.networks.registry import load_backend
from rnnbench.studies.study import Curve, Report, Study, frame, new_model, require_seeds, settings_of, summarised
from rnnbench.training.config import Config, Truncation
from rnnbench.training.lm import LanguageModel
from rnnbench.training.loop import fit
from rnnbench.training.run import optimiser_of, schedule_of

if TYPE_CHECKING:
    import pandas as pd

PASSES = ("one a window", "two a window")
"""How often a backward pass runs: the stride is the window, or half of it."""

CLOSE = 0.02
"""Largest part by which a loss may lie above that of full BPTT and still count as equal to it."""


def study_truncation(
    config: Config, *, windows: Sequence[int] | None = None, seeds: int = 3, report: Report | None = None
) -> Study:
    """Train a language model with windows of 1, 2, 4, ... T steps, and compare with BPTT over all T steps of a batch.

    ``config``: of the task "lm"; its ``truncation`` is replaced.  ``windows``: others than the powers of two and T.
    Each window runs with two strides, the window and half of it, on ``seeds`` seeds from that of the config on.

    Columns: ``window``, ``passes``, ``stride``; ``loss`` (validation, after all steps, with its interval over seeds);
    ``norm_ratio`` and ``cosine`` (of the truncated gradient and the full one, of the first batch at the parameters that full
    BPTT reached); ``tape_bytes`` (what is kept from a forward pass over a window to its backward pass; NaN where the backend
    keeps it in memory that Python does not trace); ``tokens_per_second``.  Raises ArgumentError and MissingLibrary.
    """
    if config.task != "lm":
        raise ArgumentError(f"task is {config.task!r}; expected 'lm', of which truncation is studied")
    frame(())  # without pandas, before hours of training
    steps = config.data.steps  # type: ignore[union-attr]  # of a text
    chosen = powers(steps) if windows is None else sorted(set(windows))
    if not chosen or chosen[0] < 1 or chosen[-1] > steps:
        raise ArgumentError(f"windows are {list(chosen)}; expected integers from 1 to data.steps, {steps}")
    if chosen[-1] != steps:
        chosen.append(steps)
    places = [(window, name, stride) for window in chosen for name, stride in _strides(window, steps)]
    task = LanguageModel(config)
    rows: list[dict[str, Any]] = []
    tapes = {window: tape_bytes(config, task, window) for window in chosen}
    for seed in range(config.seed, config.seed + require_seeds(seeds)):
        full: Params | None = None
        for window, name, stride in reversed(places):  # full BPTT first: gradients are compared at its parameters
            trained = _trained(replace(config, seed=seed, truncation=Truncation(window, stride)), task)
            full = full or trained.params
            ratio, cosine = gradient_error(new_model(task.spec, config, seed), task, full, window, stride)
            row = {"window": window, "passes": name, "stride": stride, "seed": seed, "loss": trained.loss}
            row |= {"norm_ratio": ratio, "cosine": cosine, "tape_bytes": tapes[window]}
            rows.append(row | {"tokens_per_second": trained.tokens_per_second})
            if report is not None:
                report(len(rows), len(places) * seeds, f"window {window}: loss {trained.loss:.4f}")
    runs = frame(rows).sort_values(["seed", "window", "stride"], ignore_index=True)
    medians = ("norm_ratio", "cosine", "tape_bytes", "tokens_per_second")
    table = summarised(runs, ("window", "passes", "stride"), "loss", medians)
    settings = settings_of(replace(config, truncation=Truncation()), seeds=seeds, windows=chosen)
    return Study("truncation", "What truncated BPTT costs and saves", conclusion(table), runs, table, CURVES, settings)


def conclusion(table: "pd.DataFrame") -> str:
    """The shortest window whose loss is that of full BPTT, and what it saves."""
    once = table[table["passes"] == PASSES[0]].sort_values("window")
    full = once.iloc[-1]
    close = once[once["loss"] <= (1 + CLOSE) * full["loss"]].iloc[0]
    if close["window"] == full["window"]:
        below = f"No window below {full['window']} reaches the loss of full BPTT, {full['loss']:.3f}, within {CLOSE:.0%}"
        return below + (f"; that of {once.iloc[-2]['window']} ends at {once.iloc[-2]['loss']:.3f}." if len(once) > 1 else ".")
    memory = close["tape_bytes"] / full["tape_bytes"]
    saves = "" if np.isnan(memory) else f"; its tape takes {memory:.1%} of the memory"
    return (
        f"A window of {close['window']} of {full['window']} steps ends at a loss of {close['loss']:.3f}, within {CLOSE:.0%} of "
        f"full BPTT's {full['loss']:.3f}, although its gradient has a cosine of {close['cosine']:.2f} with the full one"
        f"{saves}, and it trains at {close['tokens_per_second'] / full['tokens_per_second']:.2f} times the speed."
    )


def powers(steps: int) -> list[int]:
    """1, 2, 4, ... and ``steps``."""
    return [*(2**place for place in range(steps.bit_length()) if 2**place < steps), steps]


def _strides(window: int, steps: int) -> list[tuple[str, int]]:
    half = (window + 1) // 2
    return [(PASSES[1], half), (PASSES[0], window)] if half < window < steps else [(PASSES[0], window)]


class _Trained(NamedTuple):
    loss: float
    tokens_per_second: float
    params: Params


def _trained(config: Config, task: LanguageModel) -> _Trained:
    """Train as the config says; the validation loss is that at the end."""
    model = new_model(task.spec, config, config.seed)
    batches, (window, stride) = task.batches(model), (config.truncation.window, config.truncation.stride)
    first = batches(0)
    model.gradients(first.inputs, first.targets, window=window, stride=stride, key=(config.seed, 0))  # compiles
    steps = config.training.steps
    schedule = schedule_of(config, steps)
    optimiser, started = optimiser_of(config, model), time.perf_counter()
    fit(model, optimiser, batches, steps, seed=config.seed, window=window, stride=stride, schedule=schedule)
    seconds = time.perf_counter() - started
    return _Trained(task.validate(model).loss, steps * first.targets.size / seconds, model.params())


def gradient_error(model: Model, task: LanguageModel, params: Params, window: int, stride: int) -> tuple[float, float]:
    """The ratio of norms and the cosine of the truncated gradient and the full one, over all parameters."""
    model.update(params)
    batch = task.batches(model)(0)

    def flat(window: int | None = None, stride: int | None = None) -> np.ndarray:
        found = model.gradients(batch.inputs, batch.targets, key=(0, 0), window=window, stride=stride)
        return np.concatenate([g.astype(float).ravel() for g in model.gradients_to_numpy(found.gradients).values()])

    full, cut = flat(), flat(window, stride)
    norms = np.linalg.norm(full), np.linalg.norm(cut)
    return float(norms[1] / norms[0]), float(min(1.0, full @ cut / (norms[0] * norms[1])))


def tape_bytes(config: Config, task: LanguageModel, window: int) -> float:
    """The bytes that a recurrent network keeps from a forward pass over ``window`` steps to its backward pass.

    Counted are the NumPy arrays that a first call allocates and keeps.  NaN where that is less than the outputs alone.
    """
    backend, spec = load_backend(config.backend), task.spec.rnn
    batch = config.data.batch
    x = backend.asarray(np.zeros((window, batch, spec.input_size), spec.numpy_dtype))
    net = backend.load(spec, init_params(spec, config.seed), threads=config.threads)
    compiled = backend.load(spec, init_params(spec, config.seed), threads=config.threads)
    compiled.record(x)  # on another network: the first one's buffers count
    running = tracemalloc.is_tracing()
    if not running:
        tracemalloc.start()
    try:
        before = _bytes_of_arrays()
        tape = net.record(x)[2]
        kept = _bytes_of_arrays() - before
    finally:
        if not running:
            tracemalloc.stop()
    del tape
    outputs = window * batch * spec.features * spec.numpy_dtype.itemsize
    return float(kept) if kept >= outputs else float("nan")


def _bytes_of_arrays() -> int:
    of_numpy = tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)
    return sum(trace.size for trace in tracemalloc.take_snapshot().filter_traces([of_numpy]).traces)


CURVES = (
    Curve(
        "Loss after the same number of steps",
        "Median over seeds of the validation loss, with its interval. A pass sees as many steps as the window.",
        *("window", "loss", "passes", "loss_low", "loss_high"),
        log_x=True,
    ),
    Curve(
        "Direction of the gradient",
        "Cosine of the truncated gradient and that of full BPTT, at the same parameters and batch: 1 is the same direction.",
        *("window", "cosine", "passes"),
        log_x=True,
    ),
    Curve(
        "Length of the gradient",
        "Norm of the truncated gradient, divided by that of full BPTT.",
        *("window", "norm_ratio", "passes"),
        log_x=True,
    ),
    Curve(
        "Memory of the tape, bytes",
        "What one forward pass keeps for its backward pass. It does not depend on the length of the sequence.",
        *("window", "tape_bytes", "passes"),
        log_x=True,
        log_y=True,
    ),
    Curve(
        "Tokens per second",
        "Median over seeds, of whole training steps.",
        *("window", "tokens_per_second", "passes"),
        log_x=True,
    ),
)
