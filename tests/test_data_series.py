"""Promises of rnnbench.data.series and forecasting: gaps stay gaps, errors name the cell, the test part stays unseen."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rnnbench import ArgumentError, MissingLibrary
from rnnbench.data import (
    Scaler,
    Series,
    fill,
    naive,
    read_series,
    rolling_origin,
    seasonal_naive,
    split_series,
    windows,
)

NAN = np.nan
few = settings(max_examples=60, deadline=None)
numbers = st.floats(-1e6, 1e6).map(lambda number: round(number, 3))


def series(*rows, names=None):
    values = np.array(rows, dtype=np.float64)
    return Series(values, names or tuple("abc"[: values.shape[1]]), tuple(range(len(values))))


def csv(folder, text):
    (folder / "x.csv").write_text(text, "utf-8")
    return folder / "x.csv"


def same(found, expected):
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float64))


def test_the_co2_sample_has_its_59_missing_weeks():
    co2 = read_series("co2-sample")
    assert (co2.values.shape, co2.values.dtype, co2.names, co2.period) == ((2284, 1), np.float64, ("co2",), 52)
    assert (co2.missing, len(co2)) == (59, 2284)
    assert (co2.index[0], co2.index[-1], co2.values[0, 0]) == (19580329, 20011229, 316.1)


@pytest.mark.parametrize(
    ("name", "shape", "period"), [("co2", (2284, 1), 52), ("sunspots", (309, 1), 11), ("weather", (1461, 4), 365)]
)
def test_the_series_of_other_packages_have_their_rows_and_seasons(name, shape, period):
    try:
        found = read_series(name)
    except MissingLibrary as error:
        pytest.skip(str(error))
    assert (found.values.shape, found.period) == (shape, period)


def test_a_csv_gives_its_columns_of_numbers_and_its_times(tmp_path):
    path = csv(tmp_path, "day,rain,wind,kind\n2020-01-01,1.5,,wet\n\n2020-01-02,NaN,-2e3,dry\n")
    found = read_series(path)
    same(found.values, [[1.5, NAN], [NAN, -2000]])
    assert (found.names, found.index, found.period) == (("rain", "wind"), ("2020-01-01", "2020-01-02"), None)
    chosen = read_series(path, columns=["wind"], period=7)
    assert (chosen.names, chosen.period) == (("wind",), 7)


def test_a_first_column_of_numbers_is_a_channel_unless_its_name_tells_when(tmp_path):
    when = read_series(csv(tmp_path, "year,a\n1700,1\n1701,2\n"))
    assert (when.names, when.index) == (("a",), (1700, 1701))
    channel = read_series(csv(tmp_path, "level,a\n1700,1\n1701,2\n"))
    assert (channel.names, channel.index) == (("level", "a"), (0, 1))
    assert read_series(csv(tmp_path, "year,a\n1700,1\n1701,2\n"), columns=["year"]).names == ("year",)


def test_parquet_gives_what_csv_gives(tmp_path):
    pandas = pytest.importorskip("pandas", exc_type=ImportError)
    pytest.importorskip("pyarrow", exc_type=ImportError)
    frame = pandas.DataFrame(
        {"when": pandas.to_datetime(["2020-01-01", "2020-01-02"]), "a": [1.5, None], "n": pandas.array([None, 3], "Int64")}
    )
    frame.to_parquet(tmp_path / "x.parquet")
    frame.set_index("when").to_parquet(tmp_path / "indexed.parquet")
    for name in ("x.parquet", "indexed.parquet"):
        found = read_series(tmp_path / name)
        same(found.values, [[1.5, NAN], [NAN, 3]])
        assert found.names == ("a", "n")
        assert found.index == ("2020-01-01 00:00:00", "2020-01-02 00:00:00")
    (tmp_path / "bad.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(ArgumentError, match=r"^bad\.parquet is no Parquet file: "):
        read_series(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("t,co2\n" + "1,2\n" * 15 + "1,abc\n", None, "x.csv, row 17, column co2: 'abc' is no number"),
        ("t,co2\n1,2\n\n\n1,abc\n", None, "x.csv, row 5, column co2: 'abc' is no number"),
        ("t,co2\n1,1_000\n1,2\n", None, "x.csv, row 2, column co2: '1_000' is no number"),
        ("t,a\n1,1\n1,inf\n", None, "x.csv, row 3, column a: 'inf' is not finite; expected a number, or nothing where it is "),
        ("t,a\n1,1\n1,2,3\n", None, "x.csv, row 3: 3 cells; expected 2, as in the header"),
        ("t,a,b\n1,1,2\n1,2,3\n", ["c"], "x.csv has no column 'c'; expected one of t, a, b"),
        ("t,a\n1,1\n1,2\n", [], "columns are (); expected at least one, all different"),
        ("t,a\n1,1\n", None, "x.csv has 1 row of values; expected at least 2"),
        ("t,a\n", None, "x.csv has 0 rows of values; expected at least 2"),
        ("", None, "x.csv is empty; expected a header and at least 2 rows"),
        ("t,a,a\n1,1,1\n1,1,1\n", None, "x.csv has several columns 'a'; expected different names"),
        ("t,a\nx,\ny,\n", ["a"], "x.csv, column a: every value is missing; expected at least one"),
        ("t,a\nx,y\ny,x\n", None, "x.csv has no column of numbers; its columns are t, a"),
        ('t,a\n1,"1\n', None, "x.csv is no CSV: unexpected end of data"),
    ],
)
def test_errors_of_a_csv_name_file_row_and_column(tmp_path, text, columns, message):
    with pytest.raises(ArgumentError, match=f"^{re.escape(message)}"):
        read_series(csv(tmp_path, text), columns=columns)


def test_names_that_are_no_series_name_those_there_are(tmp_path):
    with pytest.raises(ArgumentError, match=r"expected a path or one of co2, sunspots, weather, co2-sample$"):
        read_series("co3")
    with pytest.raises(ArgumentError, match="data set 'digits' is of kind sequences; expected one of co2, "):
        read_series("digits")
    (tmp_path / "x.csv").write_bytes(b"t,a\n1,\xff\n1,2\n")
    with pytest.raises(ArgumentError, match=r"^x\.csv is not text in UTF-8: invalid start byte at byte 6"):
        read_series(tmp_path / "x.csv")


GAPS = series([NAN, 1], [2, NAN], [NAN, 5], [6, 7], [NAN, 100])


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("drop", [[6, 7]]),
        ("last", [[2, 1], [2, 1], [2, 5], [6, 7], [6, 100]]),
        ("mean", [[4, 1], [2, 13 / 3], [4, 5], [6, 7], [4, 100]]),
        ("median", [[4, 1], [2, 5], [4, 5], [6, 7], [4, 100]]),
        ("mask", [[2, 1, 0, 1], [2, 1, 1, 0], [2, 5, 0, 1], [6, 7, 1, 1], [6, 100, 0, 1]]),
        ("model", GAPS.values),
    ],
)
def test_each_method_fills_gaps_as_it_says(method, expected):
    before = GAPS.values.copy()
    same(fill(GAPS, method, train_end=4).values, expected)
    same(GAPS.values, before)


def test_filling_keeps_times_and_names_the_channels_of_a_mask():
    assert fill(GAPS, "drop").index == (3,)
    assert fill(GAPS, "mask").names == ("a", "b", "a observed", "b observed")
    assert fill(GAPS, "last").index == GAPS.index


def test_filling_refuses_what_it_cannot_do():
    for arguments, message in {
        ("zero",): "method is 'zero'; expected one of drop, last, mean, median, mask, model",
        ("mean",): "train_end is None for method 'mean'; expected the number of rows of the training part",
        ("last", 1): "channel a has no value in the first 1 rows; expected at least one",
        ("last", 0): "train_end is 0; expected an integer >= 1",
    }.items():
        with pytest.raises(ArgumentError, match=f"^{re.escape(message)}$"):
            fill(GAPS, *arguments)
    with pytest.raises(ArgumentError, match=r"^method 'drop' leaves no row of 2;"):
        fill(series([NAN, 1], [1, NAN]), "drop")


@few
@given(arrays(np.float64, (12, 2), elements=numbers), arrays(np.float64, (4, 2), elements=numbers), st.data())
def test_nothing_of_the_training_part_moves_with_the_test_part(values, other, data):
    values[data.draw(st.lists(st.integers(1, 11), max_size=6)), 0] = NAN
    changed = np.vstack([values[:8], other])
    train, test = split_series(12, (8 / 12, 4 / 12))
    for method in ("last", "mean", "median", "mask"):
        scaled = []
        for version in (values, changed):
            filled = fill(series(*version), method, train_end=train.stop).values
            scaled.append(Scaler.fit(filled[train]).transform(filled))
        np.testing.assert_array_equal(scaled[0][train], scaled[1][train])
    assert (train.stop, test) == (8, slice(8, 12))


@few
@given(arrays(np.float64, (9, 3), elements=numbers))
def test_scaling_gives_mean_0_and_deviation_1_and_is_undone(values):
    values[0] = NAN
    scaler = Scaler.fit(values)
    scaled = scaler.transform(values)
    np.testing.assert_allclose(scaler.inverse(scaled), values, rtol=1e-9, atol=1e-6)
    for channel in range(3):
        inside = scaled[1:, channel]
        if np.ptp(values[1:, channel]) > 1:
            np.testing.assert_allclose([inside.mean(), inside.std()], [0, 1], atol=1e-6)
        elif np.ptp(values[1:, channel]) == 0:
            np.testing.assert_allclose(inside, 0, atol=1e-6)


def test_constant_channels_are_shifted_only_and_indicators_may_stay():
    scaler = Scaler.fit(np.array([[0.1, 5, 1], [0.1, 7, 1], [0.1, 9, 0]]), unscaled=1)
    assert (scaler.spread[0], scaler.spread[2], scaler.mean[2]) == (1, 1, 0)
    same(scaler.transform(np.array([[1.1, 7, 1]])).round(12), [[1, 0, 1]])
    with pytest.raises(ArgumentError, match=r"^channel 1 has no value in 2 rows; expected at least one$"):
        Scaler.fit(np.array([[1, NAN], [2, NAN]]))
    with pytest.raises(ArgumentError, match=re.escape("values have shape (3,); expected (N, C), not empty")):
        Scaler.fit(np.arange(3.0))


@few
@given(st.integers(2, 40), st.integers(1, 8), st.integers(1, 5))
def test_the_target_of_each_step_lies_horizon_rows_later(n, steps, horizon):
    values = np.stack([np.arange(n), 100 + np.arange(n)], 1).astype(float)
    if n < steps + horizon:
        with pytest.raises(ArgumentError, match=f"the series has {n} rows; expected at least {steps + horizon} for steps"):
            windows(values, steps, horizon)
        return
    x, targets, mask = windows(values, steps, horizon)
    assert x.shape == targets.shape == mask.shape == (steps, n - steps - horizon + 1, 2)
    np.testing.assert_array_equal(targets, x + horizon)
    np.testing.assert_array_equal(x[0, :, 0], np.arange(x.shape[1]))
    assert mask.all()


def test_missing_targets_are_masked_and_may_come_from_before_the_filling():
    gaps = series([1.0], [NAN], [3.0], [4.0])
    filled = fill(gaps, "mask")
    x, targets, mask = windows(filled.values, 2, truth=gaps.values)
    assert x.shape == (2, 2, 2)
    same(x[:, :, 0], [[1, 1], [1, 3]])
    same(targets[:, :, 0], [[0, 3], [3, 4]])
    same(mask[:, :, 0], [[0, 1], [1, 1]])
    same(windows(gaps.values, 2).mask[:, :, 0], [[0, 1], [1, 1]])
    with pytest.raises(ArgumentError, match=r"^truth has 3 rows; expected 4, as values have$"):
        windows(filled.values, 2, truth=gaps.values[:3])


@few
@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 9))
def test_training_always_precedes_the_test(n, folds, test):
    if n < folds * test + 1:
        with pytest.raises(ArgumentError, match=f"the series has {n} rows; expected at least {folds * test + 1} for"):
            rolling_origin(n, folds, test)
        return
    found = list(rolling_origin(n, folds, test))
    assert len(found) == folds
    tested = [row for _, rows in found for row in range(n)[rows]]
    assert tested == list(range(n - folds * test, n))
    for train, rows in found:
        assert list(range(n)[train]) == list(range(rows.start))
        assert rows.start > 0


def test_the_naive_forecast_is_the_last_value_known():
    values = np.array([[1, NAN, 3, 4, 5]]).T
    same(naive(values), [[NAN], [1], [1], [3], [4]])
    same(naive(values, 3), [[NAN], [NAN], [NAN], [1], [1]])
    same(naive(values, 9), [[NAN]] * 5)


def test_the_seasonal_forecast_is_the_last_known_value_of_the_same_time():
    values = np.array([[1, 2, 3, NAN, 5, 6, 7]]).T
    same(seasonal_naive(values, 2), [[NAN], [NAN], [1], [2], [3], [2], [5]])
    same(seasonal_naive(values, 2, horizon=3), [[NAN], [NAN], [NAN], [NAN], [1], [2], [3]])


@few
@given(arrays(np.float64, (15, 1), elements=numbers), st.integers(1, 5), st.integers(1, 5))
def test_forecasts_see_nothing_within_their_horizon(values, period, horizon):
    changed = values.copy()
    changed[10:] += 1
    for forecast in (naive, lambda v, h: seasonal_naive(v, period, h)):
        np.testing.assert_array_equal(forecast(values, horizon)[: 10 + horizon], forecast(changed, horizon)[: 10 + horizon])
