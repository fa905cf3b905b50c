"""What textbooks say about the cost of recurrent networks, and whether it holds in a run."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import pandas as pd

from rnnbench.compare.intervals import CONFIDENCE, order_statistic
from rnnbench.reports.frames import CASE_FIELDS, Frames
from rnnbench.reports.intervals import Exponent, scaling_exponent

HOLDS, FAILS, UNCLEAR = "holds", "does not hold", "unclear"

BAND = 0.15
"""Largest difference between an exponent and the stated one at which the sentence still holds."""

NO_GAIN = 1.1
"""Largest speed-up by a second thread that counts as none."""


class Claim(NamedTuple):
    """A sentence: over ``field``, ``measure`` grows with the power ``exponent``, in cases of ``phase``."""

    sentence: str
    field: str
    measure: str
    exponent: float
    phase: str


CLAIMS = (
    Claim("BPTT takes time proportional to the number of steps T.", "T", "seconds", 1, "step"),
    Claim("BPTT takes memory proportional to the number of steps T.", "T", "peak_bytes", 1, "step"),
    Claim("The window of truncated BPTT bounds its memory: it grows with the window.", "window", "peak_bytes", 1, "tbptt"),
    Claim("Truncated BPTT takes the time of full BPTT, whatever the window.", "window", "seconds", 0, "tbptt"),
    Claim("Time grows with the square of the hidden size H (and I = H).", "H", "seconds", 2, "step"),
    Claim("Time is proportional to the batch B.", "B", "seconds", 1, "step"),
    Claim("Time is proportional to the number of layers.", "layers", "seconds", 1, "step"),
)

SERIAL = "Steps wait for each other: for one sequence, a second thread gains nothing."


def textbook_claims(data: Frames) -> pd.DataFrame:
    """Compare each sentence with the lines of a run that can tell, one row per sentence, backend, cell and line.

    ``sentence``; ``backend``; ``cell``; ``fixed`` (the other fields that differ between lines); ``measured`` (an exponent or
    a speed-up, with its 95% interval); ``points``; ``verdict``: holds, does not hold or unclear.  An exponent holds within
    +-0.15 of the stated one, all of its interval; it is unclear where it has no interval.
    """
    rows = [row for claim in CLAIMS for row in _of_exponent(data, claim)]
    rows += _of_threads(data)
    columns = ["sentence", "backend", "cell", "fixed", "measured", "points", "verdict"]
    return pd.DataFrame(rows, columns=columns)


def _of_exponent(data: Frames, claim: Claim) -> Iterator[tuple[str, str, str, str, str, int, str]]:
    for line in _lines(data, claim.field, claim.phase):
        points = line.dropna(subset=[claim.measure])
        if points[claim.field].nunique() < 3:
            continue
        fit = scaling_exponent(points[claim.field].astype(float), points[claim.measure].astype(float))
        if claim.measure == "seconds" and order_statistic(int(points["rounds"].min()))[1] < CONFIDENCE:
            fit = fit._replace(low=math.nan, high=math.nan)  # without intervals of the points there is none of the fit
        first = points.iloc[0]
        shown = f"{claim.field}^{_number(fit.value)}{_interval(fit)}"
        fixed = _fixed(first, claim.field)
        yield claim.sentence, first["backend"], first["cell"], fixed, shown, fit.points, _verdict(fit, claim.exponent)


def _of_threads(data: Frames) -> Iterator[tuple[str, str, str, str, str, int, str]]:
    for line in _lines(data, "threads", "step"):
        times: dict[int, Any] = {row["threads"]: row for row in line.to_dict("records") if row["B"] == 1}
        if not {1, 2} <= set(times):
            continue
        one, two = times[1], times[2]
        value = one["seconds"] / two["seconds"]
        low, high = one["seconds_low"] / two["seconds_high"], one["seconds_high"] / two["seconds_low"]
        verdict = HOLDS if high <= NO_GAIN else FAILS if low > NO_GAIN else UNCLEAR
        if order_statistic(int(min(one["rounds"], two["rounds"])))[1] < CONFIDENCE:
            verdict = UNCLEAR
        shown = f"{value:.2f} times as fast with 2 threads [{low:.2f}, {high:.2f}]"
        yield SERIAL, one["backend"], one["cell"], _fixed(line.iloc[0], "threads"), shown, 2, verdict


def _lines(data: Frames, field: str, phase: str) -> Iterator[pd.DataFrame]:
    """The measured cases of each backend that differ in ``field`` alone; where H varies, I = H may follow it."""
    measured = data.summary[(data.summary["status"] == "measured") & (data.summary["phase"] == phase)]
    measured = measured[measured[field].notna()]
    if field == "H":
        measured = measured[measured["I"] == measured["H"]]
    ignored = {field, "I"} if field == "H" else {field, "stride"} if field == "window" else {field}
    keys = ["backend", *(name for name in CASE_FIELDS if name not in ignored)]
    for _, line in measured.groupby(keys, dropna=False, sort=False):
        yield line.sort_values(field)


def _fixed(row: pd.Series, field: str) -> str:
    names = [name for name in ("T", "B", "H", "layers", "threads") if name != field]
    shown = [f"{name} = {row[name]}" for name in names if not (name in ("layers", "threads") and row[name] == 1)]
    return ", ".join([*shown, f"{row['lengths']} lengths"] if row["lengths"] else shown)


def _verdict(fit: Exponent, stated: float) -> str:
    if math.isnan(fit.low):
        return UNCLEAR
    if stated - BAND <= fit.low and fit.high <= stated + BAND:
        return HOLDS
    return FAILS if fit.high < stated - BAND or fit.low > stated + BAND else UNCLEAR


def _number(value: float) -> str:
    return f"{value:.2f}"


def _interval(fit: Exponent) -> str:
    return "" if math.isnan(fit.low) else f" [{fit.low:.2f}, {fit.high:.2f}]"
