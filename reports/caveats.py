"""Caveats of a run: why its numbers need care, or else what they rest on."""

import numpy as np
import pandas as pd

from rnnbench.compare.verdicts import RANKING_MIN_ROUNDS
from rnnbench.measure.disturbances import MAX_VAIN_REPEATS
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import Answer, count, listed, percent

NOISY = 0.2
"""Fraction of disturbed rounds above which a case is noisy."""

MAX_NOISY = 3
"""Maximum number of noisy cases named in the sentence; the page has a table of all."""

WIDE = 0.05
"""Median relative half-width of the intervals above which the run cannot resolve small differences."""


def caveats_answer(data: Frames) -> Answer:
    """The caveats in a sentence, or what the numbers rest on where there are none."""
    found, basis = caveats(data), _basis(data)
    if found:
        claims, details = zip(*found, strict=True)
        return Answer(f"Read these numbers with care: {'; '.join(claims)}.{_clear(data)}", [*details, basis], "Trust")
    return Answer(f"This run has no caveats. {basis}{_clear(data)}", [], "Trust")


def caveats(data: Frames) -> list[tuple[str, str]]:
    """Reasons to read the numbers with care, each as a clause and as a sentence with details."""
    return [*_cut_short(data), *_disturbed(data), *_unusable(data)]


def half_width(data: Frames) -> float:
    """Median relative half-width of the intervals of the speeds against the baseline; NaN where there are none."""
    rivals = _rivals(data)
    ratios = (rivals["speedup_high"] / rivals["speedup_low"]).dropna()
    return float(np.sqrt(ratios.median())) - 1 if len(ratios) else np.nan


def repeats(data: Frames) -> str:
    """How the run handled disturbed rounds."""
    most = data.run.settings.get("vain_repeats", MAX_VAIN_REPEATS)  # older runs did not store the setting
    if most == 0:
        return "No round was measured again."
    return f"Such rounds were measured again, until {most} repeats in a row were disturbed too."


def _rivals(data: Frames) -> pd.DataFrame:
    """Measured results other than the baselines'."""
    return data.summary[(data.summary["status"] == "measured") & (data.summary["backend"] != data.summary["baseline"])]


def _baselines(data: Frames) -> str:
    """The baseline of each device."""
    return listed(data.baselines.values())


def _clear(data: Frames) -> str:
    """A sentence on how many comparisons with the baseline gave a clear result."""
    verdicts = _rivals(data)["verdict"].dropna()
    if verdicts.empty:
        return ""
    clear = int((verdicts != "unclear").sum())
    compared = f"{count(len(verdicts), 'comparison')} with {_baselines(data)}"
    return f" Of {compared}, {clear} gave a clear result: faster, slower or the same."


def _basis(data: Frames) -> str:
    rounds = data.summary.loc[data.summary["status"] == "measured", "rounds"]
    if rounds.empty:
        return "No time was stored."
    least, most = int(rounds.min()), int(rounds.max())
    parts = [f"{count(most, 'round') if least == most else f'{least} to {most} rounds'} of fresh processes"]
    width = half_width(data)
    if np.isfinite(width):
        parts.append(f"half of the speeds relative to {_baselines(data)} are known to within {percent(width)}")
    disturbed = float(data.cases["disturbed"].mean())
    parts.append(f"the machine disturbed {percent(disturbed)} of the rounds" if disturbed else "no round was disturbed")
    return f"These numbers rest on {listed(parts)}."


def _cut_short(data: Frames) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if data.end is None or data.end.interrupted:
        found.append(("the run was interrupted", "Whatever the run had not reached is missing."))
    if "--quick" in data.run.command:
        found.append(("it was a quick run", "A quick run takes few rounds and short samples, for a first look."))
    rounds = int(data.summary["rounds"].max()) if len(data.summary) else 0
    if 0 < rounds < 6:
        worth = 100 * (1 - 2.0 ** (1 - rounds))
        detail = f"Below 6 rounds no interval reaches 95%: each is the whole range, which holds the median with {worth:.1f}%."
        few = rounds < RANKING_MIN_ROUNDS
        detail += f" Below {RANKING_MIN_ROUNDS} rounds every comparison is unclear." if few else ""
        found.append((f"{count(rounds, 'round')} at most", detail))
    return found


def _disturbed(data: Frames) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    width = half_width(data)
    if width > WIDE:
        claim = f"half of the speeds are known no better than to {percent(width)}"
        found.append((claim, "More rounds or a quieter machine would narrow the intervals."))
    noisy = data.cases.loc[data.cases["disturbed"] > NOISY, "label"]
    if len(noisy):
        which = listed(noisy) if len(noisy) <= MAX_NOISY else f"{len(noisy)} of {len(data.cases)} cases"
        which = "every case" if len(noisy) == len(data.cases) else which
        claim = f"the machine disturbed more than {NOISY:.0%} of the rounds of {which}"
        found.append((claim, f"The machine took or withheld processor time, or changed its clock rate. {repeats(data)}"))
    wrong = [finding for finding in data.look.findings if finding.state == "wrong"] if data.look else []
    if wrong:
        claim = f"rnnbench machine found {count(len(wrong), 'problem')} for measuring"
        found.append((claim, f"How it was measured has the details: {listed(finding.check for finding in wrong)}."))
    return found


def _unusable(data: Frames) -> list[tuple[str, str]]:
    if not data.problems:
        return []
    lines = count(len(data.problems), "line")
    claim = f"{lines} of the results file could not be used"
    return [(claim, "How it was measured lists each of them.")]
