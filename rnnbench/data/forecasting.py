"""Forecasting: gaps, scaling, windows, folds, and the forecasts that a model has to beat.

Nothing here lets a later value into an earlier part: statistics come from rows before ``train_end``, splits and folds are by
position.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from rnnbench.data.positions import edges, require_count
from rnnbench.data.series import Series
from rnnbench.errors import ArgumentError

FILLS = ("drop", "last", "mean", "median", "mask", "model")
"""What can be done about missing values."""


def fill(series: Series, method: str, train_end: int | None = None) -> Series:
    """Return the series with its gaps treated.

    ``method``: "drop" leaves out rows with a missing value; "last" repeats the last value; "mean" and "median" take that of the
    channel in the training part; "mask" fills as "last" does and appends a channel for each channel, 1 where the value was
    observed and 0 where not; "model" leaves NaN, for a model to predict.  With "last" and "mask", rows before a channel's first
    value get that value.
    ``train_end``: the number of rows of the training part; "mean" and "median" need it, the others accept it.
    Raises ArgumentError for an unknown method, and for a channel without any value in the training part.
    """
    if method not in FILLS:
        raise ArgumentError(f"method is {method!r}; expected one of {', '.join(FILLS)}")
    if train_end is None and method in ("mean", "median"):
        raise ArgumentError(f"train_end is None for method {method!r}; expected the number of rows of the training part")
    values = series.values
    end = len(values) if train_end is None else require_count("train_end", train_end)
    observed = ~np.isnan(values)
    for name, found in zip(series.names, observed[:end].sum(axis=0), strict=True):
        if not found:
            raise ArgumentError(f"channel {name} has no value in the first {end} rows; expected at least one")
    if method == "drop":
        kept = np.flatnonzero(observed.all(axis=1))
        if not kept.size:
            raise ArgumentError(f"method 'drop' leaves no row of {len(values)}; expected a row without missing values")
        return replace(series, values=values[kept], index=tuple(series.index[row] for row in kept))
    if method == "model":
        return series
    if method in ("mean", "median"):
        statistic = np.nanmean if method == "mean" else np.nanmedian
        return replace(series, values=np.where(observed, values, statistic(values[:end], axis=0)))
    filled = _carried(values)
    filled = np.where(np.isnan(filled), values[observed.argmax(axis=0), range(values.shape[1])], filled)
    if method == "last":
        return replace(series, values=filled)
    names = tuple(f"{name} observed" for name in series.names)
    return replace(series, values=np.hstack([filled, observed.astype(float)]), names=series.names + names)


def _carried(values: np.ndarray) -> np.ndarray:
    """Repeat the last observed value along axis 0; NaN before the first."""
    rows = np.where(np.isnan(values), 0, np.arange(len(values))[:, None])
    return np.take_along_axis(values, np.maximum.accumulate(rows, axis=0), axis=0)


@dataclass(frozen=True, eq=False)
class Scaler:
    """Channels shifted to mean 0 and divided by their standard deviation, ``spread``; both (C,)."""

    mean: np.ndarray
    spread: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, unscaled: int = 0) -> "Scaler":
        """Measure the training part, (N, C), without its NaN.

        The last ``unscaled`` channels stay as they are, which suits the channels that ``fill`` appends with "mask".  A constant
        channel is shifted and not divided, because its spread of 0 would turn it into NaN.
        Raises ArgumentError for a channel without values.
        """
        values = _require_rows(values)
        require_count("unscaled", unscaled, 0)
        if np.isnan(values).all(axis=0).any():
            channel = int(np.isnan(values).all(axis=0).argmax())
            raise ArgumentError(f"channel {channel} has no value in {len(values)} rows; expected at least one")
        mean, spread = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
        constant = np.nanmax(values, axis=0) == np.nanmin(values, axis=0)  # whose computed spread may be a rounding error
        spread[constant] = 1
        if unscaled:
            mean[-unscaled:], spread[-unscaled:] = 0, 1
        return cls(mean, spread)

    def transform(self, values: np.ndarray) -> np.ndarray:
        """Scale values, (..., C); NaN stay."""
        return (np.asarray(values) - self.mean) / self.spread

    def inverse(self, values: np.ndarray) -> np.ndarray:
        """Undo ``transform``."""
        return np.asarray(values) * self.spread + self.mean


def _require_rows(values: np.ndarray, name: str = "values") -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise ArgumentError(f"{name} have shape {values.shape}; expected (N, C), not empty")
    return values


def split_series(n: int, parts: Sequence[float] = (0.7, 0.15, 0.15)) -> tuple[slice, ...]:
    """Split n rows by position, in order: by default for training, validation and test.

    Raises ArgumentError unless the parts are positive, sum to 1 and get at least one row each.
    """
    found = edges(require_count("n", n), parts)
    return tuple(slice(start, end) for start, end in pairwise(found))


class Windows(NamedTuple):
    """Windows of a series, time first: x (T, B, C), targets and mask (T, B, C') for B windows."""

    x: np.ndarray
    targets: np.ndarray
    mask: np.ndarray


def windows(values: np.ndarray, steps: int, horizon: int = 1, truth: np.ndarray | None = None) -> Windows:
    """Cut a series into all windows of T steps, each one row after the one before it.

    At each step the target is the value ``horizon`` rows later.  ``truth``, (N, C'), holds the targets where they are not the
    values themselves: the series before its gaps were filled, or without the channels of a mask.  Where a target is missing,
    mask and target are 0; elsewhere the mask is 1.
    Raises ArgumentError for fewer than T + ``horizon`` rows, and if ``truth`` has another number of rows.
    """
    values = _require_rows(values)
    steps, horizon = require_count("steps", steps), require_count("horizon", horizon)
    goals = values if truth is None else _require_rows(truth, "truth")
    if len(goals) != len(values):
        raise ArgumentError(f"truth has {len(goals)} rows; expected {len(values)}, as values have")
    number = len(values) - steps - horizon + 1
    if number < 1:
        raise ArgumentError(
            f"the series has {len(values)} rows; expected at least {steps + horizon} for steps {steps} + horizon {horizon}"
        )
    rows = np.arange(steps)[:, None] + np.arange(number)
    targets = goals[rows + horizon]
    mask = ~np.isnan(targets)
    return Windows(values[rows], np.where(mask, targets, 0.0), mask.astype(np.float64))


def rolling_origin(n: int, folds: int, test: int) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of (train, test) of each fold: the last ``folds`` x ``test`` rows are tested in order.

    A fold trains on all rows before those that it tests.  Raises ArgumentError for fewer than ``folds`` x ``test`` + 1 rows.
    """
    n, folds, test = require_count("n", n), require_count("folds", folds), require_count("test", test)
    first = n - folds * test
    if first < 1:
        raise ArgumentError(f"the series has {n} rows; expected at least {folds * test + 1} for {folds} folds x {test} + 1")
    return ((slice(0, start), slice(start, start + test)) for start in range(first, n, test))


def naive(values: np.ndarray, horizon: int = 1) -> np.ndarray:
    """Forecast each row as the last value observed ``horizon`` rows before it, (N, C); NaN where there is none."""
    return _later(_carried(_require_rows(values)), require_count("horizon", horizon))


def seasonal_naive(values: np.ndarray, period: int, horizon: int = 1) -> np.ndarray:
    """Forecast each row as the same time of the last season known ``horizon`` rows before it, (N, C).

    Where that value is missing, the season before it counts.  NaN where there is none.
    """
    values, period = _require_rows(values), require_count("period", period)
    seasons = -(-require_count("horizon", horizon) // period)
    known = np.empty_like(values)
    for phase in range(min(period, len(values))):
        known[phase::period] = _carried(values[phase::period])
    return _later(known, seasons * period)


def _later(values: np.ndarray, rows: int) -> np.ndarray:
    forecast = np.full_like(values, np.nan)
    forecast[rows:] = values[:-rows]
    return forecast
