"""Exponential smoothing: its recursion is statsmodels' own, gaps leave the state alone, what is missing is said."""

import sys

import numpy as np
import pytest
from helpers.tiny_training import tiny

from rnnbench.data import Series, exponential_smoothing
from rnnbench.data.smoothing import _Smoother
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.models import init_model_params, load_model
from rnnbench.training.forecast import Forecast


def series(values: np.ndarray, period: int | None = None) -> Series:
    return Series(values, tuple(f"c{i}" for i in range(values.shape[1])), tuple(range(len(values))), period)


def drifting(rows: int = 120) -> np.ndarray:
    """A season of 4 rows on a level whose trend drifts."""
    rng = np.random.default_rng(0)
    trend = np.cumsum(rng.standard_normal(rows) * 0.2)
    return np.cumsum(trend) + 3 * np.tile([1.0, 0, -1, 0], rows // 4) + rng.standard_normal(rows) * 0.1


def test_a_line_with_a_season_is_forecast_exactly_whatever_the_weights_and_the_gaps():
    season = (3.0, -1.0, -2.0)
    values = 5 + 0.5 * np.arange(1, 41) + np.resize(season, 40)
    smoother = _Smoother(0.3, 0.2, 0.1, 5.0, 0.5, season)
    gaps = values[:30].copy()
    gaps[[4, 5, 17]] = np.nan
    for given in (values[:30], gaps):
        found = smoother.forecasts(given, 7)
        wanted = values[np.arange(30)[:, None] + np.arange(1, 8)]
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_a_level_moves_by_its_weight_and_a_gap_leaves_it():
    found = _Smoother(0.25, 0.0, 0.0, 1.0, 0.0, (0.0,)).forecasts(np.array([5.0, np.nan, 2.0]), 2)
    assert found.tolist() == [[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]


@pytest.mark.parametrize("period", [None, 4])
def test_the_recursion_is_that_of_statsmodels(period):
    holtwinters = pytest.importorskip("statsmodels.tsa.holtwinters", reason="statsmodels is not installed")
    values = drifting()
    season = {} if period is None else {"seasonal": "add", "seasonal_periods": period}
    theirs = holtwinters.ExponentialSmoothing(values, trend="add", initialization_method="heuristic", **season).fit()
    assert theirs.params["smoothing_trend"] > 0.01
    found = exponential_smoothing(series(values[:, None], period), 5, len(values))
    assert found.shape == (120, 5, 1)
    np.testing.assert_allclose(found[:-1, 0, 0], theirs.fittedvalues[1:], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found[-1, :, 0], theirs.forecast(5), rtol=0, atol=1e-9)


def test_nothing_after_the_training_part_reaches_earlier_forecasts():
    pytest.importorskip("statsmodels", reason="statsmodels is not installed")
    values = drifting()[:, None]
    later = values.copy()
    later[80:] = 1e6
    found, other = (exponential_smoothing(series(v, 4), 3, 80) for v in (values, later))
    assert np.array_equal(found[:80], other[:80])


def test_without_statsmodels_a_forecast_says_what_is_left_out_and_why(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsmodels.tsa.holtwinters", None)
    with pytest.raises(MissingLibrary, match=r"^exponential smoothing needs statsmodels: pip install .*\[data\]"):
        exponential_smoothing(series(drifting()[:, None]), 3, 80)
    task = Forecast(tiny(tmp_path, "forecast"))
    result = task.result(load_model(task.spec, init_model_params(task.spec, 0), "numpy_ref"))
    assert result["rmse"].keys() == {"model", "naive", "seasonal naive"}
    assert "\nsmoothing is left out: exponential smoothing needs statsmodels: pip install" in task.summary(result)


def test_too_short_a_training_part_is_refused():
    with pytest.raises(ArgumentError, match="the training part has 9 rows; expected at least 10 for exponential smoothing"):
        exponential_smoothing(series(drifting()[:, None]), 3, 9)
