"""Exponential smoothing, the textbook forecast of level, trend and season, with weights that statsmodels fits."""

import warnings
from dataclasses import dataclass

import numpy as np

from rnnbench.data.forecasting import fill
from rnnbench.data.positions import require_count
from rnnbench.data.series import Series
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.installing import how_to_install

LEAST = 10
"""Fewest rows from which statsmodels estimates where level and trend begin."""


def exponential_smoothing(series: Series, horizon: int, train_end: int) -> np.ndarray:
    """Forecast the next 1 to ``horizon`` rows after each row, (N, K, C), by level + trend + season, all additive.

    Weights and the state before the first row are fitted on the first ``train_end`` rows, with gaps filled by the last value;
    after that each observed row moves the state, and a missing one leaves it to the forecast.  There is a season where the
    series has a ``period`` that fits twice into these rows.
    Raises MissingLibrary without statsmodels, and ArgumentError for fewer than 10 rows.
    Holt 1957; Winters 1960, "Forecasting sales by exponentially weighted moving averages".
    """
    horizon, train_end = require_count("horizon", horizon), require_count("train_end", train_end)
    if train_end < LEAST:
        raise ArgumentError(f"the training part has {train_end} rows; expected at least {LEAST} for exponential smoothing")
    filled = fill(series, "last").values[:train_end]
    period = series.period if series.period and 1 < series.period <= train_end // 2 else None
    smoothers = [_fitted(filled[:, channel], period) for channel in range(filled.shape[1])]
    forecasts = [one.forecasts(series.values[:, channel], horizon) for channel, one in enumerate(smoothers)]
    return np.stack(forecasts, axis=-1)


@dataclass(frozen=True)
class _Smoother:
    """Weights of one channel, and its state before the first row; ``seasons``: of a whole season, in order."""

    of_level: float
    of_trend: float
    of_season: float
    level: float
    trend: float
    seasons: tuple[float, ...]

    def forecasts(self, values: np.ndarray, horizon: int) -> np.ndarray:
        """(N, K)"""
        level, trend, seasons = self.level, self.trend, list(self.seasons)
        found, ahead = np.empty((len(values), horizon)), np.arange(1, horizon + 1)
        for row, value in enumerate(values):
            place = row % len(seasons)
            before, season = level + trend, seasons[place]
            error = 0.0 if np.isnan(value) else value - before - season
            new = before + self.of_level * error
            seasons[place] = season + self.of_season * error
            level, trend = new, trend + self.of_trend * (new - before)
            found[row] = level + ahead * trend + np.take(seasons, row + ahead, mode="wrap")
        return found


def _fitted(values: np.ndarray, period: int | None) -> _Smoother:
    try:
        from statsmodels.tsa.holtwinters import ExponentialSmoothing  # type: ignore[import-not-found]  # an extra
    except ImportError:
        raise MissingLibrary(f"exponential smoothing needs statsmodels: {how_to_install('data')}") from None
    season = {} if period is None else {"seasonal": "add", "seasonal_periods": period}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an optimum at the edge, such as a trend that never changes
        found = ExponentialSmoothing(values, trend="add", initialization_method="heuristic", **season).fit().params
    numbers = (found[f"smoothing_{name}"] for name in ("level", "trend", *(("seasonal",) if period else ())))
    of_level, of_trend, of_season = (*numbers, 0.0)[:3]
    seasons = tuple(map(float, found["initial_seasons"])) if period else (0.0,)
    starts = float(found["initial_level"]), float(found["initial_trend"])
    return _Smoother(float(of_level), float(of_trend), float(of_season), *starts, seasons)
