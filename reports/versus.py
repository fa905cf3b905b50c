"""One backend against its best rival in every case, as a frame and as text."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rnnbench.errors import ArgumentError
from rnnbench.reports.frames import Frames, oriented
from rnnbench.text import printable

GROUP = ["cell", "phase", "dtype", "threads"]

Roofs = Mapping[tuple[str, int], float]
"""Measured peak in 10^9 operations per second, by dtype and number of threads."""

LARGE = {"B": 32, "H": 256}
"""Minimum sizes at which products are limited by arithmetic alone."""

_COLUMNS = {
    "points": "int64",
    "missing": "int64",
    "fewest_peers": "int64",
    "below": "int64",
    "slower": "int64",
    "worst": "float64",
    "worst_peer": "object",
    "worst_at": "object",
    "geometric_mean": "float64",
    "peak_best": "float64",
    "peak_large": "float64",
    "peak_large_at": "object",
}


def bar_points(data: Frames, backend: str, peers: Sequence[str] | None = None, roofs: Roofs | None = None) -> pd.DataFrame:
    """Compare ``backend`` with the fastest of its peers; one row per case of the run.

    ``peers`` defaults to all other backends on its device.  Columns after the fields of the case: ``label``; ``peer``;
    ``ratio`` (peer's time / backend's time, above 1 the backend is faster; median over rounds of the within-round ratio) and
    ``verdict`` (``compare.verdicts``), NaN and None where the backend or every peer lacks a valid result; ``peers``, the
    number of peers with a valid result; ``peak``, the part of the roof that the case reaches (operations of matrix products
    only, as ``Spec`` counts them), NaN without a roof.

    Raises ArgumentError for an unknown name, and for a peer on another device.
    """
    chosen = _peers_of(data, backend) if peers is None else list(peers)
    for name in (backend, *chosen):
        if name not in data.backends:
            raise ArgumentError(f"backend is {name!r}; this run has {', '.join(data.backends)}")
        if (device := data.devices.get(name)) != (own_device := data.devices.get(backend)) and device and own_device:
            raise ArgumentError(f"{name} is on {device}; expected peers of {backend} on {own_device}")
    if backend in chosen or not chosen:
        raise ArgumentError(f"peers are {', '.join(chosen) or 'none'}; expected one or more backends other than {backend}")
    measured = data.summary[data.summary["status"] == "measured"]
    own = measured[measured["backend"] == backend]
    timed = set(zip(measured["case"], measured["backend"], strict=True))
    pairs = oriented(data.pairs)
    pairs = pairs[(pairs["backend"] == backend) & pairs["other"].isin(chosen)]
    both = [
        (case, backend) in timed and (case, peer) in timed for case, peer in zip(pairs["case"], pairs["other"], strict=True)
    ]
    pairs = pairs[pd.Series(both, index=pairs.index, dtype="bool")]
    worst = pairs.loc[pairs.groupby("case")["speedup"].idxmin(), ["case", "other", "speedup", "verdict"]]
    worst = worst.rename(columns={"other": "peer", "speedup": "ratio"})
    points = data.cases.merge(worst, on="case", how="left").merge(own[["case", "gflops"]], on="case", how="left")
    points["peers"] = points["case"].map(pairs["case"].value_counts()).fillna(0).astype("int64")
    peaks = [(roofs or {}).get(key, np.nan) for key in zip(points["dtype"], points["threads"], strict=True)]
    points["peak"] = points["gflops"] / np.array(peaks, dtype="float64")
    return points.drop(columns=["gflops", "flops"])


def bar_table(points: pd.DataFrame) -> pd.DataFrame:
    """Summarise ``bar_points``: one row per cell, phase, dtype and number of threads, in the run's order.

    ``points``: cases compared; ``missing``: cases without a ratio; ``fewest_peers``: smallest number of peers behind one
    ratio; ``below``: number of ratios below 1; ``slower``: those of them that are clear by their interval; ``worst``: smallest
    ratio, with its ``worst_peer`` and ``worst_at``; ``geometric_mean`` of the ratios; ``peak_best``: largest part of the roof;
    ``peak_large``: smallest part over the ``LARGE`` cases, with ``peak_large_at``.
    """
    rows = []
    for names, group in points.groupby(GROUP, sort=False):
        assert isinstance(names, tuple)
        rows.append((*names, *_row(group)))
    return pd.DataFrame(rows, columns=[*GROUP, *_COLUMNS]).astype(_COLUMNS)


def bar_text(data: Frames, backend: str, peers: Sequence[str] | None = None, roofs: Roofs | None = None) -> str:
    """``bar_table`` as text, under a line that says what it compares; parts of the roof only where roofs are given."""
    table = bar_table(bar_points(data, backend, peers, roofs))
    shown = table if roofs else table.drop(columns=[name for name in _COLUMNS if name.startswith("peak")])
    formats = {"worst": _ratio, "geometric_mean": _ratio, "peak_best": _percent, "peak_large": _percent}
    text = {name: [_text(value, formats.get(name, str)) for value in shown[name]] for name in shown.columns}
    lines = pd.DataFrame(text).rename(columns=lambda name: name.replace("_", " ")).to_string(index=False)
    measured = data.summary.loc[data.summary["status"] == "measured", "backend"].unique()
    against = ", ".join(peers or (name for name in measured if name in _peers_of(data, backend)))
    return (
        f"{backend} against the best of {printable(against)} at each point: "
        f"peer's time / {backend}'s, above 1 {backend} is faster\n{lines}"
    )


def _peers_of(data: Frames, backend: str) -> list[str]:
    """The other backends on its device, and those that could not run."""
    device = data.devices.get(backend)
    return [name for name in data.backends if name != backend and data.devices.get(name, device) == device]


def _row(group: pd.DataFrame) -> tuple:
    compared = group.dropna(subset=["ratio"])
    worst = _least(compared, "ratio")
    large = _least(group[(group["B"] >= LARGE["B"]) & (group["H"] >= LARGE["H"])], "peak")
    return (
        len(compared),
        len(group) - len(compared),
        int(compared["peers"].min()) if len(compared) else 0,
        int((compared["ratio"] < 1).sum()),
        int((compared["verdict"] == "slower").sum()),
        worst.get("ratio"),
        worst.get("peer"),
        _sizes(worst.get("label")),
        float(np.exp(np.log(compared["ratio"]).mean())),
        group["peak"].max(),
        large.get("peak"),
        _sizes(large.get("label")),
    )


def _least(frame: pd.DataFrame, column: str) -> dict[Any, Any]:
    """The row with the smallest value, or an empty one."""
    rows = frame.dropna(subset=[column]).sort_values(column, kind="stable").to_dict("records")
    return rows[0] if rows else {}


def _sizes(label: str | None) -> str | None:
    """A case's label without its cell and phase."""
    return label.split(" ", 2)[2] if label else None


def _text(value: Any, write: Callable[[Any], str]) -> str:
    return "-" if pd.isna(value) else write(value)


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{value:.0%}"
