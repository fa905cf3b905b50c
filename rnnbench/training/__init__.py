"""Training: language models, forecasts and classification on any backend, with checkpoints and metrics."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnbench.training.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
    from rnnbench.training.config import Config, load_config
    from rnnbench.training.cross_validation import Score, tune
    from rnnbench.training.lm import load_language_model, sample
    from rnnbench.training.loop import Batch, Fitted, constant, cosine, fit
    from rnnbench.training.metrics import load_metrics
    from rnnbench.training.run import Trained, train

__all__ = [
    "Batch",
    "Checkpoint",
    "Config",
    "Fitted",
    "Score",
    "Trained",
    "constant",
    "cosine",
    "fit",
    "load_config",
    "load_language_model",
    "load_metrics",
    "read_checkpoint",
    "sample",
    "train",
    "tune",
    "write_checkpoint",
]

_HOMES = {
    "checkpoint": ("Checkpoint", "read_checkpoint", "write_checkpoint"),
    "config": ("Config", "load_config"),
    "lm": ("load_language_model", "sample"),
    "loop": ("Batch", "Fitted", "constant", "cosine", "fit"),
    "metrics": ("load_metrics",),
    "run": ("Trained", "train"),
    "cross_validation": ("Score", "tune"),
}
"""Modules and their names, imported when they are needed: the command line reads this package's files without NumPy."""

_NAMES = {name: f"rnnbench.training.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return globals().setdefault(name, getattr(importlib.import_module(_NAMES[name]), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
