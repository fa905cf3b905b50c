"""Sweeps: groups of cases that belong on one line or map, because they differ only in what its axes show."""

import math
from typing import NamedTuple

import pandas as pd

from rnnbench.compare.intervals import CONFIDENCE, order_statistic
from rnnbench.reports.frames import CASE_FIELDS
from rnnbench.reports.intervals import scaling_exponent

AXES = {
    "map_T": ("cell", "H", "T"),
    "map_B": ("cell", "H", "B"),
    "T": ("cell", "T"),
    "H": ("cell", "H"),
    "window": ("cell", "window"),
}
"""Fields shown by each kind of sweep; all other fields of its cases are equal."""

VARIES = {"map_T": ("H", "T"), "map_B": ("B",), "T": ("T",), "H": ("H",), "window": ("window",)}
"""Fields of which at least one must take two or more values in a sweep."""

UNITS = {"layers": "layers", "threads": "threads", "stride": "stride", "window": "window", "output_size": "O"}


class Sweeps(NamedTuple):
    """Sweeps by kind.

    ``index``: number of the sweep by case key (absent where the case is in none).  ``labels``: what each sweep holds fixed,
    largest sweep first.  ``common``: what all of them hold fixed.
    """

    index: dict[str, dict[str, int]]
    labels: dict[str, list[str]]
    common: dict[str, str]


def sweeps(cases: pd.DataFrame) -> Sweeps:
    """Group the cases of ``Frames.cases`` into sweeps of each kind.

    Where H varies, I is either fixed or equal to H, whichever gives more sizes.
    """
    index, labels, common = {}, {}, {}
    for name, axes in AXES.items():
        groups = _groups(cases, axes, VARIES[name])
        index[name] = {case: number for number, group in enumerate(groups) for case in group["case"]}
        fixed = [_fixed(group, axes) for group in groups]
        shared = dict(set.intersection(*(set(values.items()) for values in fixed))) if fixed else {}
        common[name] = _label({field: shared[field] for field in CASE_FIELDS if field in shared})
        labels[name] = [_label({f: v for f, v in values.items() if f not in shared}) for values in fixed]
    return Sweeps(index, labels, common)


def shared(cases: pd.DataFrame) -> str:
    """What all cases have in common, as text; ``I = H`` where that holds."""
    same = {name: str(cases[name].iloc[0]) for name in CASE_FIELDS if cases[name].notna().all() and cases[name].nunique() == 1}
    if "I" not in same and (cases["I"] == cases["H"]).all():
        same["I"] = "H"
    return _label({name: same[name] for name in CASE_FIELDS if name in same})


def _groups(cases: pd.DataFrame, axes: tuple[str, ...], varies: tuple[str, ...]) -> list[pd.DataFrame]:
    cases = cases[cases[axes[-1]].notna()].copy()
    keys = [name for name in CASE_FIELDS if name not in axes]
    cases["I"] = cases["I"].astype("object")
    if "H" in axes:
        tied = cases["I"].where(cases["I"] != cases["H"], "H")
        free = cases.groupby(keys, dropna=False)["H"].transform("nunique")
        following = cases.assign(I=tied).groupby(keys, dropna=False)["H"].transform("nunique")
        cases["I"] = cases["I"].where(following <= free, tied)
    groups = [group for _, group in cases.groupby(keys, dropna=False, sort=False)]
    if len(axes) == 2:  # a line needs two points
        groups = [group[group.groupby("cell")[axes[-1]].transform("nunique") > 1] for group in groups]
    found = [group for group in groups if any(group[name].nunique() > 1 for name in varies)]
    return sorted(found, key=len, reverse=True)


def _fixed(group: pd.DataFrame, axes: tuple[str, ...]) -> dict[str, str]:
    first = group.iloc[0]
    return {name: str(first[name]) for name in CASE_FIELDS if name not in axes and pd.notna(first[name])}


def _label(fixed: dict[str, str]) -> str:
    """Fixed fields as text: sizes as ``B = 16``, flags by name, the rest by value."""
    parts = []
    for name, value in fixed.items():
        if name in ("bidirectional", "bias"):
            parts.append(name if value == "True" else f"no {name}" if name == "bias" else "one direction")
        elif name in UNITS or len(name) == 1:
            parts.append(f"{UNITS.get(name, name)} = {value}")
        elif name == "lengths":
            parts.append(f"{value} lengths")
        else:
            parts.append(value)
    return ", ".join(parts)


def scaling(summary: pd.DataFrame, groups: Sweeps) -> pd.DataFrame:
    """Fit the exponent of the time per step on each line over T, H and window.

    Columns: ``picture``, ``sweep``, ``cell``, ``backend``, ``exponent``, ``low``, ``high`` (95%; NaN below three points, or
    where a point has fewer than 6 rounds), ``points``.
    """
    measured = summary[summary["status"] == "measured"]
    rows = []
    for picture in ("T", "H", "window"):
        numbers = measured["case"].map(groups.index[picture])
        on_line = measured.assign(sweep=numbers)[numbers.notna()]
        lines: dict[tuple[int, str, str], tuple[list[float], list[float], list[int]]] = {}
        for sweep, cell, backend, x, y, number in on_line[
            ["sweep", "cell", "backend", picture, "step_seconds", "rounds"]
        ].itertuples(index=False):
            xs, ys, rounds = lines.setdefault((int(sweep), cell, backend), ([], [], []))
            xs.append(float(x))
            ys.append(y)
            rounds.append(int(number))
        for line, (xs, ys, rounds) in lines.items():
            fit = scaling_exponent(xs, ys)
            if order_statistic(min(rounds))[1] < CONFIDENCE:  # without intervals of the points there is none of the fit
                fit = fit._replace(low=math.nan, high=math.nan)
            rows.append((picture, *line, *fit))
    return pd.DataFrame(rows, columns=["picture", "sweep", "cell", "backend", "exponent", "low", "high", "points"])
