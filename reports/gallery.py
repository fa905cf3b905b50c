"""Every chart of the page on its own, with its rows inline: Altair charts for notebooks, specifications for files."""

from typing import Any, NamedTuple

import altair as alt

from rnnbench.errors import ArgumentError
from rnnbench.reports.chart import Picture
from rnnbench.reports.charts import drawable, pictures, static
from rnnbench.reports.devices import by_device, device_text, refuse_several, slug
from rnnbench.reports.frames import Frames
from rnnbench.reports.roofline import kind_labels
from rnnbench.reports.rows import Rows, case_rows
from rnnbench.reports.sweeps import Sweeps, sweeps
from rnnbench.reports.text import clipped


class Drawn(NamedTuple):
    """One chart: ``name`` is safe as a file name; ``specification`` is Vega-Lite with its rows, in the light theme."""

    name: str
    title: str
    subtitle: str
    specification: dict[str, Any]


class Gallery(NamedTuple):
    """The charts of a run in page order, and a sentence for each chart that has nothing to draw."""

    drawn: list[Drawn]
    left_out: list[str]


def gallery(data: Frames) -> Gallery:
    """Every chart of the page, once for each sweep the page offers: ``length``, ``length-2`` and so on.

    For a run on several devices, once for each device: ``length-on-cpu`` and so on.
    """
    frames = by_device(data)
    if len(frames) == 1:
        return _gallery(data)
    drawn, left_out = [], []
    for device, part in frames.items():
        own, text = _gallery(part), device_text(device)
        drawn += [_named(one, text, slug(device)) for one in own.drawn]
        left_out += [f"On {text}: {sentence}" for sentence in own.left_out]
    return Gallery(drawn, left_out)


def _named(one: Drawn, device: str, suffix: str) -> Drawn:
    """The chart with its device in name and title."""
    title = f"{one.title}, on {device}"
    specification = one.specification | {"title": one.specification["title"] | {"text": drawable(title)}}
    return one._replace(name=f"{one.name}-on-{suffix}", title=title, specification=specification)


def _gallery(data: Frames) -> Gallery:
    groups = sweeps(data.cases)
    cases = case_rows(data, groups)
    shown = pictures(data, cases)
    drawn = [
        _drawn(data, cases, picture, groups, number)
        for picture in shown.drawn.values()
        for number in _numbers(data, picture, groups)
    ]
    return Gallery(drawn, list(shown.left_out.values()))


def all_charts(data: Frames) -> dict[str, alt.TopLevelMixin]:
    """Every chart of the page that has something to draw, by name, as self-contained Altair charts."""
    return {one.name: _chart(one) for one in gallery(data).drawn}


def speed_map(data: Frames, across: str = "T", sweep: int = 0) -> alt.TopLevelMixin:
    """Speed of every backend relative to ``data.baseline`` over H and ``across`` ("T" or "B"), one map per backend and cell.

    ``sweep`` numbers the groups of cases that share all other fields, largest group first.  Like all functions for one
    chart, it raises ArgumentError where the run has nothing to draw, no sweep of that number, or several devices.
    """
    if across not in ("T", "B"):
        raise ArgumentError(f"across is {across!r}; expected 'T' or 'B'")
    return _one(data, f"map_{across}", sweep)


def time_over_length(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """Microseconds per time step over the sequence length T: a line per backend, a panel per cell, with intervals."""
    return _one(data, "length", sweep)


def time_over_hidden_size(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """Microseconds per time step over the hidden size H: a line per backend, a panel per cell, with intervals."""
    return _one(data, "hidden", sweep)


def time_over_window(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """Microseconds per time step over the truncation window: a line per backend, a panel per cell, with intervals."""
    return _one(data, "window_time", sweep)


def error_over_window(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """Relative error of the gradient against full BPTT over the truncation window: a panel per cell."""
    return _one(data, "window_error", sweep)


def memory_over_window(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """Peak memory of one call in MB over the truncation window: a line per backend, a panel per cell."""
    return _one(data, "window_memory", sweep)


def speed_under_roofs(data: Frames, sweep: int = 0) -> alt.TopLevelMixin:
    """GFLOP/s of every case and backend over operations per byte, under the roofs that ``rnnbench machine`` measured."""
    return _one(data, "roofline", sweep)


def startup_times(data: Frames) -> alt.TopLevelMixin:
    """Seconds of import, load, first calls and a steady call, per backend: median and range over the cases."""
    return _one(data, "startup", 0)


def errors_over_tolerances(data: Frames) -> alt.TopLevelMixin:
    """Largest error as a multiple of its tolerance, per tensor and backend, worst tensor first."""
    return _one(data, "gates", 0)


def _one(data: Frames, name: str, sweep: int) -> alt.TopLevelMixin:
    refuse_several(data)
    groups = sweeps(data.cases)
    cases = case_rows(data, groups)
    shown = pictures(data, cases).drawn
    present = {_file_name(one.name, number): one for one in shown.values() for number in _numbers(data, one, groups)}
    wanted = _file_name(name, sweep)
    if wanted not in present:
        raise ArgumentError(f"this run has no chart {wanted!r}; it has {', '.join(present) or 'none'}")
    return _chart(_drawn(data, cases, present[wanted], groups, sweep))


def _numbers(data: Frames, picture: Picture, groups: Sweeps) -> range:
    """The numbers of the sweeps that a picture shows one at a time."""
    return range(len(_labels(data, picture.sweep, groups)) if picture.sweep else 1)


def _chart(drawn: Drawn) -> alt.TopLevelMixin:
    return alt.Chart.from_dict(drawn.specification)


def _drawn(data: Frames, cases: Rows, picture: Picture, groups: Sweeps, number: int) -> Drawn:
    fixed = [f"baseline {data.baseline}"] if picture.tiles else []
    if picture.sweep:
        fixed += [_labels(data, picture.sweep, groups)[number], groups.common.get(picture.sweep, "")]
    subtitle = clipped(", ".join(part for part in fixed if part))
    specification = static(data, cases, picture, number)
    specification["title"] = drawable({"text": picture.title, "subtitle": subtitle, "anchor": "start"})
    return Drawn(_file_name(picture.name, number), picture.title, subtitle, specification)


def _labels(data: Frames, sweep: str, groups: Sweeps) -> list[str]:
    """What each sweep of a picture holds fixed."""
    return kind_labels(data) if sweep == "roofline" else groups.labels[sweep]


def _file_name(name: str, number: int) -> str:
    return name if number == 0 else f"{name}-{number + 1}"
