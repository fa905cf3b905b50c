"""The roofline: operations per second over operations per byte, under the roofs that ``rnnbench machine`` measured.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore architectures".
"""

import math
from typing import Any

import altair as alt
import pandas as pd

from rnnbench.machine.snapshot import Roofs
from rnnbench.networks.contract import CPU
from rnnbench.reports.chart import AltairChart, Chart, Inputs
from rnnbench.reports.encodings import NUMBER, backend_params, backend_scales, log_ticks
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import Answer, count, listed, percent
from rnnbench.suite.case import Case

KIND = ("dtype", "threads")
"""Fields that a roof belongs to; the chart shows one combination at a time."""

MIN_RIDGE = 1.5
"""Minimum ratio of a slope's ends on the x axis; a shorter slope has no room for its label and is left out."""

BEYOND = 1.02
"""Part of the peak above which a result shows that the roof was measured too low."""


def intensity(case: Case, flops: float) -> float:
    """Operations per byte of a case with ``flops`` operations; ``Spec`` counts the bytes, each moved once."""
    spec = case.spec()
    return flops / (spec.forward_bytes(case.T, case.B) if case.phase == "forward" else spec.step_bytes(case.T, case.B))


def intensities(cases: list[dict[str, Any]]) -> list[float]:
    """Operations per byte of the cases that have a roof."""
    return [case["intensity"] for case in cases if case["sweep_roofline"] is not None and case["intensity"] is not None]


def kinds(data: Frames) -> list[tuple[str, int]]:
    """(dtype, threads) of the cases that have a roof, most cases first."""
    if data.roofs is None:
        return []
    counts = data.cases.groupby(list(KIND), sort=False).size().sort_values(ascending=False, kind="stable")
    every = ((str(dtype), int(threads)) for dtype, threads in counts.index)
    return [kind for kind in every if data.roofs.peak(*kind)]


def kind_labels(data: Frames) -> list[str]:
    """Labels of ``kinds``."""
    return [f"{dtype}, {count(threads, 'thread')}" for dtype, threads in kinds(data)]


def peaks(data: Frames) -> pd.Series:
    """Measured peak for each row of ``data.summary``, in 10^9 operations per second; NaN without a roof."""
    found = {kind: (data.roofs.peak(*kind) or math.nan) / 1e9 for kind in kinds(data)} if data.roofs else {}
    every = zip(data.summary["dtype"], data.summary["threads"], strict=True)
    return pd.Series([found.get(kind, math.nan) for kind in every], index=data.summary.index, dtype="float64")


def roof_rows(data: Frames, least: float, most: float) -> list[dict[str, Any]]:
    """Lines of the roofs from ``least`` to ``most`` operations per byte: one per memory level, and the peak."""
    return [
        {"sweep_roofline": number, "dtype": kind[0], "threads": kind[1], **line}
        for number, kind in enumerate(kinds(data))
        if data.roofs
        for line in _lines(data.roofs, kind, least, most)
    ]


def _lines(roofs: Roofs, kind: tuple[str, int], least: float, most: float) -> list[dict[str, Any]]:
    peak = (roofs.peak(*kind) or math.nan) / 1e9
    speeds = {roof.name: roof.best / 1e9 for roof in roofs.reads if roof.threads == kind[1]}
    lines = []
    for name, speed in speeds.items():
        ridge = peak / speed
        if ridge > MIN_RIDGE * least:
            label = f"{name}: {speed:.3g} GB/s"
            lines.append({"x": least, "y": speed * least, "x2": ridge, "y2": peak, "name": label, "slope": True})
    first = max(least, min((peak / speed for speed in speeds.values()), default=least))
    label = f"multiply-adds: {peak:.3g} GFLOP/s"
    return [*lines, {"x": first, "y": peak, "x2": most, "y2": peak, "name": label, "slope": False}]


def span(data: Frames, intensities: list[float]) -> tuple[float, float]:
    """Range of operations per byte that holds all points and the ridge of the slowest memory, with a margin."""
    reads = [(roof.threads, roof.best) for roof in data.roofs.reads] if data.roofs else []
    ridges = []
    for dtype, threads in kinds(data):
        slowest = min((best for count, best in reads if count == threads), default=None)
        ridges += [(data.roofs.peak(dtype, threads) or math.nan) / slowest] if data.roofs and slowest else []
    return min([*intensities, *ridges]) / 3, max([*intensities, *ridges]) * 1.5


def _draw(inputs: Inputs) -> AltairChart:
    """All cases of one dtype and number of threads under their roofs."""
    data, backends = inputs.data, inputs.backends
    least, most = span(data, intensities(inputs.cases))
    measured = inputs.measured["gflops"].dropna()
    scales = backend_scales(data, backends)
    x_scale = alt.Scale(type="log", domain=[least, most], nice=False)
    x_axis = alt.Axis(values=log_ticks(least, most), labelExpr=NUMBER, labelOverlap="greedy")
    title = "operations per byte, each byte moved once (FLOP/B)"
    x = alt.X("intensity:Q", title=title, scale=x_scale, axis=x_axis)
    highest = max([(data.roofs.peak(*kind) or 0) / 1e9 for kind in kinds(data) if data.roofs] + [measured.max()])
    lowest = measured.min() / 1.5
    y_scale = alt.Scale(type="log", domain=[lowest, highest * 2], nice=False)
    y_axis = alt.Axis(values=log_ticks(lowest, highest * 2), labelExpr=NUMBER, labelOverlap="greedy")
    y = alt.Y("gflops:Q", title="GFLOP/s", scale=y_scale, axis=y_axis)
    points = (
        alt.Chart(alt.NamedData("times"))
        .transform_filter("datum.status === 'measured' && isValid(datum.gflops) && isValid(datum.intensity)")
        .transform_calculate(of_peak="isValid(datum.peak) ? datum.gflops / datum.peak : null")
        .mark_point(filled=True, size=45, opacity=0.8)
        .encode(
            x=x,
            y=y,
            color=scales["color"],
            shape=scales["shape"],
            tooltip=[
                alt.Tooltip("label:N", title="case"),
                alt.Tooltip("backend:N"),
                alt.Tooltip("gflops:Q", title="GFLOP/s", format=".3~g"),
                alt.Tooltip("of_peak:Q", title="part of the multiply-add peak", format=".0%"),
                alt.Tooltip("intensity:Q", title="FLOP/B", format=".3~g"),
            ],
        )
    )
    roofs = alt.Chart(alt.NamedData("roofs"))
    lines = roofs.mark_rule(strokeWidth=1.4, clip=True).encode(
        x=alt.X("x:Q", scale=x_scale, axis=x_axis, title=title),
        y=alt.Y("y:Q", scale=y_scale, title="GFLOP/s"),
        x2="x2:Q",
        y2="y2:Q",
    )
    flat = roofs.transform_filter("!datum.slope").mark_text(align="right", dy=-7, dx=-4, fontSize=11)
    labels = [flat.encode(x=alt.X("x2:Q", scale=x_scale, axis=x_axis, title=title), y="y2:Q", text="name:N")]
    steep = roofs.transform_filter("datum.slope").transform_calculate(
        at="min(sqrt(datum.x * datum.x2), datum.x2 / 1.3)", height="datum.y2 * datum.at / datum.x2"
    )
    labels.append(
        steep.mark_text(align="left", dx=6, dy=6, fontSize=10, clip=True).encode(
            x=alt.X("at:Q", scale=x_scale, axis=x_axis, title=title), y="height:Q", text="name:N"
        )
    )
    return alt.layer(lines, *labels, points, width=640, height=360).add_params(*backend_params(data, backends))


def _applies(inputs: Inputs) -> bool:
    return bool(intensities(inputs.cases)) and bool(inputs.measured["gflops"].notna().any())


def _missing(inputs: Inputs) -> str:
    devices = inputs.data.devices.values()
    if CPU in devices or not devices:
        return (
            "no roofs are stored beside these results; rnnbench machine measures and stores them, and the next report then has "
            "this chart."
        )
    return "no backend of this run computes on the CPU, and rnnbench machine measures the CPU's roofs only."


ROOFLINE = Chart(
    name="roofline",
    title="GFLOP/s under this machine's roofs",
    caption=(
        "Each point is one case: operations per second of its matrix products, over operations per byte. The lines are limits "
        "measured on this machine: the flat line is arithmetic, each slope is reading from that level of memory. Bytes are "
        "the minimum: each parameter, x, y and gradient moves once. Weights that do not stay in a cache are read again in "
        "every time step; the true position of such a case lies to the left of its point."
    ),
    section="roofline",
    dataset="times",
    draw=_draw,
    applies=_applies,
    missing=_missing,
    sweep="roofline",
    overlay="roofs",
)


def roof_answers(data: Frames) -> list[Answer]:
    """The largest part of the multiply-add peak that each backend reaches, and any roof that was measured too low."""
    part = data.summary.assign(part=data.summary["gflops"] / peaks(data), peak=peaks(data))
    part = part[(part["status"] == "measured") & part["part"].notna()]
    details, beyond = [], []
    best: list[tuple[float, str, str]] = []
    for kind, group in part.groupby(list(KIND), sort=False):
        dtype, threads = kind  # type: ignore[misc]
        name = f"{dtype}, {threads} thread{'' if threads == 1 else 's'}"
        tops = group.loc[group.groupby("backend", sort=False)["part"].idxmax()].sort_values("part", ascending=False)
        labels = dict(zip(data.cases["case"], data.cases["label"], strict=True))
        reached = [f"{row.backend} {percent(row.part)} ({labels[str(row.case)]})" for row in tops.itertuples()]  # type: ignore[arg-type]
        details.append(f"{name}, peak {group['peak'].iloc[0]:.3g} GFLOP/s: {listed(reached)}.")
        top = tops.iloc[0]
        best.append((float(top["part"]), str(top["backend"]), name))
        if top["part"] > BEYOND:
            beyond.append(name)
    if not best:
        return []
    share, backend, name = max(best)
    claim = f"At best {backend} reaches {percent(share)} of the machine's measured multiply-add peak ({name})."
    if beyond:
        claim += f" More than all of it means that the roof was measured too low ({listed(beyond)}): measure it again."
    return [Answer(claim, details, "Roofline")]
