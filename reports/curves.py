"""Curves over sequence length, hidden size and truncation window, one panel per cell, logarithmic on both axes."""

from typing import NamedTuple

import altair as alt

from rnnbench.reports.encodings import BY_CELL, Picture, decades, log_x, log_y, lookup, of_backends, scales, values_of
from rnnbench.reports.frames import Frames


class Curve(NamedTuple):
    """One picture over ``field``: ``value``, ``low`` and ``high`` are Vega expressions over a row."""

    name: str
    title: str
    caption: str
    field: str
    x_title: str
    y_title: str
    value: str
    low: str | None
    high: str | None
    phase: str | None = None


_STEP = "{} / datum.T * 1e6"
_INTERVALS = "Bars: intervals of the median over rounds, of 95% from 6 rounds on, often smaller than the mark. "
LENGTH = Curve(
    "length", "Time per step over T", _INTERVALS + "A flat line means that time grows in proportion to T.",
    "T", "sequence length T", "µs per time step",
    _STEP.format("datum.seconds"), _STEP.format("datum.low"), _STEP.format("datum.high"),
)  # fmt: skip
HIDDEN = LENGTH._replace(
    name="hidden",
    title="Time per step over H",
    caption=_INTERVALS + "The matrix products grow with H (I + H).",
    field="H",
    x_title="hidden size H",
)
WINDOW_TIME = LENGTH._replace(
    name="window_time",
    title="Truncation window: time",
    caption="What a shorter window costs or saves in time (phase tbptt, whatever phase is picked above).",
    field="window",
    x_title="window",
    phase="tbptt",
)
WINDOW_MEMORY = WINDOW_TIME._replace(
    name="window_memory",
    title="Truncation window: memory",
    caption="Peak memory of one call above the loaded network: what truncation buys.",
    y_title="peak memory, MB",
    value="datum.peak_bytes / 1e6",
    low=None,
    high=None,
)


def curves(data: Frames, backends: list[str], line: Curve) -> Picture:
    """One line per backend, with the interval of each point where the curve has one."""
    measured = data.summary[data.summary["status"] == "measured"]
    measured = measured[measured["phase"] == line.phase] if line.phase else measured
    values = measured["peak_bytes"] / 1e6 if line.low is None else measured["step_seconds"] * 1e6
    x = log_x(line.field, line.x_title, values_of(data, line.field))
    y = log_y(line.y_title, ticks=decades(values.min(), values.max()))
    of_backend = scales(data, backends)
    base = alt.Chart().encode(x=x, color=of_backend["color"])
    layers = [
        base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=of_backend["strokeDash"]),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            y=y,
            shape=of_backend["shape"],
            tooltip=[
                alt.Tooltip("label:N", title="case"),
                alt.Tooltip("backend:N"),
                alt.Tooltip("value:Q", title=line.y_title, format=".4~g"),
                *(
                    [alt.Tooltip("from:Q", title="interval from", format=".4~g"), alt.Tooltip("to:Q", format=".4~g")]
                    if line.low
                    else []
                ),
            ],
        ),
    ]
    calculated = {"value": line.value}
    if line.low and line.high:
        calculated |= {"from": line.low, "to": line.high}
        layers.insert(1, base.mark_rule(strokeWidth=1.5).encode(y=alt.Y("from:Q", title=line.y_title), y2="to:Q"))
    chart = (
        alt.layer(*layers, width=300, height=230, data=alt.NamedData("times"))
        .facet(BY_CELL, columns=3)
        .transform_filter("datum.status === 'measured'")
        .transform_calculate(**calculated)
        .transform_filter("isValid(datum.value) && datum.value > 0")
        .add_params(lookup("cells", data.cases["cell"]), *of_backends(data, backends))
    )
    return Picture(line.name, line.title, line.caption, "times", chart, sweep=line.field, phase=line.phase)


def window_error(data: Frames) -> Picture:
    """The gradient's relative error over the window; exact zeros stand apart, at the bottom."""
    errors = data.truncation["relative_error"].dropna()
    positive = errors[errors > 0]
    floor = float(positive.min()) / 5 if len(positive) else 1e-16
    x = log_x("window", "window", values_of(data, "window"))
    y = log_y("relative gradient error", "drawn:Q", ticks=decades(floor, positive.max()) if len(positive) else [])
    tooltip = [alt.Tooltip("window:Q"), alt.Tooltip("relative_error:Q", format=".3~g"), alt.Tooltip("label:N", title="case")]
    base = alt.Chart().encode(x=x, y=y, tooltip=tooltip)
    zero = base.transform_filter("datum.relative_error === 0")
    positive_part = base.transform_filter("datum.relative_error > 0")
    chart = (
        alt.layer(
            positive_part.mark_line(strokeWidth=1.8),
            positive_part.mark_point(filled=True, size=55, opacity=1),
            zero.mark_point(filled=False, size=55, opacity=1),
            zero.mark_text(text="0: full BPTT", dx=-8, dy=1, align="right", fontSize=11),
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
    caption = (
        "Norm of (truncated minus full gradient) over norm of the full one: what truncation costs. "
        "A property of the mathematics, the same for all backends, with the weights that training starts from; at 1 the "
        "gradient is wrong by its own size."
    )
    return Picture("window_error", "Truncation window: error", caption, "times", chart, sweep="window", phase="tbptt")
