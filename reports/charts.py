"""All charts of a report, as Vega-Lite over named datasets: the page fills them by script, ``static`` for a file."""

import re
from typing import Any, NamedTuple

from rnnbench.networks.contract import CPU
from rnnbench.reports import theme
from rnnbench.reports.curves import HIDDEN, LENGTH, WINDOW_MEMORY, WINDOW_TIME, curves, window_error
from rnnbench.reports.dotplots import gates, startup
from rnnbench.reports.encodings import Picture
from rnnbench.reports.frames import Frames
from rnnbench.reports.heatmap import heatmap
from rnnbench.reports.roofline import roofline
from rnnbench.reports.rows import Rows, chart_rows, intensities, joined, shown_backends

NO_ROOFS = (
    "Roofline: this machine's roofs are not stored beside these results; rnnbench machine measures and stores them, and the "
    "next report has them."
)


NO_CPU = "Roofline: no backend of this run computes on the CPU, whose roofs rnnbench machine measures."


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
        if present and names:  # without a backend a chart has no height
            drawn[picture.name] = picture
        else:
            left_out[picture.name] = f"{picture.title}: nothing to draw in this run; the suite {suite} would fill it."

    def swept(sweep: str) -> bool:
        return any(case[f"sweep_{sweep}"] is not None for case in cases)

    pair = len(names) > 1 and not data.pairs.empty
    add(heatmap(data, names, "T"), pair and swept("map_T"), "sequence-length or hidden-size")
    if swept("map_B"):
        add(heatmap(data, names, "B"), pair, "batch")
    timed = not measured.empty
    add(curves(data, names, LENGTH), timed and swept("T"), "sequence-length")
    add(curves(data, names, HIDDEN), timed and swept("H"), "hidden-size")
    add(curves(data, names, WINDOW_TIME), timed and swept("window"), "truncation")
    add(window_error(data), swept("window") and bool(data.truncation["relative_error"].notna().any()), "truncation")
    add(curves(data, names, WINDOW_MEMORY), swept("window") and bool(data.truncation["peak_bytes"].notna().any()), "truncation")
    under = intensities(cases)
    if under and bool(measured["gflops"].notna().any()):
        drawn["roofline"] = roofline(data, names, under)
    else:
        left_out["roofline"] = NO_ROOFS if CPU in data.devices.values() or not data.devices else NO_CPU
    add(startup(data, names), not data.startup.empty, "startup")
    add(gates(data, names), not data.gates.empty, "quick")
    return Pictures(drawn, left_out)


def static(data: Frames, cases: Rows, picture: Picture, sweep: int = 0) -> dict[str, Any]:
    """A picture with its rows inside and one of its sweeps shown, ``drawable``."""
    rows = chart_rows(data, cases)
    names = [name for name in (picture.dataset, picture.beside) if name]
    sets = {name: joined(data, cases, rows[name]) for name in names}
    if picture.sweep:
        sets = {name: [row for row in of_set if row[f"sweep_{picture.sweep}"] == sweep] for name, of_set in sets.items()}
    if picture.phase:
        sets[picture.dataset] = [row for row in sets[picture.dataset] if row["phase"] == picture.phase]
    return drawable(picture.chart.to_dict() | {"datasets": sets, "config": theme.config("light")})


def drawable(value: Any) -> Any:
    """Without characters that XML cannot hold: vl-convert, Altair's ``save`` too, ends the process where a text has one."""
    if isinstance(value, str):
        return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "\ufffd", value)
    if isinstance(value, dict):
        return {drawable(name): drawable(one) for name, one in value.items()}
    return [drawable(one) for one in value] if isinstance(value, list | tuple) else value
