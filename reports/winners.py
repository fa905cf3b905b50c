"""The fastest backend of each case, as a frame and in sentences."""

from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from rnnbench.reports.devices import by_device
from rnnbench.reports.frames import CASE_FIELDS, Frames, oriented
from rnnbench.reports.text import Answer, count, factor, listed, percent, share, times
from rnnbench.suite.case import PHASES, Case

PHASE_TEXT = {
    "forward": "inference (forward)",
    "step": "a training step (forward and BPTT)",
    "tbptt": "truncated BPTT over a whole sequence",
}
TOPICS = {"forward": "Inference", "step": "Training", "tbptt": "Truncated BPTT"}
VERDICTS = {"faster": "faster in", "slower": "slower in", "same": "the same in", "unclear": "unclear in"}
MAX_NAMED = 4
USUAL_CHOICE = "torch_nn"
"""What most people would use instead: the lead of the fastest is told against it where it took part."""

USUAL = {field.name: field.default for field in msgspec.structs.fields(Case) if field.default is not msgspec.NODEFAULT}


class Winner(NamedTuple):
    """The fastest backend of a case on a device.

    ``backend`` has the smallest median time, ``tied`` are the backends tied with it.  ``outcome`` is its name where the lead
    is clear, else "same", "unclear" or "alone" (no other backend completed the case).
    """

    case: str
    backend: str
    tied: tuple[str, ...]
    outcome: str
    device: str


def winners(data: Frames) -> pd.DataFrame:
    """One row per case and device with a time: the fields of ``Winner`` and of the case."""
    return pd.concat([_winners(part, device) for device, part in by_device(data).items()], ignore_index=True)


def _winners(data: Frames, device: str) -> pd.DataFrame:
    measured = data.summary[data.summary["status"] == "measured"]
    both = oriented(data.pairs)
    verdicts = dict(zip(zip(both["case"], both["backend"], both["other"], strict=True), both["verdict"], strict=True))
    ordered: dict[str, list[str]] = {case: [] for case in data.cases["case"]}
    by_time = measured.sort_values("seconds", kind="stable")
    for case, backend in zip(by_time["case"], by_time["backend"], strict=True):
        ordered[case].append(backend)
    rows = [_winner(case, names, verdicts, device) for case, names in ordered.items() if names]
    return pd.DataFrame(rows, columns=list(Winner._fields)).merge(data.cases, on="case")


def _winner(case: str, ordered: list[str], verdicts: dict[tuple[str, str, str], str], device: str) -> Winner:
    """``ordered``: backends by median time.  An unclear result against any rival makes the case unclear."""
    best, *rivals = ordered
    found = {name: verdicts.get((case, best, name), "unclear") for name in rivals}
    tied = tuple(name for name, verdict in found.items() if verdict == "same")
    if not rivals:
        return Winner(case, best, tied, "alone", device)
    if "unclear" in found.values() or "slower" in found.values():  # slower within rounds, despite its smaller median
        return Winner(case, best, tied, "unclear", device)
    return Winner(case, best, tied, "same" if tied else best, device)


def speed_answers(data: Frames) -> list[Answer]:
    """For a run on one device, one answer per phase: wins by backend and cell, and every backend against the baseline."""
    fastest = winners(data)
    if fastest.empty:
        return [Answer("Nothing was timed in this run: no backend completed a case.", [], "Speed")]
    return [_speed(data, fastest[fastest["phase"] == phase], phase) for phase in PHASES if (fastest["phase"] == phase).any()]


def _speed(data: Frames, part: pd.DataFrame, phase: str) -> Answer:
    return Answer(
        f"For {PHASE_TEXT[phase]}, {_outcomes(part)}.{_lead(data, part)}",
        [f"{cell}: {_outcomes(group, named=True)}." for cell, group in part.groupby("cell", sort=False)]
        + _against_baseline(data, phase),
        TOPICS[phase],
    )


def _lead(data: Frames, part: pd.DataFrame) -> str:
    """By how much the backend leads that is clearly fastest in at least half of the cases, and how sure that is.

    Nothing where there is no such backend, or where most of its comparisons with the rival are unclear.
    """
    won = part.loc[~part["outcome"].isin(["same", "unclear", "alone"]), "outcome"].value_counts()
    if won.empty or 2 * won.iloc[0] < len(part):
        return ""
    best, both = str(won.index[0]), oriented(data.pairs)
    against = both[(both["backend"] == best) & both["case"].isin(part["case"])].dropna(subset=["speedup"])
    medians = against.groupby("other")["speedup"].median()
    rival = USUAL_CHOICE if USUAL_CHOICE in medians.index else str(medians.idxmin())
    speeds = against[against["other"] == rival]
    if 2 * (speeds["verdict"] == "unclear").sum() > len(speeds):
        return ""
    median, low, high = (times(speed) for speed in (medians[rival], speeds["speedup"].min(), speeds["speedup"].max()))
    typical = f" in the median of {len(speeds)} cases ({low} to {high} times)" if len(speeds) > 1 else ""
    width = float(np.sqrt((speeds["speedup_high"] / speeds["speedup_low"]).median())) - 1
    sure = f", known to within {percent(width)}" if np.isfinite(width) else ""
    return f" {best} is {median} times as fast as {rival}{typical}{sure}."


def _outcomes(part: pd.DataFrame, *, named: bool = False) -> str:
    """``a is fastest in 3 of 9 cases, b in 1; 2 cases are tied, 3 are unclear``; ``named`` adds which cases."""
    total = len(part)
    groups = {str(name): part[part["outcome"] == name] for name in part["outcome"].value_counts().index}
    wins = []
    for name in (name for name in groups if name not in ("same", "unclear", "alone")):
        clause = f"{name} in {len(groups[name])}" if wins else f"{name} is fastest in {share(len(groups[name]), total)}"
        wins.append(clause + (_where(part, groups[name]) if named and wins else ""))
    nobody = "no backend is clearly fastest in " + ("the only case" if total == 1 else f"any of {total} cases")
    undecided = []
    for name, word in (("same", "tied"), ("unclear", "unclear")):
        if name in groups:
            number = len(groups[name])
            how_many = f"{number}" if undecided else count(number, "case")
            between = _between(groups[name]) if name == "same" else ""
            where = _where(part, groups[name]) if named else ""
            undecided.append(f"{how_many} {'is' if number == 1 else 'are'} {word}{between}{where}")
    sentence = [", ".join(wins) or nobody, *([", ".join(undecided)] if undecided else [])]
    if "alone" in groups:
        who = listed(dict.fromkeys(groups["alone"]["backend"].astype(str)))
        sentence.append(f"in {len(groups['alone'])} only one backend completed ({who})")
    return "; ".join(sentence)


def _between(ties: pd.DataFrame) -> str:
    """`` between a and b`` where all ties are between the same backends."""
    who = {tuple(sorted([best, *tied])) for best, tied in zip(ties["backend"], ties["tied"], strict=True)}
    return f" between {listed(who.pop())}" if len(who) == 1 else ""


def _where(part: pd.DataFrame, cases: pd.DataFrame) -> str:
    """`` (T 16, H 32; T 64, H 32)``: the sizes that vary within the part, or what all the cases share."""
    if len(cases) == len(part):
        return ""
    varying = [name for name in CASE_FIELDS if part[name].nunique(dropna=False) > 1]
    shared = [name for name in varying if cases[name].nunique(dropna=False) == 1]
    rows = [dict(zip(CASE_FIELDS, row, strict=True)) for row in cases[list(CASE_FIELDS)].itertuples(index=False, name=None)]
    if shared and len(cases) > 1:
        key = part.loc[(part[shared] == cases[shared].iloc[0]).all(axis=1)]
        if len(key) == len(cases):
            return f" (where {_sizes(rows[0], shared)})"
    places = [_sizes(row, varying) for row in rows[:MAX_NAMED]]
    more = f"; and {len(rows) - MAX_NAMED} more" if len(rows) > MAX_NAMED else ""
    return f" ({'; '.join(places)}{more})"


def _sizes(row: dict[str, Any], names: list[str]) -> str:
    """The fields by name and value, without defaults and without I where it equals H."""
    usual = [name for name in names if name in USUAL and (pd.isna(row[name]) or row[name] == USUAL[name])]
    follows = ["I"] if "H" in names and row["I"] == row["H"] else []
    shown = [name for name in names if name not in usual + follows] or names
    return ", ".join(name if row[name] is True else f"{name} = {row[name]}" for name in shown)


def _against_baseline(data: Frames, phase: str) -> list[str]:
    part = data.summary[(data.summary["phase"] == phase) & (data.summary["status"] == "measured")]
    part = part.dropna(subset=["speedup"])
    sentences = []
    for backend, group in part.groupby("backend", sort=False):
        speeds = group["speedup"]
        counts = group["verdict"].value_counts()
        parts = ", ".join(f"{text} {counts[name]}" for name, text in VERDICTS.items() if name in counts)
        spread = f" ({factor(speeds.min())} to {factor(speeds.max())})" if len(speeds) > 1 else ""
        sentences.append(
            f"{backend} runs at {factor(speeds.median())} the speed of {data.baseline}{spread}: "
            f"{parts} of {count(len(group), 'case')}."
        )
    return sentences
