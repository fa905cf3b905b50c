"""Curves over sequence length, hidden size and truncation window, one panel per cell, logarithmic on both axes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import altair as alt
import pandas as pd

from rnnbench.reports.chart import AltairChart, Chart, Inputs, filled_by
from rnnbench.reports.encodings import BY_CELL, backend_params, backend_scales, distinct_values, log_ticks, log_x, log_y, lookup

_STEP = "{} / datum.T * 1e6"


class Curve(NamedTuple):
    """Axes of one chart over ``field``; ``value``, ``low`` and ``high`` are Vega expressions over a row."""

    field: str
    x_title: str
    y_title: str = "µs per time step"
    value: str = _STEP.format("datum.seconds")
    low: str | None = _STEP.format("datum.low")
    high: str | None = _STEP.format("datum.high")
    phase: str | None = None


def _of_curve(
    curve: Curve,
    name: str,
    title: str,
    caption: str,
    section: str,
    suite: str,
    applies: Callable[[Inputs], bool],
    *,
    fitted: bool = True,
) -> Chart:
    return Chart(
        name,
        title,
        caption,
        section,
        "times",
        functools.partial(_draw, curve),
        applies,
        filled_by(suite),
        sweep=curve.field,
        phase=curve.phase,
        fitted=fitted,
    )


def _timed(field: str, inputs: Inputs) -> bool:
    return not inputs.measured.empty and inputs.swept(field)


def _stored_for_windows(column: str, inputs: Inputs) -> bool:
    return inputs.swept("window") and bool(inputs.data.truncation[column].notna().any())


def _draw(curve: Curve, inputs: Inputs) -> AltairChart:
    """One line per backend, with the interval of each point where the curve has one."""
    data, backends, measured = inputs.data, inputs.backends, inputs.measured
    measured = measured[measured["phase"] == curve.phase] if curve.phase else measured
    values = measured["peak_bytes"] / 1e6 if curve.low is None else measured["step_seconds"] * 1e6
    x = log_x(curve.field, curve.x_title, distinct_values(data, curve.field))
    y = log_y(curve.y_title, ticks=log_ticks(values.min(), values.max()))
    scales = backend_scales(data, backends)
    base = alt.Chart().encode(x=x, color=scales["color"])
    layers = [
        base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=scales["strokeDash"]),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            y=y,
            shape=scales["shape"],
            tooltip=[
                alt.Tooltip("label:N", title="case"),
                alt.Tooltip("backend:N"),
                alt.Tooltip("value:Q", title=curve.y_title, format=".4~g"),
                *(
                    [alt.Tooltip("from:Q", title="interval from", format=".4~g"), alt.Tooltip("to:Q", format=".4~g")]
                    if curve.low
                    else []
                ),
            ],
        ),
    ]
    calculated = {"value": curve.value}
    if curve.low and curve.high:
        calculated |= {"from": curve.low, "to": curve.high}
        layers.insert(1, base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("from:Q", title=curve.y_title), y2="to:Q"))
    return (
        alt.layer(*layers, width=300, height=230, data=alt.NamedData("times"))
        .facet(BY_CELL, columns=3)
        .transform_filter("datum.status === 'measured'")
        .transform_calculate(**calculated)
        .transform_filter("isValid(datum.value) && datum.value > 0")
        .add_params(lookup("cells", data.cases["cell"]), *backend_params(data, backends))
    )


def _draw_errors(inputs: Inputs) -> AltairChart:
    """The gradient's relative error over the window; exact zeros stand apart, at the bottom."""
    data = inputs.data
    errors = data.truncation["relative_error"].dropna()
    positive = errors[errors > 0]
    floor = float(positive.min()) / 5 if len(positive) else 1e-16
    x = log_x("window", "window", distinct_values(data, "window"))
    y = log_y("relative gradient error", "drawn:Q", ticks=_error_ticks(floor, positive))
    tooltip = [alt.Tooltip("window:Q"), alt.Tooltip("relative_error:Q", format=".3~g"), alt.Tooltip("label:N", title="case")]
    base = alt.Chart().encode(x=x, y=y, tooltip=tooltip)
    at_zero = base.transform_filter("datum.relative_error === 0")
    above_zero = base.transform_filter("datum.relative_error > 0")
    return (
        alt.layer(
            above_zero.mark_line(strokeWidth=1.8),
            above_zero.mark_point(filled=True, size=55, opacity=1),
            at_zero.mark_point(filled=False, size=55, opacity=1),
            at_zero.mark_text(text="0: full BPTT", dx=-8, dy=1, align="right", fontSize=11),
            width=300,
            height=230,
            data=alt.NamedData("times"),
        )
        .facet(BY_CELL, columns=3)
        .transform_filter("isValid(datum.relative_error)")
        .transform_aggregate(groupby=["case", "cell_order", "window", "relative_error", "label"], backends="count()")
        .transform_calculate(drawn=f"max(datum.relative_error, {floor!r})")
        .add_params(lookup("cells", data.cases["cell"]), lookup("backends", data.backends))
    )


def _error_ticks(floor: float, positive: pd.Series) -> list[float]:
    return log_ticks(floor, positive.max()) if len(positive) else []


_INTERVALS = "Bars are intervals of the median over rounds (95% from 6 rounds on), often smaller than the mark. "
_WINDOW = Curve("window", "window", phase="tbptt")

LENGTH = _of_curve(
    Curve("T", "sequence length T"),
    name="length",
    title="Time per step over T",
    caption=_INTERVALS + "On a flat line, time is proportional to T.",
    section="length",
    suite="sequence-length",
    applies=functools.partial(_timed, "T"),
)
HIDDEN = _of_curve(
    Curve("H", "hidden size H"),
    name="hidden",
    title="Time per step over H",
    caption=_INTERVALS + "The matrix products grow with H (I + H).",
    section="hidden",
    suite="hidden-size",
    applies=functools.partial(_timed, "H"),
)
WINDOW_TIME = _of_curve(
    _WINDOW,
    name="window_time",
    title="Truncation window: time",
    caption="Time that a shorter window saves or costs. Always shows the phase tbptt.",
    section="window",
    suite="truncation",
    applies=functools.partial(_timed, "window"),
)
WINDOW_ERROR = Chart(
    name="window_error",
    title="Truncation window: error",
    caption=(
        "Error that truncation adds: the norm of (truncated - full gradient) over the norm of the full gradient. It follows "
        "from the mathematics, is the same for all backends, and is computed with initial weights. At 1 the error is as large "
        "as the gradient."
    ),
    section="window",
    dataset="times",
    draw=_draw_errors,
    applies=functools.partial(_stored_for_windows, "relative_error"),
    missing=filled_by("truncation"),
    sweep="window",
    phase="tbptt",
)
WINDOW_MEMORY = _of_curve(
    _WINDOW._replace(y_title="peak memory, MB", value="datum.peak_bytes / 1e6", low=None, high=None),
    name="window_memory",
    title="Truncation window: memory",
    caption="Memory that truncation saves: the peak of one call above the loaded network.",
    section="window",
    suite="truncation",
    applies=functools.partial(_stored_for_windows, "peak_bytes"),
    fitted=False,
)
