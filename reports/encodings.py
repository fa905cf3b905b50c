"""What the charts share: scales of the backends, axes, and lookups of names.

Nothing from outside enters a Vega expression: names reach a chart as data, as a scale's domain or as the value of a
parameter.  Facets and rows use ``_order`` numbers, looked up in such a parameter.  Sorting by a list of names instead would
put the names into an expression, and Vega-Lite mixes up the headers of a grid that is sorted by a field.
"""

import math
from collections.abc import Iterable
from typing import Any

import altair as alt

from rnnbench.reports import theme
from rnnbench.reports.frames import Frames

NUMBER = "datum.value >= 0.001 ? format(datum.value, '~g') : format(datum.value, '~e')"
CELL_HEADER = alt.Header(title=None, labelExpr="cells[datum.value]")
BACKEND_HEADER = alt.Header(title=None, labelExpr="backends[datum.value]", labelAngle=0, labelAlign="left", labelLimit=110)
BY_CELL = alt.Facet("cell_order:O", header=CELL_HEADER)
OFFSET = alt.YOffset("backend_order:O")


def backend_scales(data: Frames, backends: list[str]) -> dict[str, Any]:
    """Colour, shape and dash of each backend; colour and shape share a legend of the backends in parameter ``picked``."""
    several = len(set(data.devices.values())) > 1
    only: dict[str, Any] = {"values": alt.ExprRef("picked")} if several else {}  # on one device the domain is enough
    legend = alt.Legend(orient="top", labelExpr="backends[datum.value]", **only)
    scale = alt.Scale(domain=[data.backends.index(name) for name in backends])
    dashes = alt.Scale(domain=backends, range=[theme.DASHES[i % len(theme.DASHES)] for i in range(len(backends))])
    return {
        "color": alt.Color("backend_order:N", title=None, scale=scale, legend=legend),
        "shape": alt.Shape("backend_order:N", title=None, scale=scale, legend=legend),
        "strokeDash": alt.StrokeDash("backend:N", title=None, scale=dashes, legend=None),
    }


def backend_params(data: Frames, backends: list[str]) -> tuple[alt.Parameter, alt.Parameter]:
    """Parameters of a chart with ``backend_scales``: all backend names, and the indices of those in its legend."""
    return lookup("backends", data.backends), alt.param(name="picked", value=[data.backends.index(name) for name in backends])


def distinct_values(data: Frames, field: str) -> list[int]:
    return sorted({int(value) for value in data.cases[field].dropna()})


def lookup(name: str, values: Iterable[str]) -> alt.Parameter:
    """A parameter that maps the numbers of a field to names."""
    return alt.param(name=name, value=list(dict.fromkeys(values)))


def row_height(size: int) -> alt.Step:
    return alt.Step(**{"step": size, "for": "position"})


def log_ticks(low: float, high: float) -> list[float]:
    """Ticks at 1, 2 and 5 of each decade; powers of ten alone over many decades, and more ticks within about one."""
    if not (0 < low <= high < math.inf):
        return []
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1, 1.5, 2, 3, 4, 5, 7) if high < 12 * low else (1, 2, 5) if last - first <= 5 else (1,)
    return [step * 10.0**power for power in range(first, last + 1) for step in steps]


def log_y(title: str, field: str = "value:Q", *, ticks: list[float]) -> alt.Y:
    axis = alt.Axis(values=ticks, labelExpr=NUMBER, labelOverlap="greedy")
    return alt.Y(field, title=title, scale=alt.Scale(type="log", nice=False, padding=8), axis=axis)


def log_x(field: str, title: str, values: list[int]) -> alt.X:
    axis = alt.Axis(values=values, format="d", labelOverlap="greedy", labelAngle=0)
    return alt.X(f"{field}:Q", title=title, scale=alt.Scale(type="log", nice=False, padding=8), axis=axis)
