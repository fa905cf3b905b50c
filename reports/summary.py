"""Summary of a run in sentences, for the top of the page and for a terminal."""

from pathlib import Path

from rnnbench.reports.caveats import caveats_answer
from rnnbench.reports.devices import by_device, on_device
from rnnbench.reports.frames import Frames, to_pandas
from rnnbench.reports.overheads import startup_answers, truncation_answers
from rnnbench.reports.roofline import roof_answers
from rnnbench.reports.text import Answer, clipped, count, listed, printable
from rnnbench.reports.winners import speed_answers

STATUS_TEXT = {
    "wrong": "gave wrong results on",
    "error": "failed with an error on",
    "crashed": "crashed on",
    "timeout": "ran out of time on",
    "unsupported": "does not support",
    "missing": "has no result for",
}

MAX_NAMED = 3
"""Maximum number of kinds of failure spelled out in the sentence; with more it gives counts, and the details name each."""


def summary_text(results: Path | str) -> str:
    """The summary of a results file as lines of text, with control characters escaped; raises StoreError."""
    lines = []
    for answer in summary(to_pandas(results)):
        lines.append(answer.text)
        lines += [f"  - {detail}" for detail in answer.details]
    return "".join(printable(line) + "\n" for line in lines)


def summary(data: Frames) -> list[Answer]:
    """One answer per question: speed by phase, truncation, start-up, roofs, checks, failures and caveats.

    For a run on several devices, the answers that compare backends are given per device.
    """
    found: list[Answer] = []
    frames = by_device(data)
    for device, part in frames.items():
        own = [*speed_answers(part), *truncation_answers(part), *startup_answers(part), *roof_answers(part)]
        found += [on_device(answer, device, part.backends) for answer in own] if len(frames) > 1 else own
    found += [*_correctness(data), *_failures(data), caveats_answer(data)]
    return [Answer(clipped(text), [clipped(detail) for detail in details], topic) for text, details, topic in found]


def _correctness(data: Frames) -> list[Answer]:
    if data.gates.empty:
        return [Answer("Correctness was not checked in this run.", [], "Correctness")]
    checks = data.gates.drop_duplicates(["case", "backend"])
    failed = checks[~checks["passed"]]
    if failed.empty:
        worst = data.gates["error_over_tolerance"].max()
        text = f"All {count(len(checks), 'check')} against the reference passed"
        return [Answer(f"{text}; the largest error is {worst:.2g} of its tolerance.", [], "Correctness")]
    details = []
    labels = dict(zip(data.cases["case"], data.cases["label"], strict=True))
    for (case, backend), group in data.gates[~data.gates["passed"]].groupby(["case", "backend"], sort=False):
        bad = group[~(group["error_over_tolerance"] <= 1)]
        details.append(f"{backend} on {labels[str(case)]}: {listed(bad['tensor']) or 'no tensor named'}.")
    who = listed(dict.fromkeys(failed["backend"]))
    return [
        Answer(f"{len(failed)} of {count(len(checks), 'check')} against the reference failed: {who}.", details, "Correctness")
    ]


def _failures(data: Frames) -> list[Answer]:
    details = []
    for name in data.backends:
        reason = data.run.backends.get(name, {}).get("unavailable")
        if reason is not None:
            details.append(f"{name} could not run on this machine: {reason}")
    failed = data.summary[~data.summary["status"].isin(["measured", "unavailable"])]
    groups = failed.groupby(["backend", "status"], sort=False)
    lacking = [f"{backend} {STATUS_TEXT[str(status)]} {count(len(group), 'case')}" for (backend, status), group in groups]
    details += [f"{claim}." for claim in lacking]
    if not details:
        return [Answer("Every backend completed every case.", [], "Failures")]
    absent = [name for name in data.backends if "unavailable" in data.run.backends.get(name, {})]
    claims = [f"{listed(absent)} could not run on this machine"] if absent else []
    if len(lacking) <= MAX_NAMED:
        claims += lacking
    else:
        expected = int((data.summary["status"] != "unavailable").sum())
        names = listed(dict.fromkeys(failed["backend"]))
        claims.append(f"{len(failed)} of {expected} results are missing or do not count: {names}")
    return [Answer("; ".join(claims) + ".", details, "Failures")]
