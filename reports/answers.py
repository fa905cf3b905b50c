"""The answer in sentences, made from the data: for the top of the page and for a terminal."""

from pathlib import Path

from rnnbench.reports.costs import startup_answers, truncation_answers
from rnnbench.reports.frames import Frames, to_pandas
from rnnbench.reports.intervals import FEWEST_ROUNDS
from rnnbench.reports.winners import speed_answers
from rnnbench.reports.words import Answer, clipped, count, listed, printable

NOISY = 0.2
"""A case of whose rounds the machine disturbed more than this part is named."""

MOST_NOISY = 3

REASONS = {
    "wrong": "gave wrong results on",
    "error": "failed with an error on",
    "crashed": "crashed on",
    "timeout": "ran out of time on",
    "unsupported": "does not support",
    "missing": "has no result for",
}


def summary_text(results: Path | str) -> str:
    """The answer of a results file for a terminal, with control characters of names escaped; raises StoreError."""
    lines = []
    for answer in answers(to_pandas(results)):
        lines.append(answer.text)
        lines += [f"  - {detail}" for detail in answer.details]
    return "".join(printable(line) + "\n" for line in lines)


def answers(data: Frames) -> list[Answer]:
    """One answer per question: who is fastest in each phase, what truncation costs and buys, start-up, checks, failures."""
    found = [*speed_answers(data), *truncation_answers(data), *startup_answers(data)]
    found += [*_correctness(data), *_failures(data), *_caveats(data)]
    return [Answer(clipped(text), [clipped(detail) for detail in details]) for text, details in found]


def _correctness(data: Frames) -> list[Answer]:
    if data.gates.empty:
        return [Answer("Correctness was not checked in this run.", [])]
    checks = data.gates.drop_duplicates(["case", "backend"])
    failed = checks[~checks["passed"]]
    if failed.empty:
        worst = data.gates["error_over_tolerance"].max()
        text = f"All {count(len(checks), 'check')} against the reference passed"
        return [Answer(f"{text}; the largest error is {worst:.2g} of its tolerance.", [])]
    details = []
    labels = dict(zip(data.cases["case"], data.cases["label"], strict=True))
    for (case, backend), group in data.gates[~data.gates["passed"]].groupby(["case", "backend"], sort=False):
        bad = group[~(group["error_over_tolerance"] <= 1)]
        details.append(f"{backend} on {labels[str(case)]}: {listed(bad['tensor']) or 'no tensor named'}.")
    who = listed(dict.fromkeys(failed["backend"]))
    return [Answer(f"{len(failed)} of {count(len(checks), 'check')} against the reference failed: {who}.", details)]


def _failures(data: Frames) -> list[Answer]:
    details = []
    for name in data.backends:
        reason = data.run.backends.get(name, {}).get("unavailable")
        if reason is not None:
            details.append(f"{name} could not run on this machine: {reason}")
    failed = data.summary[~data.summary["status"].isin(["measured", "unavailable"])]
    for (backend, status), group in failed.groupby(["backend", "status"], sort=False):
        details.append(f"{backend} {REASONS[str(status)]} {count(len(group), 'case')}.")
    if not details:
        return [Answer("Every backend completed every case.", [])]
    absent = [name for name in data.backends if "unavailable" in data.run.backends.get(name, {})]
    claims = [f"{listed(absent)} could not run on this machine"] if absent else []
    if len(failed):
        expected = int((data.summary["status"] != "unavailable").sum())
        words = "result is missing or does not count" if len(failed) == 1 else "results are missing or do not count"
        claims.append(f"{len(failed)} of {expected} {words}: {listed(dict.fromkeys(failed['backend']))}")
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
        detail += f" Below {FEWEST_ROUNDS} rounds every comparison is unclear." if rounds < FEWEST_ROUNDS else ""
        found.append((f"{count(rounds, 'round')} at most", detail))
    noisy = data.cases.loc[data.cases["disturbed"] > NOISY, "label"]
    if len(noisy):
        shown = list(noisy[:MOST_NOISY]) + ([f"{len(noisy) - MOST_NOISY} more"] if len(noisy) > MOST_NOISY else [])
        claim = f"the machine disturbed more than {NOISY:.0%} of the rounds of {listed(shown)}"
        detail = "Processor time was stolen or waited for, or the clock changed; such rounds were measured again, until three "
        found.append((claim, detail + "repeats on end were disturbed too."))
    if data.problems:
        lines = count(len(data.problems), "line")
        found.append((f"{lines} of the results file could not be used", "Each is named under how it was measured."))
    if not found:
        return []
    claims, details = zip(*found, strict=True)
    return [Answer(f"Read these numbers with care: {'; '.join(claims)}.", list(details))]
