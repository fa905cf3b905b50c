"""``rnnbench compare``: what it takes, and what it prints."""

import argparse
import dataclasses
import math
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError
from rnnbench.text import printable

if TYPE_CHECKING:
    from rnnbench.compare.comparison import Comparison, Comparisons, Times


MEASURING = ("backend", "quick", "rounds", "output")
"""Options of --commits alone."""


def compare(options: argparse.Namespace, progress: Any) -> int:
    """Print the comparison; returns the exit code."""
    from rnnbench.cli.common import CASES_FAILED, CHECK_FAILED, OK
    from rnnbench.compare.comparison import aa_noise, compare_backends, compare_runs

    noise = aa_noise(_read(options.aa)) if options.aa else None
    if options.commits:
        files, backends = _measured(options, progress)
    else:
        files, backends = _given(options)
    for problem in (problem for one in files for problem in one.problems):
        terminal.tell(problem)
    if backends:
        outcome = compare_backends(files[0], backends[0], backends[1], noise)
    else:
        outcome = compare_runs(files[0], files[1], noise, different_machines=options.different_machines)
    if options.json:
        terminal.show_document(document(outcome, files, backends) + b"\n")
    else:
        terminal.show(text(outcome, files, backends))
    if options.fail_if and outcome.counts()["regression"]:
        return CHECK_FAILED
    return CASES_FAILED if options.fail_if and outcome.newly_failed else OK


def _given(options: argparse.Namespace) -> "tuple[list[Times], list[str] | None]":
    """The results files, and the two backends to compare within one."""
    for name in MEASURING:
        value = getattr(options, name)
        if value not in (None, False):
            raise ArgumentError(f"--{name} is {value!r} without --commits; expected both, or neither")
    expected = 1 if options.backends else 2
    if len(options.results) != expected:
        given = f"{len(options.results)} results file{'' if len(options.results) == 1 else 's'}"
        raise ArgumentError(f"{given} given; expected two, A and B, or one with --backends X Y")
    if options.backends and options.different_machines:
        raise ArgumentError("--different-machines with --backends; expected one of both: a run has one machine")
    return [_read(path) for path in options.results], options.backends


def _measured(options: argparse.Namespace, progress: Any) -> "tuple[list[Times], list[str]]":
    """The results file of a run that measures two commits, and their names in it."""
    from rnnbench.measure.commits import measure_commits
    from rnnbench.measure.plan import Settings, quicker, with_suite_settings
    from rnnbench.suite.suite import load_suite

    for name in ("backends", "different_machines"):
        if getattr(options, name):
            raise ArgumentError(f"--{name.replace('_', '-')} with --commits; expected one of both")
    if len(options.results) > 1:
        raise ArgumentError(f"{len(options.results)} suites given with --commits; expected one or none")
    suite = load_suite(*options.results or ["quick"])
    settings = with_suite_settings(Settings(), suite)
    settings = quicker(settings) if options.quick else settings
    if options.rounds:
        settings = dataclasses.replace(settings, rounds=options.rounds)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    path, names = measure_commits(
        options.commits,
        options.backend or "numba_cpu",
        suite,
        settings,
        Path(options.output or "results"),
        progress.unit,
        ["rnnbench", *options.given],
    )
    progress.clear()
    return [_read(str(path))], names


def text(outcome: "Comparisons", files: "list[Times]", backends: list[str] | None) -> str:
    """The table, a line with counts, and what has to be known to read them."""
    from rnnbench.compare.comparison import too_few_rounds
    from rnnbench.compare.intervals import CONFIDENCE
    from rnnbench.compare.verdicts import CHANGE_BAND

    compared = _with_devices(files[0], backends) if backends else map(_described, files)
    lines = [f"{name}: {what}" for name, what in zip("AB", compared, strict=True)]
    least = math.floor(100 * min([CONFIDENCE, *(row.coverage for row in outcome.rows)]))
    cells = [("case", "" if backends else "backend", "time B / A", f"{least}% interval", "verdict")]
    cells += [(row.case.label(), "" if backends else row.backend, *_shown(row)) for row in outcome.rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for case, backend, ratio, interval, verdict in cells:
        left = f"{case:<{widths[0]}}  {backend:<{widths[1]}}" if widths[1] else f"{case:<{widths[0]}}"
        lines.append(f"{left}  {ratio:>{widths[2]}}  {interval:>{widths[3]}}  {verdict}")
    counts = outcome.counts()
    one_or_more = {"regression": "regressions", "improvement": "improvements"}
    said = [f"{number} {name if number == 1 else one_or_more.get(name, name)}" for name, number in counts.items()]
    noisier = sum(row.threshold > 1 + CHANGE_BAND for row in outcome.rows)
    more = f", in {noisier} noisier case{'' if noisier == 1 else 's'} beyond what A/A showed" if noisier else ""
    lines.append(f"{', '.join(said)}; a difference counts where its whole interval is beyond {CHANGE_BAND:.0%}{more}")
    lines += [f"failed since: {sentence}" for sentence in outcome.newly_failed]
    lines += [f"not compared: {sentence}" for sentence in outcome.left_out]
    if hint := too_few_rounds(outcome.rows):
        lines.append(hint)
    if backends:
        lines.append(f"results: {_described(files[0])}")
    else:
        lines.append(
            "Two runs share no rounds: what a whole run shares, like the machine's state that day, is in the ratio and not in "
            "its interval."
        )
    return "\n".join(map(printable, lines))


def document(outcome: "Comparisons", files: "list[Times]", backends: list[str] | None) -> bytes:
    """The same as JSON."""
    rows = [{"label": row.case.label(), **row._asdict()} for row in outcome.rows]
    whole: dict[str, Any] = {
        "files": [{"path": str(one.path), "run": one.run.run, "commit": one.run.environment.get("commit")} for one in files],
        "paired": backends is not None,
        "rows": rows,
        "counts": outcome.counts(),
        "failed_since": outcome.newly_failed,
        "not_compared": outcome.left_out,
    }
    return msgspec.json.format(msgspec.json.encode(whole))


def _read(path: str) -> "Times":
    from rnnbench.compare.comparison import times
    from rnnbench.results.reader import read, results_files

    return times(read(results_files(Path(path))[-1]))


def _with_devices(one: "Times", backends: list[str]) -> list[str]:
    """The names, with what each computes on where that differs."""
    from rnnbench.networks.contract import device_of

    devices = [device_of(one.run.backends.get(name, {})) for name in backends]
    if len(set(devices)) == 1:
        return backends
    return [f"{name} on {device}" for name, device in zip(backends, devices, strict=True)]


def _described(one: "Times") -> str:
    environment = one.run.environment
    commit = environment.get("commit")
    code = f", commit {commit[:10]}{' with changes' if environment.get('dirty') else ''}" if commit else ""
    return f"{one.path}{code}"


def _shown(row: "Comparison") -> tuple[str, str, str]:
    ratio, low, high = (f"{value:.3f}" for value in (row.ratio, row.low, row.high))
    return ratio, f"{low} to {high}", row.verdict
