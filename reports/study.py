"""A study (``rnnbench.studies``) as files: its tables as CSV, and a page with its conclusion, charts and numbers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import altair as alt

from rnnbench.compare.intervals import CONFIDENCE
from rnnbench.reports import page
from rnnbench.reports.chart import AltairChart, Picture
from rnnbench.reports.rows import records
from rnnbench.results import disk
from rnnbench.text import flattened, printable, spreadsheet_safe

if TYPE_CHECKING:
    from rnnbench.studies.study import Curve, Study


def write_study(study: "Study", folder: Path | str) -> list[Path]:
    """Write NAME.html, NAME.csv (the table) and NAME-runs.csv into a folder; returns their paths.  Raises StoreError."""
    folder, written = Path(folder), []
    for suffix, table in (("", study.table), ("-runs", study.runs)):
        written.append(folder / f"{study.name}{suffix}.csv")
        safe = table.map(lambda value: spreadsheet_safe(value) if isinstance(value, str) else value)
        disk.save(written[-1], [safe.to_csv(index=False).encode()])
    return [page.save(render_study(study), folder / f"{study.name}.html"), *written]


def render_study(study: "Study") -> str:
    """The page of a study as HTML."""
    drawn = {f"curve{place}": _picture(f"curve{place}", curve, study) for place, curve in enumerate(study.curves)}
    payload = {
        "rows": {"study": page.columns(records(study.table))},
        "columns": list(study.table.columns),
        "backends": [],
    }
    settings = study.settings
    return page.template("study.html").render(
        **page.page(f"rnnbench: {study.title}", drawn, payload),
        study=study,
        where=settings["machine"],
        pictures=drawn,
        notes=_notes(study),
        settings={name: printable(str(value)) for name, value in flattened(settings).items() if value is not None},
    )


def _notes(study: "Study") -> list[str]:
    coverage = study.table["coverage"].min() if "coverage" in study.table else CONFIDENCE
    if coverage >= CONFIDENCE:
        return []
    runs = int(study.table["runs"].min())
    if runs == 1:
        return ["Each number is of one seed, so there are no intervals."]
    return [f"Intervals span {runs} seeds and hold the median with a probability of {coverage:.0%}; 6 seeds would give 95%."]


def _picture(name: str, curve: "Curve", study: "Study") -> Picture:
    draw = _by_name if curve.y == curve.series else _lines
    return Picture(name, curve.title, curve.caption, "study", draw(curve, study))


def _axis(field: str, log: bool, values: list[Any] | None = None) -> dict[str, Any]:
    axis: dict[str, Any] = {"format": "~g", "labelOverlap": "greedy"} | ({} if values is None else {"values": values})
    scale: dict[str, Any] = {"type": "log", "nice": False, "padding": 8} if log else {"type": "linear", "zero": False}
    return {"title": field.replace("_", " "), "axis": alt.Axis(**axis), "scale": alt.Scale(**scale)}


def _lines(curve: "Curve", study: "Study") -> AltairChart:
    """Lines with points, and a bar for each interval."""
    table = study.table
    series = [str(name) for name in table[curve.series].drop_duplicates()]
    scale, legend = alt.Scale(domain=series), alt.Legend(orient="top")
    ticks = sorted({float(value) for value in table[curve.x]}) if curve.log_x else None
    base = (
        alt.Chart()
        .transform_filter(f"isValid(datum[{curve.y!r}])")
        .encode(
            x=alt.X(f"{curve.x}:Q", **_axis(curve.x, curve.log_x, ticks)),
            y=alt.Y(f"{curve.y}:Q", **_axis(curve.y, curve.log_y)),
            color=alt.Color(f"{curve.series}:N", title=None, scale=scale, legend=legend),
        )
    )
    tooltip = [alt.Tooltip(f"{curve.series}:N"), *(alt.Tooltip(f"{n}:Q", format=".4~g") for n in (curve.x, curve.y))]
    few = table[curve.x].nunique() <= 30
    points = base.mark_point(filled=True, size=55 if few else 8, opacity=1).encode(
        shape=alt.Shape(f"{curve.series}:N", title=None, scale=scale, legend=legend), tooltip=tooltip
    )
    layers: list[Any] = [base.mark_line(strokeWidth=1.4), points]
    if curve.low and curve.high:
        layers.append(base.mark_rule(strokeWidth=1.4).encode(y=alt.Y(f"{curve.low}:Q"), y2=f"{curve.high}:Q"))
    return alt.LayerChart(layer=layers, width=600, height=260, data=alt.NamedData("study"))


def _by_name(curve: "Curve", study: "Study") -> AltairChart:
    """A point for each name, with a bar for its interval."""
    names = [str(name) for name in study.table[curve.series]]
    base = (
        alt.Chart()
        .transform_filter(f"isValid(datum[{curve.x!r}])")
        .encode(y=alt.Y(f"{curve.series}:N", title=None, sort=names))
    )
    points = base.mark_point(filled=True, size=70, opacity=1).encode(
        x=alt.X(f"{curve.x}:Q", title=curve.x.replace("_", " "), scale=alt.Scale(zero=True)),
        tooltip=[alt.Tooltip(f"{curve.series}:N"), alt.Tooltip(f"{curve.x}:Q", format=".4~g")],
    )
    rules = base.mark_rule(strokeWidth=1.4).encode(x=alt.X(f"{curve.low}:Q"), x2=f"{curve.high}:Q")
    return alt.LayerChart(layer=[rules, points], width=600, height={"step": 34}, data=alt.NamedData("study"))
