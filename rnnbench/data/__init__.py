"""Data for training: texts, series and sequences as NumPy arrays, with their splits, scaling, gaps and batches."""

from typing import TYPE_CHECKING

from rnnbench.lazy import lazy_names

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

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
