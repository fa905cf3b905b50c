"""asv's stored results as a frame and as a page: asv's own page loads scripts from the network, this one does not."""

import itertools
import json
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd

from rnnbench.errors import StoreError
from rnnbench.reports import page
from rnnbench.reports.parts import Picture
from rnnbench.reports.rows import records

VERSION = 2
"""The result format of asv 0.6."""

_NOT_RESULTS = ("machine.json", "benchmarks.json")


def read_asv(directory: Path | str) -> pd.DataFrame:
    """All values below an asv results directory: ``DIR/<machine>/<commit>-<environment>.json``.

    Columns: ``machine``, ``commit``, ``date`` (of the commit), ``environment``, ``benchmark``, ``params`` (``a, b`` as asv
    writes them), ``value`` (seconds for time benchmarks, bytes for memory; NaN: failed or not available), ``low``, ``high``
    (asv's 99% interval).  Raises StoreError where there is none or where a file is not of asv's format 2.
    """
    directory = Path(directory)
    files = sorted(path for path in directory.glob("*/*.json") if path.name not in _NOT_RESULTS)
    if not files:
        raise StoreError(f"no asv results at {directory}; expected {directory}/<machine>/<commit>-<environment>.json")
    rows = [row for path in files for row in _rows(path)]
    names = ["machine", "commit", "date", "environment", "benchmark", "params", "value", "low", "high"]
    frame = pd.DataFrame(rows, columns=names)
    return frame.astype(dict.fromkeys(("value", "low", "high"), "float64")).assign(
        date=pd.to_datetime(frame["date"], unit="ms", utc=True)
    )


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
            for params, *numbers in zip(combinations, *each, strict=True):
                rows.append((*head, benchmark, ", ".join(params), *numbers))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{path} is no asv result: {error!r}") from error
    return rows


def write_asv_html(directory: Path | str, output: Path | str) -> Path:
    """Write asv results as one HTML page that needs no network: a chart over commits and a table; raises StoreError."""
    frame = read_asv(directory)
    commits = frame.drop_duplicates("commit").sort_values("date")["commit"]
    order = {commit: place for place, commit in enumerate(commits)}
    names = list(dict.fromkeys(frame["benchmark"]))
    rows = records(
        frame.assign(
            commit_order=frame["commit"].map(order),
            benchmark_order=frame["benchmark"].map(names.index),
            commit=frame["commit"].str[:8],
            date=frame["date"].dt.strftime("%Y-%m-%d"),
        )
    )
    picture = _over_commits(names, [commit[:8] for commit in commits])
    drawn = {picture.name: picture} if frame["value"].notna().any() else {}
    payload: dict[str, Any] = {"rows": {"asv": page.columns(rows)}, "names": names}
    text = page.template("asv.html").render(
        **page.page("rnnbench: asv results", drawn, payload),
        pictures=drawn,
        machines=list(dict.fromkeys(frame["machine"])),
        count=len(frame),
        missing=int(frame["value"].isna().sum()),
    )
    return page.save(text, output)


def _over_commits(names: list[str], commits: list[str]) -> Picture:
    """One line per parameter combination over the commits, one facet per benchmark."""
    axis = alt.Axis(labelExpr="commits[datum.value]", labelAngle=-45, labelOverlap=True)
    base = alt.Chart().encode(
        x=alt.X("commit_order:O", title="commit", axis=axis),
        y=alt.Y("value:Q", title="value", scale=alt.Scale(type="log", nice=False, padding=8), axis=alt.Axis(format="~s")),
        detail=["params:N", "machine:N", "environment:N"],
    )
    tooltip = [
        alt.Tooltip(name, type="nominal") for name in ("benchmark", "params", "machine", "environment", "commit", "date")
    ]
    chart = (
        alt.layer(
            base.mark_line(strokeWidth=1.2, opacity=0.6),
            base.mark_point(filled=True, size=45, opacity=1).encode(tooltip=[*tooltip, alt.Tooltip("value:Q", format=".4~g")]),
            width=300,
            height=200,
            data=alt.NamedData("asv"),
        )
        .facet(alt.Facet("benchmark_order:O", header=alt.Header(title=None, labelExpr="benchmarks[datum.value]")), columns=3)
        .transform_filter("isValid(datum.value) && datum.value > 0")
        .resolve_scale(y="independent")
        .add_params(alt.param(name="commits", value=commits), alt.param(name="benchmarks", value=names))
    )
    caption = "Seconds for time benchmarks, bytes for memory; one line for each combination of parameters; logarithmic."
    return Picture("asv", "Over commits", caption, "asv", chart)
