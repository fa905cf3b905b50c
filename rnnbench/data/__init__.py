"""Data for training: texts, series and sequences as NumPy arrays, with their splits, scaling, gaps and batches."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnnbench.data.forecasting import (
        Scaler,
        Windows,
        fill,
        naive,
        rolling_origin,
        seasonal_naive,
        split_series,
        windows,
    )
    from rnnbench.data.sequences import Sequences, padded, read_sequences, shuffled_batches, stratified
    from rnnbench.data.series import Series, read_series
    from rnnbench.data.smoothing import exponential_smoothing
    from rnnbench.data.sources import DATASETS, Dataset, Member, read_member
    from rnnbench.data.text import StatefulBatches, Vocabulary, read_text, split

__all__ = [
    "DATASETS",
    "Dataset",
    "Member",
    "Scaler",
    "Sequences",
    "Series",
    "StatefulBatches",
    "Vocabulary",
    "Windows",
    "exponential_smoothing",
    "fill",
    "naive",
    "padded",
    "read_member",
    "read_sequences",
    "read_series",
    "read_text",
    "rolling_origin",
    "seasonal_naive",
    "shuffled_batches",
    "split",
    "split_series",
    "stratified",
    "windows",
]

_HOMES = {
    "forecasting": ("Scaler", "Windows", "fill", "naive", "rolling_origin", "seasonal_naive", "split_series", "windows"),
    "sequences": ("Sequences", "padded", "read_sequences", "shuffled_batches", "stratified"),
    "series": ("Series", "read_series"),
    "smoothing": ("exponential_smoothing",),
    "sources": ("DATASETS", "Dataset", "Member", "read_member"),
    "text": ("StatefulBatches", "Vocabulary", "read_text", "split"),
}
"""Modules and their names, imported when they are needed: the command line reads this package's files without NumPy."""

_NAMES = {name: f"rnnbench.data.{home}" for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return globals().setdefault(name, getattr(importlib.import_module(_NAMES[name]), name))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
