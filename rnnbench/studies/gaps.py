"""How the error of forecasts grows with the share of values that are missing, for each way to fill gaps."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnbench.compare.intervals import median_interval
from rnnbench.data.forecasting import FILLS, split_series
from rnnbench.data.series import Series, read_series
from rnnbench.errors import ArgumentError
from rnnbench.models.model import Model
from rnnbench.studies.study import Curve, Report, Study, frame, new_model, require_seeds, settings_of, summarised
from rnnbench.training.config import Config, SeriesData
from rnnbench.training.forecast import Forecast, naive_forecasts, next_rows
from rnnbench.training.loop import fit
from rnnbench.training.run import optimiser_of, schedule_of

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.0, 0.05, 0.1, 0.2, 0.4)


def study_missing_values(
    config: Config,
    *,
    shares: Sequence[float] = SHARES,
    methods: Sequence[str] = FILLS,
    seeds: int = 6,
    report: Report | None = None,
) -> Study:
    """Remove values of a series at random, train a forecast with each way to fill gaps, and measure its error.

    ``config``: of the task "forecast"; its ``data.missing`` is replaced.  ``shares``: of values that are removed, from all
    parts, beside those that are missing anyway.  A seed decides what is removed, and the initial parameters.
    The error is that of the parameters after the last step, on the test part, against the series as it was before values
    were removed: all methods forecast the same rows.  With "drop" a model sees the last T rows that are left.

    Columns: ``share``; ``method``, with "naive" and "seasonal naive" for comparison; ``rmse`` over 1 to K rows ahead and all
    channels, with its interval over seeds.  Raises ArgumentError and MissingLibrary.
    """
    if config.task != "forecast":
        raise ArgumentError(f"task is {config.task!r}; expected 'forecast', of which missing values are studied")
    if not shares or not all(0 <= share < 1 for share in shares):
        raise ArgumentError(f"shares are {list(shares)}; expected numbers from 0 to below 1")
    if unknown := [method for method in methods if method not in FILLS]:
        raise ArgumentError(f"method is {unknown[0]!r}; expected one of {', '.join(FILLS)}")
    frame(())
    data = config.data
    assert isinstance(data, SeriesData)
    whole = read_series(data.name, data.path, data.columns, data.period)
    rows: list[dict[str, Any]] = []
    total = len(shares) * len(methods) * require_seeds(seeds)
    for share in shares:
        for seed in range(config.seed, config.seed + seeds):
            damaged = without(whole, share, seed)
            ends = _ends(whole, damaged, data)
            goals = next_rows(whole.values, ends, data.horizon)
            for name, forecast in naive_forecasts(damaged.values, damaged.period, ends, data.horizon).items():
                rows.append({"share": share, "method": name, "seed": seed, "rmse": _error(forecast, goals)})
            for method in methods:
                own = replace(config, seed=seed, data=replace(data, missing=method))
                rmse = _error(_forecast(own, damaged, ends), goals)
                rows.append({"share": share, "method": method, "seed": seed, "rmse": rmse})
                done = sum(row["method"] in methods for row in rows)
                if report is not None:
                    report(done, total, f"{share:.0%} removed, {method}: error {rmse:.3f}")
    order = [*methods, "naive", "seasonal naive"]
    rows.sort(key=lambda row: (order.index(row["method"]), row["share"], row["seed"]))
    runs = frame(rows)
    table = summarised(runs, ("share", "method"), "rmse")
    settings = settings_of(config, seeds=seeds, shares=list(shares), methods=list(methods))
    return Study("missing-values", "What missing values cost", conclusion(runs, methods), runs, table, CURVES, settings)


def conclusion(runs: "pd.DataFrame", methods: Sequence[str]) -> str:
    """The method with the lowest error at the largest share, the one with the highest, and both without anything removed."""
    medians = runs.groupby(["method", "share"])["rmse"].median()
    most, least = runs["share"].max(), runs["share"].min()
    ordered = sorted(methods, key=lambda method: medians[method, most])
    best, worst = ordered[0], ordered[-1]
    text = f'With {most:.0%} of the values removed, "{best}" has the lowest error, {medians[best, most]:.3f}'
    if near := [other for other in ordered[1:] if not _clearly_lower(runs[runs["share"] == most], best, other)]:
        text += f" (not clearly below {', '.join(near)})"
    if worst != best:
        text += f', and "{worst}" the highest, {medians[worst, most]:.3f}'
    if least < most:
        before = " and ".join(f"{medians[method, least]:.3f}" for method in dict.fromkeys((best, worst)))
        text += f"; with {least:.0%} removed the error is {before}"
    return f"{text}; the naive forecast has {medians['naive', most]:.3f}."


def _clearly_lower(runs: "pd.DataFrame", one: str, other: str) -> bool:
    """Whether the interval of the differences over seeds lies on one side."""
    of = runs.set_index(["method", "seed"])["rmse"]
    return median_interval(of[other] - of[one]).low > 0


def without(series: Series, share: float, seed: int) -> Series:
    """The series with a share of its values removed, the same values for the same seed; the first row keeps its own."""
    gone = np.random.default_rng([seed, 11]).random(series.values.shape) < share
    gone[0] = False
    return replace(series, values=np.where(gone, np.nan, series.values))


def _ends(whole: Series, damaged: Series, data: SeriesData) -> np.ndarray:
    """The rows that forecasts start from: of the test part, also where rows with a missing value are dropped first."""
    left = _kept(damaged)
    start = max(split_series(len(whole), data.parts)[2].start, int(left[split_series(len(left), data.parts)[2].start]))
    ends = np.arange(start - 1, len(whole) - data.horizon)
    if not len(ends):
        raise ArgumentError(f"the test part has less than data.horizon, {data.horizon}, rows; expected a longer series")
    return ends


def _kept(series: Series) -> np.ndarray:
    return np.flatnonzero(~np.isnan(series.values).any(axis=1))


def _forecast(config: Config, damaged: Series, ends: np.ndarray) -> np.ndarray:
    """Train, and forecast the next rows after each of these rows of the series."""
    task = Forecast(config, damaged)
    model = new_model(task.spec, config, config.seed)
    steps, truncation = config.training.steps, config.truncation
    options: dict[str, Any] = {"seed": config.seed, "window": truncation.window, "stride": truncation.stride}
    fit(model, optimiser_of(config, model), task.batches(model), steps, schedule=schedule_of(config, steps), **options)
    rows = _kept(damaged) if len(task.truth) < len(damaged) else np.arange(len(damaged))
    return _forecast_from(task, model, np.searchsorted(rows, ends, side="right") - 1)


def _forecast_from(task: Forecast, model: Model, rows: np.ndarray) -> np.ndarray:
    found, place = np.unique(rows, return_inverse=True)
    return task.forecast(model, found)[place]


def _error(forecast: np.ndarray, goals: np.ndarray) -> float:
    return float(np.sqrt(np.nanmean((forecast - goals) ** 2)))


CURVES = (
    Curve(
        "Error of forecasts over the share of values removed",
        "Median over seeds of the root mean square error on the test part, with its interval.",
        *("share", "rmse", "method", "rmse_low", "rmse_high"),
        log_y=True,
    ),
)
