"""The charts, as Vega-Lite over named datasets: the page fills them by script, ``static`` fills them for a file.

Nothing from outside enters a Vega expression: names reach a chart as data, in a scale's domain or as the value of a
parameter.  Facets and rows stand for ``_order`` numbers, looked up in such a parameter: a list of names to sort by would
become an expression, and Vega-Lite mixes up the headers of a grid that is sorted by a field.
"""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from rnnbench.reports import theme
from rnnbench.reports.frames import Frames
from rnnbench.reports.rows import STAGES, Rows, chart_rows, joined, shown_backends, tensor_order

TILE = 46
MOST_TENSORS = 20


class Picture(NamedTuple):
    """A chart with its words.  ``sweep`` names the sweeps of which it shows one at a time (``sweeps.AXES``); ``phase`` is
    the only phase that it is about; ``dataset`` is the set of rows that it reads."""

    name: str
    title: str
    caption: str
    dataset: str
    chart: alt.FacetChart | alt.LayerChart
    sweep: str | None = None
    phase: str | None = None


class Pictures(NamedTuple):
    """The charts that have data, and for each one left out a sentence with the suite that would fill it."""

    drawn: dict[str, Picture]
    left_out: dict[str, str]


def pictures(data: Frames, cases: Rows) -> Pictures:
    """Build every chart for which ``cases`` (``rows.case_rows``) and the frames hold data."""
    names = shown_backends(data)
    measured = data.summary[data.summary["status"] == "measured"]
    drawn: dict[str, Picture] = {}
    left_out: dict[str, str] = {}

    def add(picture: Picture, present: bool, suite: str) -> None:
        if present:
            drawn[picture.name] = picture
        else:
            left_out[picture.name] = f"{picture.title}: nothing to draw in this run; the suite {suite} would fill it."

    def swept(sweep: str) -> bool:
        return any(case[f"sweep_{sweep}"] is not None for case in cases)

    pair = len(names) > 1 and not data.pairs.empty
    add(_map(data, names, "T"), pair and swept("map_T"), "sequence-length or hidden-size")
    if swept("map_B"):
        add(_map(data, names, "B"), pair, "batch")
    timed = not measured.empty
    add(_lines(data, names, _LENGTH), timed and swept("T"), "sequence-length")
    add(_lines(data, names, _HIDDEN), timed and swept("H"), "hidden-size")
    add(_lines(data, names, _WINDOW_TIME), timed and swept("window"), "truncation")
    add(_window_error(data), swept("window") and bool(data.truncation["relative_error"].notna().any()), "truncation")
    add(_lines(data, names, _WINDOW_MEMORY), swept("window") and bool(data.truncation["peak_bytes"].notna().any()), "truncation")
    add(_startup(data, names), not data.startup.empty, "startup")
    add(_gates(data, names), not data.gates.empty, "quick")
    return Pictures(drawn, left_out)


def static(data: Frames, cases: Rows, picture: Picture) -> dict[str, Any]:
    """A picture with its rows inside and its first sweep shown, for vl-convert."""
    rows = joined(cases, chart_rows(data)[picture.dataset])
    if picture.sweep:
        rows = [row for row in rows if row[f"sweep_{picture.sweep}"] == 0]
    if picture.phase:
        rows = [row for row in rows if row["phase"] == picture.phase]
    return picture.chart.to_dict() | {"datasets": {picture.dataset: rows}, "config": theme.config("light")}


def _scales(data: Frames, backends: list[str]) -> dict[str, Any]:
    """Colour, shape and dash of the backends, with one legend for colour and shape."""
    scale = alt.Scale(domain=[data.backends.index(name) for name in backends])
    dashes = alt.Scale(domain=backends, range=[theme.DASHES[i % len(theme.DASHES)] for i in range(len(backends))])
    return {
        "color": alt.Color("backend_order:N", title=None, scale=scale, legend=_LEGEND),
        "shape": alt.Shape("backend_order:N", title=None, scale=scale, legend=_LEGEND),
        "strokeDash": alt.StrokeDash("backend:N", title=None, scale=dashes, legend=None),
    }


_LEGEND = alt.Legend(orient="top", labelExpr="backends[datum.value]")


def _values(data: Frames, field: str) -> list[int]:
    return sorted({int(value) for value in data.cases[field].dropna()})


_CELL_HEADER = alt.Header(title=None, labelExpr="cells[datum.value]")
_BY_CELL = alt.Facet("cell_order:O", header=_CELL_HEADER)
_OFFSET = alt.YOffset("backend_order:O")
_NUMBER = "datum.value >= 0.001 ? format(datum.value, '~g') : format(datum.value, '~e')"


def _names(name: str, values: Iterable[str]) -> alt.Parameter:
    """The names behind a field of numbers."""
    return alt.param(name=name, value=list(dict.fromkeys(values)))


def _rows_of(size: int) -> alt.Step:
    return alt.Step(**{"step": size, "for": "position"})


def _map(data: Frames, backends: list[str], across: str) -> Picture:
    """Speed of each backend over the baseline; the baseline is the parameter of that name."""
    axis = alt.Axis(labelAngle=0, domain=False, ticks=False, labelOverlap=True)
    x = alt.X(f"{across}:O", title=across, axis=axis)
    y = alt.Y("H:O", title="H", sort="descending", axis=axis)
    base = alt.Chart().encode(x=x, y=y, tooltip=_MAP_TOOLTIP)
    scale = alt.Scale(type="linear", domain=[-3, 3], clamp=True, range="diverging", interpolate="rgb")  # type: ignore[arg-type]  # a config range
    legend = alt.Legend(
        title="times as fast as the baseline",
        titleLimit=400,
        orient="top",
        values=[-3, -2, -1, 0, 1, 2, 3],
        labelExpr="datum.value < 0 ? '1/' + pow(2, -datum.value) : pow(2, datum.value) + '×'",
        gradientLength=280,
    )
    tiles = base.transform_filter("isValid(datum.gain)").mark_rect(strokeWidth=1).encode(
        color=alt.Color("gain:Q", scale=scale, legend=legend)
    )  # fmt: skip
    hatch = "M-1.5,-1L1.5,1M-1.5,0L0,1M0,-1L1.5,0"
    ties = (
        base.transform_filter("datum.state === 'tie'")
        .mark_point(filled=False, strokeWidth=1, opacity=0.45)
        .encode(shape=alt.ShapeValue(hatch), size=alt.value(alt.expr("tile * tile * 0.36")))
    )
    text = base.mark_text(fontSize=alt.expr("tile > 36 ? 11 : tile > 28 ? 9 : 7.5")).encode(
        text="shown:N",
        color=alt.when("abs(datum.gain) > 1.9").then(alt.ColorValue(alt.expr("strong"))).otherwise(alt.ColorValue(alt.expr("ink"))),
    )
    chart = (
        alt.layer(tiles, ties, text, width=alt.Step(TILE), height=alt.Step(TILE * 0.66), data=alt.NamedData("pairs"))
        .transform_filter("datum.a === baseline || datum.b === baseline")
        .transform_calculate(
            backend="datum.a === baseline ? datum.b : datum.a",
            backend_order="datum.a === baseline ? datum.b_order : datum.a_order",
            status="datum.a === baseline ? datum.status_b : datum.status_a",
            base_status="datum.a === baseline ? datum.status_a : datum.status_b",
            speed="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.speedup : datum.speedup",
            speed_low="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.high : datum.low",
            speed_high="!isValid(datum.speedup) ? null : datum.a === baseline ? 1 / datum.low : datum.high",
        )
        .transform_calculate(
            state="datum.status !== 'measured' ? datum.status : datum.base_status !== 'measured' ? 'no baseline'"
            " : datum.verdict === 'tie' || datum.verdict === 'undecided' ? datum.verdict"
            " : datum.speed > 1 ? 'faster' : 'slower'",
        )
        .transform_calculate(
            gain="datum.status === 'measured' && datum.base_status === 'measured' ? log(datum.speed) / LN2 : null",
            shown="datum.state === 'unsupported' ? '–' : datum.state === 'no baseline' ? '·' : datum.state === 'missing' ? ''"
            " : datum.status !== 'measured' ? '✕' : datum.state === 'tie' ? '≈' : datum.state === 'undecided' ? '?'"
            " : datum.speed < 0.095 ? format(datum.speed, '.2f') : datum.speed < 1.995 ? format(datum.speed, '.2f')"
            " : format(datum.speed, datum.speed < 9.95 ? '.1f' : '.0f')",
        )
        .facet(
            row=alt.Row("backend_order:O", header=_BACKEND_HEADER),
            column=alt.Column("cell_order:O", header=_CELL_HEADER),
            spacing=10,
        )
        .add_params(
            alt.param(name="baseline", value=data.baseline),
            _names("backends", data.backends),
            _names("cells", data.cases["cell"]),
            alt.param(name="tile", value=TILE),
            alt.param(name="ink", value="#1b1f24"),
            alt.param(name="strong", value="#ffffff"),
        )
    )
    caption = (
        "Each tile is one case; its number says how many times as fast as the baseline the backend is (2.0: half the time; "
        "0.5: double). Blue is faster than the baseline, orange slower. Hatched with ≈: a tie (the 95% interval contains 1 "
        "or lies within 2%). ✕ failed, – not supported, · the baseline has no time there, ? too few rounds to say."
    )
    return Picture(f"map_{across}", f"Speed over H and {across}", caption, "pairs", chart, sweep=f"map_{across}")


_BACKEND_HEADER = alt.Header(title=None, labelExpr="backends[datum.value]", labelAngle=0, labelAlign="left", labelLimit=110)
_MAP_TOOLTIP = [
    alt.Tooltip("label:N", title="case"),
    alt.Tooltip("backend:N"),
    alt.Tooltip("state:N", title="result"),
    alt.Tooltip("speed:Q", title="times as fast as the baseline", format=".3f"),
    alt.Tooltip("speed_low:Q", title="interval from", format=".3f"),
    alt.Tooltip("speed_high:Q", title="to", format=".3f"),
]


class _Line(NamedTuple):
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
_INTERVALS = "Bars: 95% intervals of the median over rounds, often smaller than the mark. "
_LENGTH = _Line(
    "length", "Sequence length", _INTERVALS + "A flat line means that time grows in proportion to T.",
    "T", "sequence length T", "µs per time step",
    _STEP.format("datum.seconds"), _STEP.format("datum.low"), _STEP.format("datum.high"),
)  # fmt: skip
_HIDDEN = _LENGTH._replace(
    name="hidden",
    title="Hidden size",
    caption=_INTERVALS + "The matrix products grow with H² when I and H are alike, with H when I is far larger.",
    field="H",
    x_title="hidden size H",
)
_WINDOW_TIME = _LENGTH._replace(
    name="window_time",
    title="Truncation window: time",
    caption="What a shorter window costs or saves in time (phase tbptt, whatever phase is picked above).",
    field="window",
    x_title="window",
    phase="tbptt",
)
_WINDOW_MEMORY = _WINDOW_TIME._replace(
    name="window_memory",
    title="Truncation window: memory",
    caption="Peak memory of one call above the loaded network: what truncation buys.",
    y_title="peak memory, MB",
    value="datum.peak_bytes / 1e6",
    low=None,
    high=None,
)


def _decades(low: float, high: float) -> list[float]:
    """Ticks 1, 2, 5 in each decade, or the powers of ten alone where there are many."""
    if not (0 < low <= high < math.inf):
        return []
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 2, 5) if last - first <= 3 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def _log_y(title: str, field: str = "value:Q", *, ticks: list[float]) -> alt.Y:
    axis = alt.Axis(values=ticks, labelExpr=_NUMBER, labelOverlap="greedy")
    return alt.Y(field, title=title, scale=alt.Scale(type="log", nice=False, padding=8), axis=axis)


def _log_x(field: str, title: str, values: list[int]) -> alt.X:
    axis = alt.Axis(values=values, format="d", labelOverlap="greedy", labelAngle=0)
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=8), axis=axis)


def _lines(data: Frames, backends: list[str], line: _Line) -> Picture:
    measured = data.summary[data.summary["status"] == "measured"]
    values = measured["peak_bytes"] / 1e6 if line.low is None else measured["step_seconds"] * 1e6
    x = _log_x(line.field, line.x_title, _values(data, line.field))
    y = _log_y(line.y_title, ticks=_decades(values.min(), values.max()))
    scales = _scales(data, backends)
    base = alt.Chart().encode(x=x, color=scales["color"])
    layers = [
        base.mark_line(strokeWidth=1.8).encode(y=y, strokeDash=scales["strokeDash"]),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            y=y,
            shape=scales["shape"],
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
        .transform_filter("datum.status === 'measured'")
        .transform_calculate(**calculated)
        .transform_filter("isValid(datum.value) && datum.value > 0")
        .facet(_BY_CELL, columns=3)
        .add_params(_names("cells", data.cases["cell"]), _names("backends", data.backends))
    )
    sweep = {"length": "T", "hidden": "H"}.get(line.name, "window")
    return Picture(line.name, line.title, line.caption, "times", chart, sweep=sweep, phase=line.phase)


def _window_error(data: Frames) -> Picture:
    errors = data.truncation["relative_error"].dropna()
    positive = errors[errors > 0]
    floor = float(positive.min()) / 5 if len(positive) else 1e-16
    x = _log_x("window", "window", _values(data, "window"))
    ticks = [float(f"1e{power}") for power in range(-16, 4)]
    y = _log_y("relative gradient error", "drawn:Q", ticks=ticks)
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
        .transform_filter("isValid(datum.relative_error)")
        .transform_aggregate(groupby=["cell", "window", "relative_error", "label"], backends="count()")
        .transform_calculate(drawn=f"max(datum.relative_error, {floor!r})")
        .facet(_BY_CELL, columns=3)
        .add_params(_names("cells", data.cases["cell"]), _names("backends", data.backends))
    )
    caption = (
        "Norm of (truncated − full gradient) over norm of the full one: what truncation costs. "
        "A property of the mathematics, the same for all backends; at 1 the gradient is wrong by its own size."
    )
    return Picture("window_error", "Truncation window: error", caption, "times", chart, sweep="window", phase="tbptt")


def _gates(data: Frames, backends: list[str]) -> Picture:
    tensors = data.gates["tensor"].nunique()
    finite = data.gates["error_over_tolerance"]
    finite = finite[(finite > 1e-9) & (finite < 1e9)]
    first = min(-1, math.floor(math.log10(finite.min()))) if len(finite) else -1
    last = max(1, 1 + math.ceil(math.log10(finite.max()))) if len(finite) else 1
    scales = _scales(data, backends)
    axis = alt.Axis(labelExpr=_NUMBER, labelOverlap="greedy", values=[10.0**power for power in range(first, last + 1)])
    scale = alt.Scale(type="log", domain=[10.0**first, 10.0**last], clamp=True)
    x = alt.X("drawn:Q", title="error / tolerance", scale=scale, axis=axis)
    label = alt.Axis(labelLimit=130, grid=True, labelExpr="tensors[datum.value]")
    y = alt.Y("tensor_order:O", title=None, axis=label)
    points = (
        alt.Chart()
        .transform_filter(f"datum.tensor_order < {MOST_TENSORS}")
        .transform_calculate(drawn=f"isValid(datum.ratio) ? max(datum.ratio, 1e{first}) : 1e{last}")
        .mark_point(filled=True, size=50, opacity=0.75)
        .encode(
            x=x,
            y=y,
            yOffset=_OFFSET,
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
    chart = alt.layer(limit, points, width=560, height=_rows_of(34), data=alt.NamedData("gates")).add_params(
        _names("tensors", tensor_order(data)), _names("backends", data.backends)
    )
    more = f" The {MOST_TENSORS} worst of {tensors} tensors." if tensors > MOST_TENSORS else ""
    caption = (
        "The worst case of each backend and tensor, by phase, cell, dtype and threads; worst tensor on top. Right of the "
        "dashed line the check failed; an error that is no number (wrong shape, NaN) stands at the right edge." + more
    )
    return Picture("gates", "Error over tolerance", caption, "gates", chart)


def _startup(data: Frames, backends: list[str]) -> Picture:
    ticks = [10.0**power for power in range(-7, 4)]
    axis = alt.Axis(
        values=ticks,
        labelOverlap="greedy",
        labelExpr="datum.value < 9e-4 ? format(datum.value * 1e6, '~g') + ' µs'"
        " : datum.value < 0.9 ? format(datum.value * 1e3, '~g') + ' ms' : format(datum.value, '~g') + ' s'",
    )
    scale = alt.Scale(type="log", nice=False, padding=10)
    scales = _scales(data, backends)
    y = alt.Y("stage_order:O", title=None, axis=alt.Axis(grid=True, labelLimit=150, labelExpr="stages[datum.value]"))
    base = (
        alt.Chart()
        .transform_aggregate(
            middle="median(seconds)", least="min(seconds)", most="max(seconds)", cases="count()", groupby=["backend", "backend_order", "stage", "stage_order"]
        )
        .encode(y=y, yOffset=_OFFSET, color=scales["color"])
    )
    tooltip = [
        alt.Tooltip("backend:N"),
        alt.Tooltip("stage:N"),
        alt.Tooltip("middle:Q", title="median, s", format=".3~g"),
        alt.Tooltip("least:Q", title="least, s", format=".3~g"),
        alt.Tooltip("most:Q", title="most, s", format=".3~g"),
        alt.Tooltip("cases:Q"),
    ]
    chart = alt.layer(
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("least:Q", scale=scale, axis=axis, title="time"), x2="most:Q"),
        base.mark_point(filled=True, size=55, opacity=1).encode(
            x=alt.X("middle:Q", scale=scale, axis=axis, title="time"), shape=scales["shape"], tooltip=tooltip
        ),
        width=560,
        height=_rows_of(60),
        data=alt.NamedData("startup"),
    )
    chart = chart.transform_filter("datum.seconds > 0").add_params(_names("stages", STAGES), _names("backends", data.backends))
    caption = "Median over the cases, with the range from the fastest to the slowest case; logarithmic."
    return Picture("startup", "Start-up", caption, "startup", chart)


