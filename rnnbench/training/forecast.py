"""Forecasts of several rows at once, with gaps and intervals, against the naive and the seasonal-naive forecast."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.data.forecasting import Scaler, fill, naive, seasonal_naive, split_series
from rnnbench.data.sequences import shuffled_batches
from rnnbench.data.series import Series, read_series
from rnnbench.data.smoothing import exponential_smoothing
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.models.model import Evaluation, Model
from rnnbench.models.spec import ModelSpec
from rnnbench.networks.spec import Spec
from rnnbench.text import printable
from rnnbench.training.config import Config, SeriesData
from rnnbench.training.loop import Batch, Batches

LEVELS = (80, 95)
"""Percentages of the intervals, from the validation part's residuals."""

SMOOTHING = "smoothing"
"""The name of exponential smoothing in tables."""

LARGEST = 256
"""Windows that are forecast at a time."""


class Forecast:
    """The task "forecast": from the last T rows to the next 1 to K rows of every channel.

    ``series``: another one than the config names.
    ``truth``: the series with its gaps, (N, C); what is missing there counts in no loss and no error.
    ``values``: the same with gaps treated; for "mask", C more channels tell what was observed.
    Scaling is measured on the training part alone.
    """

    def __init__(self, config: Config, series: Series | None = None) -> None:
        assert isinstance(config.data, SeriesData)
        data = self._data = config.data
        if series is None:
            series = read_series(data.name, data.path, data.columns, data.period)
        if data.missing == "drop":
            series = fill(series, "drop")
        self.names, self.period, self.missing = series.names, series.period, series.missing
        self.truth, self._series = series.values, series
        parts = self._parts = split_series(len(self.truth), data.parts)
        self.values = fill(series, data.missing, train_end=parts[0].stop).values
        self.channels = len(self.names)
        self.scaler = self._measured(self.values[parts[0], : self.channels])
        self._ends = [_ends(part, data.steps, data.horizon, place == 0) for place, part in enumerate(parts)]
        for name, ends, part in zip(("training", "validation", "test"), self._ends, parts, strict=True):
            if not len(ends):
                raise ArgumentError(
                    f"the {name} part has {part.stop - part.start} of {len(self.truth)} rows; expected more for "
                    f"data.steps {data.steps} and data.horizon {data.horizon}"
                )
        self._seed = config.seed
        model, self._dtype = config.model, config.model.dtype
        rnn = Spec(model.cell, self.values.shape[1], model.hidden, num_layers=model.layers, dtype=model.dtype)
        self.spec = ModelSpec(rnn, data.horizon * self.channels, loss="mse", dropout=model.dropout)
        self.facts = {"names": list(self.names), "scaler": [self.scaler.mean.tolist(), self.scaler.spread.tolist()]}

    def _measured(self, train: np.ndarray) -> Scaler:
        """The scale of levels, or, where windows are relative, of changes over the horizon."""
        if not self._data.relative:
            return Scaler.fit(train)
        rows = min(self._data.horizon, len(train) - 1)
        changes = Scaler.fit(train[rows:] - train[:-rows])
        return Scaler(np.zeros(self.channels), changes.spread)

    def batches(self, model: Model) -> Batches:
        ends, batch = self._ends[0], self._data.batch
        number = -(-len(ends) // batch)

        def batch_of(step: int) -> Batch:
            epoch, place = divmod(step, number)
            return self._batch(model, ends[shuffled_batches(len(ends), batch, self._seed, epoch)[place]])

        return batch_of

    def _batch(self, model: Model, ends: np.ndarray, last: bool = False) -> Batch:
        """The windows that end with these rows; with ``last`` only the forecast from their last row counts."""
        inputs, origins, _ = self._windows(model, ends)
        rows = self._rows(ends)
        goals = self.truth[rows[..., None] + np.arange(1, self._data.horizon + 1)]  # (T, B, K, C)
        known = ~np.isnan(goals)
        scaled = self._scaled_targets(np.where(known, goals, 0), origins)
        known[:-1] &= not last
        flat = (*rows.shape, -1)
        return Batch(inputs, np.where(known, scaled, 0).reshape(flat).astype(self._dtype), known.reshape(flat).astype(float))

    def _rows(self, ends: np.ndarray) -> np.ndarray:
        return ends + np.arange(1 - self._data.steps, 1)[:, None]

    def _windows(self, model: Model, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs (T, B, I), the values (T, B, C) that forecasts start from, and each window's zero (B, C)."""
        values = self.values[self._rows(ends)]
        channels, indicators = values[..., : self.channels], values[..., self.channels :]
        zero = np.broadcast_to(self.scaler.mean, channels.shape[1:])
        if self._data.relative:
            first = (~np.isnan(channels)).argmax(axis=0)
            zero = np.nan_to_num(np.take_along_axis(channels, first[None], axis=0)[0])
        if np.isnan(channels).any():
            channels = self._predicted(model, channels, zero)
        scaled = (channels - zero) / self.scaler.spread
        return np.concatenate([scaled, indicators], axis=-1).astype(self._dtype), channels, zero

    def _predicted(self, model: Model, values: np.ndarray, zero: np.ndarray) -> np.ndarray:
        """Fill gaps row by row with the model's forecast from the row before; in a first row with the window's zero."""
        filled, state, expected = values.copy(), None, zero
        for row in filled:
            np.copyto(row, expected, where=np.isnan(row))
            outputs, state = model.forward(((row - zero) / self.scaler.spread)[None].astype(self._dtype), state)
            expected = self._unscaled(outputs[0].astype(float), row)[:, 0]
        return filled

    def _scaled_targets(self, goals: np.ndarray, origins: np.ndarray) -> np.ndarray:
        zero = origins[..., None, :] if self._data.relative else self.scaler.mean
        return (goals - zero) / self.scaler.spread

    def _unscaled(self, outputs: np.ndarray, origins: np.ndarray) -> np.ndarray:
        """Outputs (B, K*C) as values (B, K, C)."""
        zero = origins[:, None] if self._data.relative else self.scaler.mean
        return outputs.reshape(len(outputs), -1, self.channels) * self.scaler.spread + zero

    def validate(self, model: Model) -> Evaluation:
        total, count = 0.0, 0.0
        for ends in _pieces(self._ends[1]):
            batch = self._batch(model, ends, last=True)
            assert batch.mask is not None
            if batch.mask.any():
                found = model.evaluate(batch.inputs, batch.targets, batch.mask)
                total, count = total + found.loss * found.count, count + found.count
        if not count:
            raise ArgumentError("the validation part has no value; expected at least one")
        return Evaluation(total / count, count, ())

    def forecast(self, model: Model, ends: np.ndarray) -> np.ndarray:
        """The next 1 to K rows after each of these rows, (len(ends), K, C), in the units of the series."""
        found = []
        for piece in _pieces(ends):
            inputs, origins, _ = self._windows(model, piece)
            outputs, _ = model.forward(inputs)
            found.append(self._unscaled(outputs[-1].astype(float), origins[-1]))
        return np.concatenate(found)

    def _goals(self, ends: np.ndarray, of: np.ndarray) -> np.ndarray:
        return next_rows(of, ends, self._data.horizon)

    def result(self, model: Model) -> dict[str, Any]:
        """Return errors on the test part by channel and horizon, with those of naive forecasts, and the intervals' coverage."""
        residuals = self._goals(self._ends[1], self.truth) - self.forecast(model, self._ends[1])
        ends = self._ends[2]
        goals = self._goals(ends, self.truth)
        baselines, left_out = self._baselines(ends)
        forecasts = {"model": self.forecast(model, ends)} | baselines
        known = np.all([~np.isnan(goals), *(~np.isnan(values) for values in forecasts.values())], axis=0)
        if not known.any(axis=0).all():
            raise ArgumentError("the test part has no value at some horizon; expected at least one")
        rmse = {name: _root_mean_square(values - goals, known).T.tolist() for name, values in forecasts.items()}
        return {
            "channels": list(self.names),
            "rows": len(self.truth),
            "missing": self.missing,
            "test_forecasts": len(ends),
            "rmse": rmse,
            "left_out": left_out,
            "coverage": {str(level): _coverage(residuals, goals - forecasts["model"], known, level) for level in LEVELS},
            "interval_width": {str(level): np.diff(_bounds(residuals, level), axis=0)[0].T.tolist() for level in LEVELS},
        }

    def _baselines(self, ends: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """Forecasts that a model has to beat, (len(ends), K, C), and why others are left out."""
        found = naive_forecasts(self.truth, self.period, ends, self._data.horizon)
        try:
            found[SMOOTHING] = exponential_smoothing(self._series, self._data.horizon, self._parts[0].stop)[ends]
        except (ArgumentError, MissingLibrary) as reason:
            return found, {SMOOTHING: str(reason)}
        return found, {}

    def summary(self, result: Mapping[str, Any]) -> str:
        names, horizon = list(result["rmse"]), self._data.horizon
        lines = [
            f"{result['rows']:,} rows, {result['missing']} with a missing value; "
            f"{result['test_forecasts']} forecasts of the test part",
        ]
        shown = sorted({1, 2, 4, 8, horizon, *range(13, horizon, 13)} & set(range(1, horizon + 1)))
        for place, channel in enumerate(result["channels"]):
            lines.append(f"RMSE of {printable(channel)} by rows ahead, and how many values the intervals hold:")
            titles = ("ahead", *names, *(f"{level}%" for level in LEVELS))
            lines.append("  ".join(f"{title:>{max(len(title), 8)}}" for title in titles))
            for k in shown:
                errors = [f"{result['rmse'][name][place][k - 1]:.3f}" for name in names]
                held = [f"{result['coverage'][str(level)][place][k - 1]:.0%}" for level in LEVELS]
                cells = zip((str(k), *errors, *held), titles, strict=True)
                lines.append("  ".join(f"{cell:>{max(len(title), 8)}}" for cell, title in cells))
        lines += [f"{name} is left out: {reason}" for name, reason in result["left_out"].items()]
        return "\n".join(lines)


def next_rows(values: np.ndarray, ends: np.ndarray, horizon: int) -> np.ndarray:
    """The next 1 to K rows after each of these rows, (len(ends), K, C)."""
    return values[ends[:, None] + np.arange(1, horizon + 1)]


def naive_forecasts(values: np.ndarray, period: int | None, ends: np.ndarray, horizon: int) -> dict[str, np.ndarray]:
    """The naive forecasts of ``next_rows`` by name; the seasonal one only for a series with a period."""
    ahead = range(1, horizon + 1)
    found = {"naive": np.stack([naive(values, k)[ends + k] for k in ahead], axis=1)}
    if period is not None:
        found["seasonal naive"] = np.stack([seasonal_naive(values, period, k)[ends + k] for k in ahead], axis=1)
    return found


def _ends(part: slice, steps: int, horizon: int, first: bool) -> np.ndarray:
    """The last rows of windows whose forecasts lie in a part; later parts may look back into the one before."""
    start = part.start + steps - 1 if first else max(part.start - 1, steps - 1)
    return np.arange(start, part.stop - horizon)


def _pieces(ends: np.ndarray) -> list[np.ndarray]:
    return [ends[start : start + LARGEST] for start in range(0, len(ends), LARGEST)]


def _root_mean_square(errors: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Over axis 0, where known: (K, C)."""
    return np.sqrt((np.where(known, errors, 0) ** 2).sum(axis=0) / known.sum(axis=0))


def _bounds(residuals: np.ndarray, level: int) -> np.ndarray:
    """The quantiles of residuals (N, K, C) between which ``level`` percent lie, (2, K, C)."""
    tail = (1 - level / 100) / 2
    return np.nanquantile(residuals, [tail, 1 - tail], axis=0)


def _coverage(residuals: np.ndarray, errors: np.ndarray, known: np.ndarray, level: int) -> list[list[float]]:
    """The fraction of errors within the bounds of the residuals, by channel and horizon."""
    low, high = _bounds(residuals, level)
    held = known & (errors >= low) & (errors <= high)
    return (held.sum(axis=0) / known.sum(axis=0)).T.tolist()
