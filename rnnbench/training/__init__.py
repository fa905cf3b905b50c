"""Training: language models, forecasts and classification on any backend, with checkpoints and metrics."""

from typing import TYPE_CHECKING

from rnnbench.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
