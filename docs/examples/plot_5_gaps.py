"""
A series with gaps
==================

Weekly CO2 at Mauna Loa, 1958 to 2001, with 59 weeks missing: scaling, ways to fill the gaps, windows, and a forecast that
has to beat the simplest ones.
"""

import matplotlib.pyplot as plt
import numpy as np

import rnnbench
from rnnbench.data import fill, read_series, seasonal_naive, split_series
from rnnbench.models import Adam, ModelSpec, init_model_params, load_model
from rnnbench.training import Batch, cosine, fit

series = read_series("co2-sample")
values = series.values
print(series.names, len(values), "weeks,", series.missing, "of them missing")

# %%
# **Filling.** The last value, the mean or the median of the training part, or the last value with a second channel that says
# what was observed. The median is far off where the level rises; the last value is not. The test part must not leak into any
# of this: means and scales are those of the training part.

train, validation, test = split_series(len(values))
gap = slice(300, 345)
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for method, mark in (("last", "_"), ("median", "x")):
    axes.plot(range(len(values))[gap], fill(series, method, train_end=train.stop).values[gap, 0], mark, label=method)
axes.plot(range(len(values))[gap], values[gap, 0], "o", color="k", markersize=3, label="observed")
axes.set(xlabel="week", ylabel="CO2 (ppm)", title="Two ways to fill gaps")
axes.legend()
plt.show()

# %%
# **The task.** From 104 weeks to the value 13 weeks ahead. The model predicts the change from the last value, in units of the
# training part's changes, so the rising level is no problem. A target that is missing does not count: the mask is 0 there.

STEPS, AHEAD = 104, 13
filled = fill(series, "mask", train_end=train.stop).values
spread = np.nanstd(values[AHEAD : train.stop] - values[: train.stop - AHEAD])


def batch(ends: np.ndarray) -> Batch:
    rows = ends + np.arange(1 - STEPS, 1)[:, None]
    level = filled[rows, 0]
    inputs = np.stack([(level - level[0]) / spread, filled[rows, 1]], axis=-1)
    targets = (values[rows + AHEAD, 0] - level) / spread
    known = ~np.isnan(targets)
    return Batch(inputs.astype(np.float32), np.nan_to_num(targets).astype(np.float32)[..., None], known.astype(float))


starts = np.arange(STEPS - 1, train.stop - AHEAD)


def batch_of(step: int) -> Batch:
    return batch(np.random.default_rng([0, step]).choice(starts, 32, replace=False))


spec = ModelSpec(rnnbench.Spec("gru", input_size=2, hidden_size=32), outputs=1, loss="mse")
model = load_model(spec, init_model_params(spec, seed=0), "numba_cpu")
fitted = fit(model, Adam(model, rate=0.01, clip_norm=1.0), batch_of, 300, schedule=cosine(0.01, 300))

# %%
# **Is it any good?** Against what costs nothing: the value of today, and that of a year before the week asked for.

ends = np.arange(test.start - 1, test.stop - AHEAD)
forecast = filled[ends, 0] + model.forward(batch(ends).inputs)[0][-1, :, 0].astype(float) * spread
truth = values[ends + AHEAD, 0]
rivals = {
    "model": forecast,
    "value of today": filled[ends, 0],
    "a year before": seasonal_naive(values, series.period, AHEAD)[ends + AHEAD, 0],
}
for name, other in rivals.items():
    print(f"{name:<15} root mean square error {np.sqrt(np.nanmean((other - truth) ** 2)):.2f} ppm")

figure, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
weeks = ends[-156:] + AHEAD
axes.plot(weeks, truth[-156:], "k.", markersize=3, label="observed")
for name, dash in (("model", "-"), ("a year before", ":")):
    axes.plot(weeks, rivals[name][-156:], dash, label=name)
axes.set(xlabel="week", ylabel="CO2 (ppm)", title=f"Forecasts of {AHEAD} weeks ahead, the last three years")
axes.legend()
plt.show()

# %%
# ``rnnbench train forecast`` does the same for every horizon up to 13 at once, with intervals, on this or your own table.
