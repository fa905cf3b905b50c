"""A training run in a folder: from its config to metrics, checkpoints and the result on the test part."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rnnbench.errors import ArgumentError
from rnnbench.models.model import Evaluation, Model, load_model
from rnnbench.models.optimisers import OPTIMISERS, Optimiser
from rnnbench.models.spec import ModelSpec, init_model_params
from rnnbench.results.disk import save
from rnnbench.text import flattened
from rnnbench.training.checkpoint import BEST, LAST, read_checkpoint
from rnnbench.training.classify import Classification
from rnnbench.training.config import Config, load_config
from rnnbench.training.forecast import Forecast
from rnnbench.training.lm import LanguageModel
from rnnbench.training.loop import Batches, Fitted, Report, constant, cosine, fit, require_new

RESULT = "result.json"
"""The result on the test part, in a run's folder."""


class Task(Protocol):
    """Data and evaluation of one kind of training; ``facts`` go into checkpoints, for JSON."""

    spec: ModelSpec
    facts: Mapping[str, Any]

    def batches(self, model: Model) -> Batches: ...

    def validate(self, model: Model) -> Evaluation: ...

    def result(self, model: Model) -> dict[str, Any]:
        """Evaluate on the test part, once, after training."""
        ...

    def summary(self, result: Mapping[str, Any]) -> str: ...


KINDS: dict[str, type] = {"lm": LanguageModel, "forecast": Forecast, "classify": Classification}


class Trained(NamedTuple):
    """A finished run: how it went, the result on the test part with the best parameters, and the same in words."""

    fitted: Fitted
    result: dict[str, Any]
    summary: str


def train(config: Config | str | Path, folder: str | Path, *, resume: bool = False, report: Report | None = None) -> Trained:
    """Train as a config, a task's name or a TOML file says; metrics, checkpoints and ``result.json`` go into ``folder``.

    ``resume``: go on from the last checkpoint there, bit for bit on the same backend.
    ``report``: takes the number of steps done, of all, and a few words.
    Raises ArgumentError, Diverged, StoreError, MissingLibrary and BackendUnavailable.
    """
    config, folder = config if isinstance(config, Config) else load_config(config), Path(folder)
    if resume:
        require_same(folder, config)
    else:
        require_new(folder)
    task: Task = KINDS[config.task](config)
    model = load_model(task.spec, init_model_params(task.spec, config.seed), config.backend, threads=config.threads)
    optimiser = optimiser_of(config, model)
    steps, training = config.training.steps, config.training
    fitted = fit(
        model,
        optimiser,
        task.batches(model),
        steps,
        seed=config.seed,
        window=config.truncation.window,
        stride=config.truncation.stride,
        schedule=schedule_of(config, steps),
        validate=task.validate,
        evaluate=training.evaluate,
        patience=training.patience,
        folder=folder,
        checkpoint=training.checkpoint,
        resume=resume,
        facts={"config": config.to_dict(), **task.facts},
        report=report,
    )
    model.update(read_checkpoint(folder / BEST).params)
    result = {"task": config.task, "steps": fitted.steps, "validation_loss": fitted.best, **task.result(model)}
    save(folder / RESULT, [json.dumps(result, indent=1).encode() + b"\n"])
    return Trained(fitted, result, task.summary(result))


def optimiser_of(config: Config, model: Model) -> Optimiser:
    """The optimiser that a config names."""
    options = config.optimiser
    return OPTIMISERS[options.name](model, options.rate, clip_norm=options.clip_norm)


def schedule_of(config: Config, steps: int) -> Callable[[int], float]:
    """The schedule of learning rates that a config names, over so many steps."""
    rate = config.optimiser.rate
    return constant(rate) if config.optimiser.schedule == "constant" else cosine(rate, steps)


def stored_config(folder: str | Path) -> Config:
    """The config of the run in a folder; raises StoreError."""
    return Config.from_dict(read_checkpoint(Path(folder) / LAST).facts.get("config", {}), str(Path(folder) / LAST))


def has_checkpoint(folder: Path) -> bool:
    return (folder / LAST).exists()


def require_same(folder: Path, config: Config) -> None:
    """Raise ArgumentError for a config other than that of the run in the folder; only the number of steps may change."""
    stored, given = (_settings(c) for c in (stored_config(folder), config))
    for key, value in given.items():
        if stored.get(key) != value and key != "training.steps":
            raise ArgumentError(f"{key} is {value!r}; expected {stored.get(key)!r} as in the run to resume, {folder}")


def _settings(config: Config) -> dict[str, Any]:
    found = flattened(config.to_dict())
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
