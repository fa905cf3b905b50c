"""Rows behind charts and table: plain JSON values, each fact stored once, shared by the page and static files."""

import statistics
from typing import Any

import numpy as np
import pandas as pd

from rnnbench.networks.contract import CPU
from rnnbench.reports.caveats import NOISY
from rnnbench.reports.frames import CASE_FIELDS, Frames
from rnnbench.reports.reproduce import spec_source
from rnnbench.reports.roofline import intensities, intensity, kinds, roof_rows, span
from rnnbench.reports.sweeps import Sweeps
from rnnbench.reports.text import cut
from rnnbench.reports.winners import winners
from rnnbench.suite.case import Case

Rows = list[dict[str, Any]]

STAGES = ("import", "load", "first call, empty cache", "first call, warm cache", "steady call")


def plain(value: Any) -> Any:
    """A JSON value: floats with four significant digits, None for missing, NaN and infinite values."""
    if value is None or value is pd.NA:
        return None
    if isinstance(value, float | np.floating):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    return value


def records(frame: pd.DataFrame) -> Rows:
    names = list(frame.columns)
    return [dict(zip(names, map(plain, row), strict=True)) for row in frame.itertuples(index=False, name=None)]


def case_rows(data: Frames, groups: Sweeps) -> Rows:
    """One row per case, with everything the charts and the table need to know about it.

    Its fields and label, its Spec as source, its sweeps, the gradient error of its window, operations per byte, the peak for
    its dtype and threads in 10^9 operations per second, and who is fastest on each device.
    """
    roofs = {kind: (number, data.roofs.peak(*kind)) for number, kind in enumerate(kinds(data))} if data.roofs else {}
    best = winners(data)
    found = zip(best["backend"], best["tied"], best["outcome"], strict=True)
    fastest = dict(zip(zip(best["case"], best["device"], strict=True), found, strict=True))
    errors = data.truncation.drop_duplicates("case").set_index("case")["relative_error"]
    rows = []
    cells: dict[str, int] = {}
    for row in records(data.cases):
        key = row.pop("case")
        flops = row.pop("flops")
        case = Case(**{name: row[name] for name in CASE_FIELDS})
        row["noisy"] = bool(row.pop("disturbed") > NOISY)
        roof, peak = roofs.get((case.dtype, case.threads), (None, None))
        row |= {"sweep_roofline": roof, "peak": peak and plain(peak / 1e9)}
        row["intensity"] = None if flops is None else plain(intensity(case, flops))
        for number, device in enumerate(device_names(data)):
            row |= _leaders(data, number, fastest.get((key, device)))
        row |= {f"sweep_{name}": index.get(key) for name, index in groups.index.items()}
        row["cell_order"] = cells.setdefault(case.cell, len(cells))
        rows.append(row | {"spec": spec_source(case), "relative_error": plain(errors.get(key))})
    return rows


def device_names(data: Frames) -> list[str]:
    """The devices of the run; the CPU where no backend could run."""
    return list(dict.fromkeys(data.devices.values())) or [CPU]


def _leaders(data: Frames, device: int, winner: tuple[str, tuple[str, ...], str] | None) -> dict[str, str | None]:
    """Indices of the fastest backend of a device and of those tied with it, and the outcome: clear, same, unclear or alone."""
    names = (f"leaders_{device}", f"outcome_{device}")
    if winner is None:
        return dict.fromkeys(names)
    backend, tied, outcome = winner
    indices = [str(data.backends.index(name)) for name in (backend, *tied)]
    return dict(zip(names, (" ".join(indices), "clear" if outcome == backend else outcome), strict=True))


def chart_rows(data: Frames, cases: Rows) -> dict[str, Rows]:
    """Datasets of the charts by name; ``case`` is an index into ``cases`` (``case_rows``), whose fields extend each row."""
    number = {key: index for index, key in enumerate(data.cases["case"])}
    sets = {"pairs": _pairs(data), "times": _times(data), "startup": _startup(data), "gates": _gates(data)}
    for frame in sets.values():
        if "case" in frame:
            frame["case"] = frame["case"].map(number)
    values = intensities(cases)
    roofs = {"roofs": roof_rows(data, *span(data, values)) if values else []}
    return {name: records(frame) for name, frame in sets.items()} | roofs


MAX_SAMPLES = 60_000
"""Maximum number of samples on a page (about 300 kB); beyond it the page holds the median of each round."""


def samples(data: Frames, times: Rows) -> tuple[list[list[list[int]] | None], bool]:
    """Samples of each row of ``times``, by round, and whether all are included rather than the median of each round.

    A sample is stored as its relative difference from the row's ``seconds``, in units of 1e-4: short, and finer than a clock.
    """
    keys = list(data.cases["case"])
    found = [list(data.samples.get((keys[row["case"]], row["backend"]), {}).values()) for row in times]
    whole = sum(len(values) for rounds in found for values in rounds) <= MAX_SAMPLES
    drawn: list[list[list[int]] | None] = []
    for row, rounds in zip(times, found, strict=True):
        if not rounds or row["seconds"] is None:
            drawn.append(None)
            continue
        kept = rounds if whole else [[statistics.median(values)] for values in rounds]
        drawn.append([[round(1e4 * (seconds / row["seconds"] - 1)) for seconds in values] for values in kept])
    return drawn, whole


def reasons(data: Frames, times: Rows) -> dict[int, str]:
    """Message of the failure behind a row of ``times``, by row number; long messages are cut."""
    keys = list(data.cases["case"])
    first = data.failures.drop_duplicates(["case", "backend"])
    pairs = zip(first["case"], first["backend"], strict=True)
    messages = dict(zip(pairs, map(cut, first["message"]), strict=True))
    found = ((number, messages.get((keys[row["case"]], row["backend"]))) for number, row in enumerate(times))
    return {number: message for number, message in found if message}


def joined(data: Frames, cases: Rows, rows: Rows) -> Rows:
    """Rows with the fields of their cases and the indices of their backends, as the page's script joins them."""
    index = {name: number for number, name in enumerate(data.backends)}
    orders = ("backend", "a", "b")
    return [
        (cases[row["case"]] if "case" in row else {}) | row | {f"{n}_order": index[row[n]] for n in orders if n in row}
        for row in rows
    ]


def shown_backends(data: Frames) -> list[str]:
    """The backends that could run here."""
    states = data.summary.groupby("backend")["status"].agg(set)
    return [name for name in data.backends if states.get(name, set()) - {"unavailable", "missing"}]


def tensor_order(data: Frames) -> list[str]:
    """All checked tensors, largest error over tolerance first."""
    rank = data.gates.assign(rank=data.gates["error_over_tolerance"].fillna(np.inf))
    return list(rank.sort_values("rank", ascending=False, kind="stable")["tensor"].drop_duplicates())


def _times(data: Frames) -> pd.DataFrame:
    names = {"seconds_low": "low", "seconds_high": "high"}
    columns = ["case", "backend", "status", "rounds", "seconds", "seconds_low", "seconds_high", "gflops", "peak_bytes"]
    columns += ["device_seconds"] if data.summary["device_seconds"].notna().any() else []
    shown = data.summary["backend"].isin(shown_backends(data))
    return data.summary.loc[shown, columns].rename(columns=names)


def _pairs(data: Frames) -> pd.DataFrame:
    """Every pair of backends on one device in every case, timed or not: speed of ``a`` over ``b``, and the status of both."""
    order = {name: place for place, name in enumerate(shown_backends(data))}
    states = data.summary.loc[data.summary["backend"].isin(order), ["case", "backend", "status"]]
    every = states.rename(columns={"backend": "a", "status": "status_a"}).merge(
        states.rename(columns={"backend": "b", "status": "status_b"}), on="case"
    )
    every = every[
        (every["a"].map(order) < every["b"].map(order)) & (every["a"].map(data.devices) == every["b"].map(data.devices))
    ]
    names = {"backend": "a", "other": "b", "speedup_low": "low", "speedup_high": "high"}
    columns = ["case", "backend", "other", "speedup", "speedup_low", "speedup_high", "verdict"]
    return every.merge(data.pairs[columns].rename(columns=names), on=["case", "a", "b"], how="left")


def _startup(data: Frames) -> pd.DataFrame:
    """Median over rounds of each stage, per case and backend, in seconds."""
    columns = ["case", "backend", "stage", "stage_order", "seconds"]
    if data.startup.empty:
        return pd.DataFrame(columns=columns)
    cold = data.startup["cold"]
    parts = [
        data.startup.assign(stage="import", seconds=data.startup["import_s"]),
        data.startup.assign(stage="load", seconds=data.startup["load_s"]),
        data.startup[cold].assign(stage="first call, empty cache", seconds=data.startup["first_call_s"]),
        data.startup[~cold].assign(stage="first call, warm cache", seconds=data.startup["first_call_s"]),
    ]
    started = pd.concat(parts).groupby(["case", "backend", "stage"], sort=False)["seconds"].median().reset_index()
    keys = started[["case", "backend"]].drop_duplicates()
    steady = keys.merge(data.summary[["case", "backend", "seconds"]], on=["case", "backend"]).assign(stage="steady call")
    stages = pd.concat([started, steady], ignore_index=True).dropna(subset=["seconds"])
    return stages.assign(stage_order=stages["stage"].map(STAGES.index))[columns]


def _gates(data: Frames) -> pd.DataFrame:
    """Largest error over tolerance per backend, tensor and kind of case; an error without a number counts as largest."""
    by = ["phase", "cell", "dtype", "threads", "backend", "tensor"]
    gates = data.gates.copy()
    gates["number"] = gates["error_over_tolerance"].replace(np.inf, np.nan)
    gates["rank"] = gates["number"].fillna(np.inf)
    gates["count"] = gates.groupby(by)["tensor"].transform("size")
    worst = gates.sort_values("rank", ascending=False, kind="stable").drop_duplicates(by)
    tensors = {name: place for place, name in enumerate(tensor_order(data))}
    worst = worst.assign(tensor_order=worst["tensor"].map(tensors))
    columns = ["case", "backend", "tensor", "error", "tolerance", "number", "count", "tensor_order"]
    return worst[columns].rename(columns={"number": "ratio"})
