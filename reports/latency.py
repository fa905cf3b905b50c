"""The distribution of single steps, drawn from the summaries of ``rnnbench latency``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert

from rnnbench.measure.latency import QUANTILES, Summary
from rnnbench.reports.theme import DASHES, config
from rnnbench.results.disk import save

_LABEL = "datum.value < 9e-4 ? format(datum.value * 1e6, '~g') + ' µs' : format(datum.value * 1e3, '~g') + ' ms'"


def latency_chart(found: Sequence[Summary], frame: float) -> alt.FacetChart:
    """Draw the quantiles of steps, one panel for each cell and hidden size; a rule stands at ``frame`` seconds."""
    rows = [
        {"backend": one.backend, "cell": one.case.cell, "H": one.case.H, "quantile": name, "seconds": seconds}
        for one in found
        for name, seconds in one.quantiles.items()
    ]
    times = pd.DataFrame(rows)
    backends = list(dict.fromkeys(one.backend for one in found))
    axis = alt.Axis(values=[10.0**power for power in range(-6, 1)], labelExpr=_LABEL)
    y = alt.Y("seconds:Q", scale=alt.Scale(type="log", nice=False, padding=8), axis=axis, title="time of a step")
    base = alt.Chart().encode(
        x=alt.X("quantile:N", sort=list(QUANTILES), title=None, axis=alt.Axis(labelAngle=0, labelOverlap=False)),
        y=y,
        color=alt.Color("backend:N", sort=backends, title=None, legend=alt.Legend(orient="top")),
    )
    lines = base.mark_line().encode(
        strokeDash=alt.StrokeDash("backend:N", sort=backends, legend=None, scale=alt.Scale(range=DASHES))
    )
    limit = alt.Chart().mark_rule(strokeDash=[2, 4]).encode(y=alt.datum(frame))
    chart = alt.layer(limit, lines, base.mark_point(filled=True, size=40, opacity=1), data=times)
    panels = chart.properties(width=230, height=170).facet(row=alt.Row("H:O"), column=alt.Column("cell:N", title=None))
    return panels.properties(title=f"Times of single steps; the rule is a frame of {frame * 1e3:g} ms")


def write_latency_chart(path: Path | str, found: Sequence[Summary], frame: float) -> None:
    """Write ``latency_chart`` as an SVG file with a white background; raises StoreError."""
    specification: dict[str, Any] = latency_chart(found, frame).to_dict()
    specification["config"] = config("light") | {"background": "white"}
    save(Path(path), [vl_convert.vegalite_to_svg(specification).encode()])
