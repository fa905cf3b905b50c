"""Dot plots: error over tolerance per tensor, and the time of each stage of start-up."""

import math

import altair as alt

from rnnbench.reports.chart import AltairChart, Chart, Inputs, filled_by
from rnnbench.reports.encodings import NUMBER, OFFSET, backend_params, backend_scales, lookup, row_height
from rnnbench.reports.rows import STAGES, tensor_order

MAX_TENSORS = 20
"""Maximum number of tensors in the chart of errors, worst first."""


def _draw_errors(inputs: Inputs) -> AltairChart:
    data, backends = inputs.data, inputs.backends
    finite = data.gates["error_over_tolerance"]
    finite = finite[(finite > 1e-9) & (finite < 1e9)]
    first = min(-1, math.floor(math.log10(finite.min()))) if len(finite) else -1
    last = max(1, 1 + math.ceil(math.log10(finite.max()))) if len(finite) else 1
    scales = backend_scales(data, backends)
    axis = alt.Axis(labelExpr=NUMBER, labelOverlap="greedy", values=[10.0**power for power in range(first, last + 1)])
    scale = alt.Scale(type="log", domain=[10.0**first, 10.0**last], clamp=True)
    x = alt.X("drawn:Q", title="error / tolerance", scale=scale, axis=axis)
    label = alt.Axis(labelLimit=130, grid=True, labelExpr="tensors[datum.value]")
    y = alt.Y("tensor_order:O", title=None, axis=label)
    points = (
        alt.Chart()
        .transform_filter(f"datum.tensor_order < {MAX_TENSORS}")
        .transform_calculate(drawn=f"isValid(datum.ratio) ? max(datum.ratio, 1e{first}) : 1e{last}")
        .mark_point(filled=True, size=50, opacity=0.75)
        .encode(
            x=x,
            y=y,
            yOffset=OFFSET,
            color=scales["color"],
            shape=scales["shape"],
            tooltip=[
                alt.Tooltip("tensor:N"),
                alt.Tooltip("backend:N"),
                alt.Tooltip("label:N", title="worst case"),
                alt.Tooltip("ratio:Q", title="error / tolerance", format=".3~g"),
                alt.Tooltip("error:Q", format=".3~g"),
                alt.Tooltip("tolerance:Q", format=".3~g"),
                alt.Tooltip("count:Q", title="cases checked"),
            ],
        )
    )
    limit = alt.Chart().transform_aggregate(n="count()").mark_rule(strokeDash=[4, 3], strokeWidth=1.5).encode(x=alt.datum(1))
    return alt.layer(limit, points, width=560, height=row_height(34), data=alt.NamedData("gates")).add_params(
        lookup("tensors", tensor_order(data)), *backend_params(data, backends)
    )


def _caption_of_errors(inputs: Inputs) -> str:
    tensors = inputs.data.gates["tensor"].nunique()
    more = f" Only the {MAX_TENSORS} worst of {tensors} tensors are shown." if tensors > MAX_TENSORS else ""
    return (
        "Worst case of each backend and tensor, by phase, cell, dtype and threads; the worst tensor is on top. Points right of "
        "the dashed line failed the check. An error without a number (wrong shape, NaN) is drawn at the right edge." + more
    )


ERRORS = Chart(
    name="gates",
    title="Error over tolerance",
    caption=_caption_of_errors,
    section="correctness",
    dataset="gates",
    draw=_draw_errors,
    applies=lambda inputs: not inputs.data.gates.empty,
    missing=filled_by("quick"),
)


def _draw_startup(inputs: Inputs) -> AltairChart:
    data, backends = inputs.data, inputs.backends
    ticks = [10.0**power for power in range(-7, 4)]
    axis = alt.Axis(
        values=ticks,
        labelOverlap="greedy",
        labelExpr="datum.value < 9e-4 ? format(datum.value * 1e6, '~g') + ' µs'"
        " : datum.value < 0.9 ? format(datum.value * 1e3, '~g') + ' ms' : format(datum.value, '~g') + ' s'",
    )
    scale = alt.Scale(type="log", nice=False, padding=10)
    scales = backend_scales(data, backends)
    y = alt.Y("stage_order:O", title=None, axis=alt.Axis(grid=True, labelLimit=150, labelExpr="stages[datum.value]"))
    base = (
        alt.Chart()
        .transform_aggregate(
            middle="median(seconds)",
            least="min(seconds)",
            most="max(seconds)",
            cases="count()",
            groupby=["backend", "backend_order", "stage", "stage_order"],
        )
        .encode(y=y, yOffset=OFFSET, color=scales["color"])
    )
    tooltip = [
        alt.Tooltip("backend:N"),
        alt.Tooltip("stage:N"),
        alt.Tooltip("middle:Q", title="median, s", format=".3~g"),
        alt.Tooltip("least:Q", title="minimum, s", format=".3~g"),
        alt.Tooltip("most:Q", title="maximum, s", format=".3~g"),
        alt.Tooltip("cases:Q"),
    ]
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("least:Q", scale=scale, axis=axis, title="time"), x2="most:Q"),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            x=alt.X("middle:Q", scale=scale, axis=axis, title="time"), shape=scales["shape"], tooltip=tooltip
        ),
        width=560,
        height=row_height(60),
        data=alt.NamedData("startup"),
    )
    return chart.transform_filter("datum.seconds > 0").add_params(lookup("stages", STAGES), *backend_params(data, backends))


STARTUP = Chart(
    name="startup",
    title="Time of each stage",
    caption="Points are medians over the cases; bars reach from the fastest to the slowest case. The axis is logarithmic.",
    section="startup",
    dataset="startup",
    draw=_draw_startup,
    applies=lambda inputs: not inputs.data.startup.empty,
    missing=filled_by("startup"),
)
