"""Sentences on truncation (error against time and memory) and on start-up (time until a slower start pays off)."""

import numpy as np
import pandas as pd

from rnnbench.reports.frames import CASE_FIELDS, Frames, oriented
from rnnbench.reports.text import Answer, count, duration, listed, percent

SMALL_ERROR = 0.1
"""Relative error up to which a truncated gradient counts as close to the full one."""

STARTUP = ["import_s", "load_s", "first_call_s"]


def truncation_answers(data: Frames) -> list[Answer]:
    """The smallest window whose gradient is close to that of full BPTT, and what the baseline saves with it."""
    frame = data.truncation.dropna(subset=["relative_error"])
    details, smallest, named = [], [], []
    same = [name for name in CASE_FIELDS if name not in ("window", "stride")]
    for _, group in frame.groupby(same, sort=False, dropna=False):
        errors = group.drop_duplicates("window").set_index("window")["relative_error"].sort_index()
        row = group.iloc[0]
        errors = errors[errors.index < row["T"]]
        small = errors[errors <= SMALL_ERROR]
        name = f"{row['cell']} (T = {row['T']}, H = {row['H']})"
        if len(small):
            window = int(small.index[0])
            text = f"{name}: a window of {window} keeps the gradient within {percent(small.iloc[0])} of full BPTT"
            details.append(f"{text}{_savings(data, group, window)}.")
            smallest.append(window)
            named.append(name)
        elif len(errors):
            details.append(
                f"{name}: no measured window below T keeps the gradient within {SMALL_ERROR:.0%} of full BPTT; "
                f"{errors.index[-1]} is off by {percent(errors.iloc[-1])}."
            )
        if len(errors):
            every = [f"{percent(error)} at {window}" for window, error in errors.items()]
            details.append(f"{name}: relative gradient error by window: {listed(every)} steps.")
    if not details:
        return []
    near = f"within {SMALL_ERROR:.0%} of full BPTT"
    if not smallest:
        return [Answer(f"No measured truncation window below T keeps the gradient {near}.", details, "Cost of truncation")]
    sizes = f"{min(smallest)}" if min(smallest) == max(smallest) else f"{min(smallest)} to {max(smallest)}"
    of = f"of {named[0]} " if len(named) == 1 else ""
    details.append("The weights are those at the start of training; a trained network may need a different window.")
    text = f"Truncated BPTT keeps the gradient {of}{near} from a window of {sizes} steps on."
    return [Answer(text, details, "Cost of truncation")]


def _savings(data: Frames, group: pd.DataFrame, window: int) -> str:
    """What the baseline saves with this window compared with the whole sequence, if both were measured."""
    lines = group[(group["backend"] == data.baseline) & (group["status"] == "measured")].set_index("window")
    full = lines.index[lines.index >= group["T"].iloc[0]]
    if window not in lines.index or full.empty:
        return ""
    short, whole = lines.loc[window], lines.loc[full[0]]
    parts = [f"{percent(short['seconds'] / whole['seconds'])} of the time"]
    if np.isfinite(short["peak_bytes"] / whole["peak_bytes"]):
        parts.insert(0, f"{percent(short['peak_bytes'] / whole['peak_bytes'])} of the peak memory")
    return f"; {data.baseline} then needs {' and '.join(parts)} of full BPTT"


def startup_answers(data: Frames) -> list[Answer]:
    """Time of each backend until its first result, and when a slower start pays off."""
    if data.startup.empty:
        return []
    frame = data.startup.assign(total=data.startup[STARTUP].sum(axis=1))
    cache_text = {True: "an empty JIT cache", False: "a warm one"}
    medians = {
        cold: frame[frame["cold"] == cold].groupby("backend", sort=False)["total"].median()
        for cold in cache_text
        if (frame["cold"] == cold).any()
    }
    details = []
    for backend in frame["backend"].drop_duplicates():
        parts = [f"{duration(by[backend])} with {cache_text[cold]}" for cold, by in medians.items() if backend in by]
        details.append(f"{backend}: {', '.join(parts)}.")
    cold, first = next(iter(medians.items()))
    claim = ", ".join(f"{duration(value)} for {backend}" for backend, value in first.sort_values().items())
    details.append("Sum of import, load and first call; median over cases.")
    cache = "an empty" if cold else "a warm"
    return [Answer(f"The first result with {cache} JIT cache takes {claim}.", details + break_even(data), "Start-up")]


def break_even(data: Frames) -> list[str]:
    """After how many calls a backend with a slower start, but clearly faster calls, has caught up (empty JIT cache)."""
    cold = data.startup[data.startup["cold"]]
    total = cold.assign(start=cold[STARTUP].sum(axis=1))
    start = total.groupby(["case", "backend"], sort=False, as_index=False)["start"].median()
    measured = data.summary.loc[data.summary["status"] == "measured", ["case", "backend", "seconds"]]
    each = start.merge(measured, on=["case", "backend"])
    verdicts = oriented(data.pairs)[["case", "backend", "other", "verdict"]]
    both = each.merge(each.rename(columns={"backend": "other"}), on="case", suffixes=("", "_other"))
    both = both.merge(verdicts, on=["case", "backend", "other"])
    both = both[(both["verdict"] == "faster") & (both["start"] > both["start_other"])]
    # the medians may disagree with the ratios within rounds
    both = both[both["seconds"] < both["seconds_other"]]
    both = both.assign(calls=1 + np.ceil((both["start"] - both["start_other"]) / (both["seconds_other"] - both["seconds"])))
    sentences = []
    for (backend, other), group in both.groupby(["backend", "other"], sort=False):
        least, most = int(group["calls"].min()), int(group["calls"].max())
        calls = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        sentences.append(
            f"{backend}, started with an empty cache, has caught up with {other} after {calls} calls, "
            f"where it is the faster one ({count(len(group), 'case')})."
        )
    return sentences
