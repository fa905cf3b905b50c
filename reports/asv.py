"""asv's stored results as a frame and as a page; unlike asv's own page, this one is a single file without a server."""

import itertools
import json
import math
from pathlib import Path
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from rnnbench.errors import StoreError
from rnnbench.reports import page
from rnnbench.reports.chart import Picture
from rnnbench.reports.rows import records
from rnnbench.text import count

VERSION = 2
"""Format version of results and benchmarks.json in asv 0.6."""

_NOT_RESULTS = ("machine.json", "benchmarks.json")
_COLUMNS = [
    *("machine", "commit", "date", "environment", "benchmark", "params", "arguments"),
    *("state", "value", "low", "high", "names", "unit"),
]
_SERIES = ["machine", "environment", "benchmark", "params"]


def read_asv(directory: Path | str) -> pd.DataFrame:
    """Read all values below an asv results directory: ``DIR/<machine>/<commit>-<environment>.json``.

    Columns: ``machine``, ``commit``, ``date`` (of the commit), ``environment``, ``benchmark``, ``params`` (``a, b`` as asv
    writes them), ``arguments`` (the same as a tuple), ``names`` (of the parameters, as a tuple; empty if unknown), ``state``
    ("measured", "failed", "n/a"), ``value`` (NaN unless measured), ``low``, ``high`` (asv's 99% interval), ``unit``
    (seconds for time benchmarks, bytes for memory, else the benchmark's own; empty if unknown).

    Raises StoreError where there are no results, or where a file is not of asv's format 2.
    """
    directory = Path(directory)
    files = sorted(path for path in directory.glob("*/*.json") if path.name not in _NOT_RESULTS)
    if not files:
        raise StoreError(f"no asv results at {directory}; expected {directory}/<machine>/<commit>-<environment>.json")
    about = _described(directory / "benchmarks.json")
    rows = [(*row, *about.get(row[4], ((), ""))) for path in files for row in _rows(path)]
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.astype(dict.fromkeys(("value", "low", "high"), "float64")).assign(
        date=pd.to_datetime(frame["date"], unit="ms", utc=True)
    )


def changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Compare each value of a ``read_asv`` frame with the previous commit's, on the same machine and environment.

    Adds ``ratio`` (value / previous value; NaN without one) and ``change``: "worse" or "better" where the two 99% intervals
    do not overlap, "unclear" where they do, None where one is missing, as after ``asv run --quick``.  Lower is better.
    """
    measured = frame[frame["state"] == "measured"].sort_values("date", kind="stable")
    before = measured.groupby(_SERIES, sort=False)[["value", "low", "high"]].shift()
    edges = pd.concat([measured[["low", "high"]], before[["low", "high"]]], axis=1)
    known = edges.replace([math.inf, -math.inf], math.nan).notna().all(axis=1)
    verdicts = np.select([measured["low"] > before["high"], measured["high"] < before["low"]], ["worse", "better"], "unclear")
    found = {index: verdict for index, verdict, has in zip(measured.index, verdicts, known, strict=True) if has}
    change = pd.Series([found.get(index) for index in frame.index], frame.index, dtype=object)
    return frame.assign(ratio=measured["value"] / before["value"], change=change)


def write_asv_html(directory: Path | str, output: Path | str) -> Path:
    """Write asv results as one HTML page that works offline: changes, charts and a table; raises StoreError."""
    frame = changes(read_asv(directory))
    commits = list(frame.sort_values("date", kind="stable")["commit"].drop_duplicates())
    names = list(dict.fromkeys(frame["benchmark"]))
    shown = frame.assign(
        **_across(frame),
        commit_order=frame["commit"].map(commits.index),
        benchmark_order=frame["benchmark"].map(names.index),
        commit=frame["commit"].str[:8],
        date=frame["date"].dt.strftime("%Y-%m-%d"),
        params=[_with_names(*parts) for parts in zip(frame["names"], frame["arguments"], strict=True)],
    ).drop(columns=["names", "arguments"])
    shown = shown.sort_values("commit_order", ascending=False, kind="stable")
    newest = shown[shown["state"] == "measured"].drop_duplicates(_SERIES).dropna(subset=["x"])
    titles = [_title(name, unit) for name, unit in frame.drop_duplicates("benchmark")[["benchmark", "unit"]].to_numpy()]
    series = list(shown.loc[shown["state"] == "measured", "series"].drop_duplicates())
    drawn = {}
    if len(newest):
        drawn["asv_parameter"] = _over_parameter(titles, series, sorted(newest["x"].unique()))
    if (frame["state"] == "measured").any() and (len(commits) > 1 or not drawn):
        drawn["asv"] = _over_commits(titles, series, [commit[:8] for commit in commits])
    sets = {"asv": page.columns(records(shown)), "newest": page.columns(records(newest))}
    text = page.template("asv.html").render(
        **page.page("rnnbench: asv results", drawn, {"rows": sets}),
        pictures=drawn,
        machines=list(dict.fromkeys(frame["machine"])),
        counts=_counts(frame, commits),
        changed=_changed(frame, commits),
    )
    return page.save(text, output)


def _rows(path: Path) -> list[tuple]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content.get("version")
        if version != VERSION:
            raise StoreError(f"{path} has asv format {version}; this version reads format {VERSION}")
        head = (path.parent.name, content["commit_hash"], content["date"], content["env_name"])
        rows = []
        for benchmark, values in content["results"].items():
            stored = dict(zip(content["result_columns"], values, strict=False))
            combinations = list(itertools.product(*(stored.get("params") or [])))
            blank = [None] * len(combinations)
            each = (stored.get(name) or blank for name in ("result", "stats_ci_99_a", "stats_ci_99_b"))
            for params, value, *interval in zip(combinations, *each, strict=True):
                state = "failed" if value is None else "n/a" if math.isnan(value) else "measured"
                rows.append((*head, benchmark, ", ".join(params), params, state, value, *interval))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} is no asv result: {error!r}") from error
    return rows


def _described(path: Path) -> dict[str, tuple[tuple[str, ...], str]]:
    """Parameter names and unit of each benchmark that a results directory describes."""
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {
            name: (tuple(map(str, facts.get("param_names", ()))), str(facts.get("unit", "")))
            for name, facts in content.items()
            if name != "version"
        }
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} describes no benchmarks of asv: {error!r}") from error


def _with_names(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    bare = [value.strip("'") for value in values]
    if len(names) != len(bare):
        return ", ".join(bare)
    return ", ".join(f"{name} {value}" for name, value in zip(names, bare, strict=True))


def _title(benchmark: str, unit: str) -> str:
    """Name of a benchmark without its module, with its unit."""
    name = benchmark.partition(".")[2] or benchmark
    return f"{name}, {unit}" if unit else name


def _number(value: str) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _across(frame: pd.DataFrame) -> dict[str, Any]:
    """The parameter to draw over: ``x`` is the one numeric parameter that varies, if any; ``series`` are the other values."""
    axis: dict[str, int | None] = {}
    for benchmark, values in frame.groupby("benchmark", sort=False)["arguments"]:
        columns = [set(column) for column in zip(*values, strict=True)]
        varied = [
            place
            for place, column in enumerate(columns)
            if len(column) > 1 and all(_number(value) is not None for value in column)
        ]
        axis[str(benchmark)] = varied[0] if len(varied) == 1 else None
    xs: list[float | None] = []
    series: list[str] = []
    several = frame.groupby(["machine", "environment"]).ngroups > 1
    for machine, environment, benchmark, arguments in zip(
        frame["machine"], frame["environment"], frame["benchmark"], frame["arguments"], strict=True
    ):
        values, place = list(arguments), axis[benchmark]
        xs.append(None if place is None else _number(values.pop(place)))
        where = [machine, environment] if several else []
        series.append(", ".join([*(value.strip("'") for value in values), *where]))
    return {"x": xs, "series": series}


def _counts(frame: pd.DataFrame, commits: list[str]) -> str:
    """``90 values of 2 commits, 1 failed, 18 not available here``."""
    states = frame["state"].value_counts()
    rest = [f"{states[name]} {text}" for name, text in (("failed", "failed"), ("n/a", "not available here")) if name in states]
    return ", ".join([f"{count(len(frame), 'value')} of {count(len(commits), 'commit')}", *rest])


def _changed(frame: pd.DataFrame, commits: list[str]) -> str | None:
    """A sentence on what the newest commit changed; None for the first commit."""
    newest = frame[(frame["commit"] == commits[-1]) & frame["ratio"].notna()]
    if newest.empty:
        return None
    found = newest["change"].value_counts()
    known = int(found.sum())
    if not known:
        return (
            f"Commit {commits[-1][:8]}: {count(len(newest), 'value')} to compare with the commit before, none of them with an "
            "interval, so changes cannot be judged; asv run without --quick measures intervals."
        )
    return (
        f"Commit {commits[-1][:8]}, of {count(known, 'value')} with intervals: {found.get('worse', 0)} worse than at the "
        f"commit before, {found.get('better', 0)} better, {found.get('unclear', 0)} unclear."
    )


def _panels(base: alt.Chart | alt.LayerChart, titles: list[str], *parameters: alt.Parameter) -> alt.FacetChart:
    """One panel per benchmark, with independent scales."""
    header = alt.Header(title=None, labelExpr="benchmarks[datum.value]", labelLimit=320)
    return (
        base.facet(alt.Facet("benchmark_order:O", header=header), columns=3)
        .transform_filter("isValid(datum.value) && datum.value > 0")
        .resolve_scale(x="independent", y="independent")
        .add_params(alt.param(name="benchmarks", value=titles), *parameters)
    )


def _y() -> alt.Y:
    scale = alt.Scale(type="log", nice=False, padding=8)
    return alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format="~s", labelOverlap="greedy"))


def _lines(base: alt.Chart, series: list[str], dataset: str) -> alt.LayerChart:
    scale, legend = alt.Scale(domain=series), alt.Legend(orient="top")
    base = base.encode(color=alt.Color("series:N", title=None, scale=scale, legend=legend))
    points = base.mark_point(filled=True, size=55, opacity=1).encode(
        shape=alt.Shape("series:N", title=None, scale=scale, legend=legend),
        tooltip=[
            *(
                alt.Tooltip(name, type="nominal")
                for name in ("benchmark", "params", "machine", "environment", "commit", "date")
            ),
            alt.Tooltip("value:Q", format=".4~g"),
        ],
    )
    lines = base.mark_line(strokeWidth=1.4)
    return alt.LayerChart(layer=[lines, points], width=300, height=200, data=alt.NamedData(dataset))


def _over_parameter(titles: list[str], series: list[str], ticks: list[float]) -> Picture:
    """Newest values over the varying parameter, one line per combination of the other parameters."""
    axis = alt.Axis(values=ticks, format="~g", labelOverlap="greedy")
    base = alt.Chart().encode(x=alt.X("x:Q", title=None, scale=alt.Scale(type="log", nice=False, padding=8), axis=axis), y=_y())
    chart = _panels(_lines(base, series, "newest"), titles)
    caption = (
        "Newest value of each benchmark over the parameter it is named after, such as T or threads. Both axes are logarithmic."
    )
    return Picture("asv_parameter", "Over the varying parameter", caption, "newest", chart)


def _over_commits(titles: list[str], series: list[str], commits: list[str]) -> Picture:
    """One line per combination of parameters over the commits."""
    axis = alt.Axis(labelExpr="commits[datum.value]", labelAngle=-45, labelOverlap=True)
    base = alt.Chart().encode(
        x=alt.X("commit_order:O", title=None, axis=axis), y=_y(), detail=["params:N", "machine:N", "environment:N"]
    )
    chart = _panels(_lines(base, series, "asv"), titles, alt.param(name="commits", value=commits))
    caption = "One line per combination of parameters. The vertical axis is logarithmic."
    return Picture("asv", "Over commits", caption, "asv", chart)
