"""The charts of the report page, and their Vega-Lite: rows are named datasets on the page, inline in files."""

import re
from typing import Any, NamedTuple

from rnnbench.reports import curves, dotplots, heatmap, roofline, theme
from rnnbench.reports.chart import Chart, Inputs, Picture
from rnnbench.reports.frames import Frames
from rnnbench.reports.rows import Rows, chart_rows, joined, shown_backends

CHARTS: tuple[Chart, ...] = (
    heatmap.OVER_LENGTH,
    heatmap.OVER_BATCH,
    curves.LENGTH,
    curves.HIDDEN,
    curves.WINDOW_TIME,
    curves.WINDOW_ERROR,
    curves.WINDOW_MEMORY,
    roofline.ROOFLINE,
    dotplots.STARTUP,
    dotplots.ERRORS,
)
"""All charts in the order of the page.  To add a chart, write its record in its own file and list it here."""


class Section(NamedTuple):
    """A section of the page that shows the charts naming its id."""

    id: str
    title: str
    lead: str = ""

    @property
    def charts(self) -> list[str]:
        return [chart.name for chart in CHARTS if chart.section == self.id]


SECTIONS = (
    Section("where", "Who wins where", "Speed of each backend relative to the baseline picked above."),
    Section("length", "Sequence length"),
    Section("hidden", "Hidden size"),
    Section("window", "Truncation window", "What truncated BPTT saves in time and memory, and what it costs in accuracy."),
    Section("roofline", "Roofline"),
    Section(
        "startup", "Start-up", "Time until the first result. JIT compilers compile once; later runs only load their cache."
    ),
)


class Pictures(NamedTuple):
    """The charts that have data, by name, and a sentence for each one that is left out."""

    drawn: dict[str, Picture]
    left_out: dict[str, str]


def pictures(data: Frames, cases: Rows) -> Pictures:
    """Draw every chart for which ``cases`` (``rows.case_rows``) and the frames hold data."""
    inputs = Inputs(data, cases, shown_backends(data))
    drawn: dict[str, Picture] = {}
    left_out: dict[str, str] = {}
    for chart in CHARTS:
        if inputs.backends and chart.applies(inputs):  # without a backend a chart has no height
            drawn[chart.name] = chart.picture(inputs)
        elif reason := chart.missing(inputs):
            left_out[chart.name] = f"{chart.title}: {reason}"
    return Pictures(drawn, left_out)


def static(data: Frames, cases: Rows, picture: Picture, sweep: int = 0) -> dict[str, Any]:
    """The Vega-Lite specification of a picture with its rows inline, showing one sweep; safe to render (``drawable``)."""
    rows = chart_rows(data, cases)
    names = [name for name in (picture.dataset, picture.overlay) if name]
    datasets = {name: joined(data, cases, rows[name]) for name in names}
    if picture.sweep:
        field = f"sweep_{picture.sweep}"
        datasets = {name: [row for row in full if row[field] == sweep] for name, full in datasets.items()}
    if picture.phase:
        datasets[picture.dataset] = [row for row in datasets[picture.dataset] if row["phase"] == picture.phase]
    return drawable(picture.chart.to_dict() | {"datasets": datasets, "config": theme.config("light")})


def drawable(value: Any) -> Any:
    """The value with characters that XML forbids replaced: vl-convert ends the whole process on one of them."""
    if isinstance(value, str):
        return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", value)
    if isinstance(value, dict):
        return {drawable(name): drawable(one) for name, one in value.items()}
    return [drawable(one) for one in value] if isinstance(value, list | tuple) else value
