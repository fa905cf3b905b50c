"""The answer in sentences, made from the data: for the top of the page and for a terminal."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import pandas as pd

from rnnbench.reports.frames import CASE_FIELDS, Frames, oriented, to_pandas
from rnnbench.store import PHASES, Case

PHASE_WORDS = {
    "forward": "inference (forward)",
    "step": "a training step (forward and BPTT)",
    "tbptt": "truncated BPTT over a whole sequence",
}
MOST_NAMED = 4
SMALL_ERROR = 0.1
USUAL = {field.name: field.default for field in msgspec.structs.fields(Case) if field.default is not msgspec.NODEFAULT}
LONGEST_WORD = 60
REASONS = {
    "wrong": "gave wrong results on",
    "error": "failed with an error on",
    "crashed": "crashed on",
    "timeout": "ran out of time on",
    "unsupported": "does not support",
    "missing": "has no result for",
}


class Answer(NamedTuple):
    """A sentence, and the sentences that carry it out."""

    text: str
    details: list[str]


def summary_text(results: Path | str) -> str:
    """The answer of a results file for a terminal, with control characters of names escaped; raises StoreError."""
    lines = []
    for answer in answers(to_pandas(results)):
        lines.append(answer.text)
        lines += [f"  - {detail}" for detail in answer.details]
    return "".join(_printable(line) + "\n" for line in lines)


def answers(data: Frames) -> list[Answer]:
    """One answer per question: who is fastest in each phase, what truncation costs and buys, start-up, checks, failures."""
    fastest = winners(data)
    found = [_speed(data, fastest, phase) for phase in PHASES if (fastest["phase"] == phase).any()]
    if fastest.empty:
        found = [Answer("Nothing was timed in this run: no backend completed a case.", [])]
    found += [*_truncation(data), *_startup(data), *_correctness(data), *_failures(data), *_caveats(data)]
    return [Answer(_clipped(text), [_clipped(detail) for detail in details]) for text, details in found]


def winners(data: Frames) -> pd.DataFrame:
    """Per case with a time: ``winner`` (least median), ``tied`` (names that tie with it) and ``outcome``: a backend's
    name, "tie", "undecided" (too few rounds) or "alone" (no other backend completed the case)."""
    measured = data.summary[data.summary["status"] == "measured"]
    pairs = oriented(data.pairs).set_index(["case", "other", "backend"])["verdict"]
    rows = []
    for case, group in measured.groupby("case", sort=False):
        winner = group.loc[group["seconds"].idxmin(), "backend"]
        others = [name for name in group["backend"] if name != winner]
        verdicts = [pairs.get((case, winner, name), "undecided") for name in others]
        tied = [name for name, verdict in zip(others, verdicts, strict=True) if verdict in ("tie", "faster")]
        outcome = "alone" if not others else "tie" if tied else "undecided" if "undecided" in verdicts else winner
        rows.append((case, winner, tied, outcome))
    frame = pd.DataFrame(rows, columns=["case", "winner", "tied", "outcome"])
    return frame.merge(data.cases, on="case")


def _speed(data: Frames, fastest: pd.DataFrame, phase: str) -> Answer:
    part = fastest[fastest["phase"] == phase]
    return Answer(
        f"For {PHASE_WORDS[phase]}, {_outcomes(part)}.",
        [f"{cell}: {_outcomes(group, named=True)}." for cell, group in part.groupby("cell", sort=False)]
        + _against_baseline(data, phase),
    )


def _outcomes(part: pd.DataFrame, *, named: bool = False) -> str:
    """``a is fastest in 3 of 5 cases, b in 1; 1 is a tie``; ``named`` adds which cases, where they are few."""
    counts = part["outcome"].value_counts()
    wins = [name for name in counts.index if name not in ("tie", "undecided", "alone")]
    total = len(part)
    clauses = []
    for place, name in enumerate(wins):
        cases = part[part["outcome"] == name]
        clause = f"{name} is fastest in {_share(len(cases), total)}" if place == 0 else f"{name} in {len(cases)}"
        clauses.append(clause + (_where(part, cases) if named and place else ""))
    text = ", ".join(clauses) if clauses else f"no backend is clearly fastest in {_any(total)}"
    if "tie" in counts:
        ties = part[part["outcome"] == "tie"]
        who = sorted({" and ".join(sorted([row.winner, *row.tied])) for row in ties.itertuples()})
        text += f"; {_count(len(ties), 'case')} {_is(len(ties))} tied" + (f" between {_listed(who)}" if len(who) == 1 else "")
        text += _where(part, ties) if named else ""
    if "undecided" in counts:
        text += f"; {_count(counts['undecided'], 'case')} {_is(counts['undecided'])} undecided: too few rounds"
    if "alone" in counts:
        who = _listed(dict.fromkeys(part.loc[part["outcome"] == "alone", "winner"]))
        text += f"; in {counts['alone']} only one backend completed ({who})"
    return text


def _where(part: pd.DataFrame, cases: pd.DataFrame) -> str:
    """`` (T 16, H 32; T 64, H 32)``: the sizes that differ within the part, or what all the cases share."""
    if len(cases) == len(part):
        return ""
    varying = [name for name in CASE_FIELDS if part[name].nunique(dropna=False) > 1]
    shared = [name for name in varying if cases[name].nunique(dropna=False) == 1]
    if shared and len(cases) > 1:
        key = part.loc[(part[shared] == cases[shared].iloc[0]).all(axis=1)]
        if len(key) == len(cases):
            return f" (where {_sizes(cases.iloc[0], shared)})"
    places = [_sizes(row, varying) for _, row in cases.head(MOST_NAMED).iterrows()]
    more = f"; and {len(cases) - MOST_NAMED} more" if len(cases) > MOST_NAMED else ""
    return f" ({'; '.join(places)}{more})"


def _sizes(row: pd.Series, names: list[str]) -> str:
    """The fields by name and value, without what is usual and without I where it follows H."""
    usual = [name for name in names if name in USUAL and (pd.isna(row[name]) or row[name] == USUAL[name])]
    tied = ["I"] if "H" in names and row["I"] == row["H"] else []
    shown = [name for name in names if name not in usual + tied] or names
    return ", ".join(name if row[name] is True else f"{name} = {row[name]}" for name in shown)


def _against_baseline(data: Frames, phase: str) -> list[str]:
    part = data.summary[(data.summary["phase"] == phase) & (data.summary["status"] == "measured")]
    part = part.dropna(subset=["speedup"])
    sentences = []
    for backend, group in part.groupby("backend", sort=False):
        speeds = group["speedup"]
        counts = group["verdict"].value_counts()
        words = {"faster": "faster in", "slower": "slower in", "tie": "tied in", "undecided": "undecided in"}
        parts = ", ".join(f"{word} {counts[name]}" for name, word in words.items() if name in counts)
        spread = f" ({_times(speeds.min())} to {_times(speeds.max())})" if len(speeds) > 1 else ""
        sentences.append(
            f"{backend} runs at {_times(speeds.median())} the speed of {data.baseline}{spread}: "
            f"{parts} of {_count(len(group), 'case')}."
        )
    return sentences


def _truncation(data: Frames) -> list[Answer]:
    frame = data.truncation.dropna(subset=["relative_error"])
    details, smallest = [], []
    same = [name for name in CASE_FIELDS if name not in ("window", "stride")]
    for _, group in frame.groupby(same, sort=False, dropna=False):
        errors = group.drop_duplicates("window").set_index("window")["relative_error"].sort_index()
        row = group.iloc[0]
        name = f"{row['cell']} (T = {row['T']}, H = {row['H']})"
        small = errors[(errors <= SMALL_ERROR) & (errors.index < row["T"])]
        if len(small):
            window = int(small.index[0])
            text = f"{name}: a window of {window} keeps the gradient within {_percent(small.iloc[0])} of full BPTT"
            details.append(f"{text}{_bought(data, group, window)}.")
            smallest.append(window)
        else:
            window = int(errors.index[errors.index < row["T"]][-1]) if (errors.index < row["T"]).any() else None
            if window:
                details.append(
                    f"{name}: no measured window below T keeps the gradient within {SMALL_ERROR:.0%} of full BPTT; "
                    f"{window} is off by {_percent(errors[window])}."
                )
    if not details:
        return []
    near = f"within {SMALL_ERROR:.0%} of full BPTT"
    if not smallest:
        return [Answer(f"No measured truncation window below T keeps the gradient {near}.", details)]
    sizes = f"{min(smallest)}" if min(smallest) == max(smallest) else f"{min(smallest)} to {max(smallest)}"
    return [Answer(f"Truncated BPTT keeps the gradient {near} from a window of {sizes} steps on.", details)]


def _bought(data: Frames, group: pd.DataFrame, window: int) -> str:
    """What the baseline saves with this window against the whole sequence, if both were measured."""
    lines = group[(group["backend"] == data.baseline) & (group["status"] == "measured")].set_index("window")
    full = lines.index[lines.index >= group["T"].iloc[0]]
    if window not in lines.index or full.empty:
        return ""
    short, whole = lines.loc[window], lines.loc[full[0]]
    parts = [f"{_percent(short['seconds'] / whole['seconds'])} of the time"]
    if np.isfinite(short["peak_bytes"] / whole["peak_bytes"]):
        parts.insert(0, f"{_percent(short['peak_bytes'] / whole['peak_bytes'])} of the peak memory")
    return f"; {data.baseline} then needs {' and '.join(parts)} of full BPTT"


def _startup(data: Frames) -> list[Answer]:
    if data.startup.empty:
        return []
    frame = data.startup.assign(total=data.startup[["import_s", "load_s", "first_call_s"]].sum(axis=1))
    middle = frame.groupby(["backend", "cold"], sort=False)["total"].median().unstack()
    details = []
    for backend, row in middle.iterrows():
        parts = [f"{_seconds(row[cold])} with {word}" for cold, word in ((True, "an empty JIT cache"), (False, "a warm one"))
                 if cold in row and np.isfinite(row[cold])]  # fmt: skip
        details.append(f"{backend}: {', '.join(parts)}.")
    first = middle[True in middle].dropna().sort_values()
    cache = "an empty" if True in middle else "a warm"
    claim = ", ".join(f"{_seconds(value)} for {backend}" for backend, value in first.items())
    details.append("Import, load and first call together; the median over cases.")
    return [Answer(f"The first result with {cache} JIT cache takes {claim}.", details + break_even(data))]


def break_even(data: Frames) -> list[str]:
    """After how many calls a backend that starts later, but runs faster, has caught up with another (empty JIT cache)."""
    cold = data.startup[data.startup["cold"]]
    total = cold.assign(total=cold[["import_s", "load_s", "first_call_s"]].sum(axis=1))
    start = total.groupby(["case", "backend"], sort=False)["total"].median().rename("start").reset_index()
    measured = data.summary.loc[data.summary["status"] == "measured", ["case", "backend", "seconds"]]
    each = start.merge(measured, on=["case", "backend"])
    both = each.merge(each, on="case", suffixes=("", "_other"))
    both = both[(both["start"] > both["start_other"]) & (both["seconds"] < both["seconds_other"])]
    calls = 1 + np.ceil((both["start"] - both["start_other"]) / (both["seconds_other"] - both["seconds"]))
    sentences = []
    for (backend, other), group in calls.groupby([both["backend"], both["backend_other"]], sort=False):
        least, most = int(group.min()), int(group.max())
        calls_text = f"{least:,}" if least == most else f"{least:,} to {most:,}"
        sentences.append(
            f"{backend}, started with an empty cache, has caught up with {other} after {calls_text} calls, "
            f"where it is the faster one ({_count(len(group), 'case')})."
        )
    return sentences


def _correctness(data: Frames) -> list[Answer]:
    if data.gates.empty:
        return [Answer("Correctness was not checked in this run.", [])]
    checks = data.gates.drop_duplicates(["case", "backend"])
    failed = checks[~checks["passed"]]
    if failed.empty:
        worst = data.gates.loc[data.gates["error_over_tolerance"].idxmax()]
        text = f"All {_count(len(checks), 'check')} against the reference passed"
        return [Answer(f"{text}; the largest error is {worst['error_over_tolerance']:.2g} of its tolerance.", [])]
    details = []
    labels = data.cases.set_index("case")["label"]
    for (case, backend), group in data.gates[~data.gates["passed"]].groupby(["case", "backend"], sort=False):
        bad = group[~(group["error_over_tolerance"] <= 1)]
        details.append(f"{backend} on {labels[case]}: {_listed(bad['tensor']) or 'no tensor named'}.")
    who = _listed(dict.fromkeys(failed["backend"]))
    return [Answer(f"{len(failed)} of {_count(len(checks), 'check')} against the reference failed: {who}.", details)]


def _failures(data: Frames) -> list[Answer]:
    details = []
    for name in data.backends:
        reason = data.run.backends.get(name, {}).get("unavailable")
        if reason is not None:
            details.append(f"{name} could not run on this machine: {reason}")
    failed = data.summary[~data.summary["status"].isin(["measured", "unavailable"])]
    for (backend, status), group in failed.groupby(["backend", "status"], sort=False):
        details.append(f"{backend} {REASONS[status]} {_count(len(group), 'case')}.")
    if not details:
        return [Answer("Every backend completed every case.", [])]
    absent = [name for name in data.backends if "unavailable" in data.run.backends.get(name, {})]
    claims = [f"{_listed(absent)} could not run on this machine"] if absent else []
    if len(failed):
        expected = int((data.summary["status"] != "unavailable").sum())
        words = "result is missing or does not count" if len(failed) == 1 else "results are missing or do not count"
        claims.append(f"{len(failed)} of {expected} {words}: {_listed(dict.fromkeys(failed['backend']))}")
    return [Answer("; ".join(claims) + ".", details)]


def _caveats(data: Frames) -> list[Answer]:
    found: list[tuple[str, str]] = []
    if data.end is None or data.end.interrupted:
        found.append(("the run was interrupted", "What an interrupted run did not reach is missing."))
    if "--quick" in data.run.command:
        found.append(("it was a quick run", "A quick run has few rounds and short samples, for a first look."))
    rounds = int(data.summary["rounds"].max()) if len(data.summary) else 0
    if 0 < rounds < 6:
        worth = 100 * (1 - 2.0 ** (1 - rounds))
        detail = f"No interval reaches 95% below 6 rounds: each is the whole range, which holds the median with {worth:.1f}%."
        found.append((f"{_count(rounds, 'round')} at most", detail))
    if data.problems:
        lines = _count(len(data.problems), "line")
        found.append((f"{lines} of the results file could not be used", "Each is named under how it was measured."))
    if not found:
        return []
    claims, details = zip(*found, strict=True)
    return [Answer(f"Read these numbers with care: {'; '.join(claims)}.", list(details))]


def _clipped(text: str) -> str:
    """Without the tails of words that are too long for a sentence; the tables have them whole."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda match: match[0][:LONGEST_WORD] + "…", text)


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def _share(count: int, total: int) -> str:
    if total == 1:
        return "the only case"
    return f"all {total} cases" if count == total else f"{count} of {total} cases"


def _any(total: int) -> str:
    return "the only case" if total == 1 else f"any of {total} cases"


def _count(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 9.95 else f"{ratio:.0f}×"  # noqa: RUF001  # the multiplication sign


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%" if share < 0.0995 else f"{share:.0%}"


def _seconds(value: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g} s"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
