"""``rnnbench compare``: is it slower than before?"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    CHECK_FAILED,
    COUNT,
    OK,
    Progress,
    end_workers_on_sigterm,
    names_from,
    newest,
    one_of,
    refuse,
)
from rnnbench.errors import ArgumentError
from rnnbench.text import printable

if TYPE_CHECKING:
    from rnnbench.compare.comparison import Comparison, Comparisons, Times
    from rnnbench.measure.plan import Settings
    from rnnbench.suite.suite import Suite

MEASURING = ("backend", "quick", "rounds", "output")
"""Options of --commits alone."""


def compare(
    context: typer.Context,
    results: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="A and B, two results files or folders (the newest of each); with --commits a suite.",
            show_default=False,
        ),
    ] = None,
    backends: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="X Y",
            help="These two within one results file, round by round.",
            autocompletion=names_from(completion.backends),
        ),
    ] = None,
    fail_if: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 where there is one, 3 where a case newly fails.",
            **one_of(["regression"]),
        ),
    ] = None,
    aa: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A file of self-test aa: what a backend differs from itself by is allowed."),
    ] = None,
    different_machines: Annotated[
        bool, typer.Option("--different-machines", help="Compare files of different machines or versions.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of a table.")] = False,
    commits: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="REV1 REV2", help="Measure two commits of this checkout in one run."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --commits: whose code (default: numba_cpu).",
            autocompletion=names_from(completion.backends),
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="With --commits: few rounds and short samples.")] = False,
    rounds: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="With --commits: rounds of fresh processes (default: 12)."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="DIR", help="With --commits: where results go (default: results)."),
    ] = None,
) -> int:
    """Compare two runs, backends or commits: what became slower?

    Runs are results files; backends are those of one file; commits are measured now.

    Examples:
    $ rnnbench compare before.jsonl after.jsonl --fail-if regression
    $ rnnbench compare results --backends numba_cpu torch_nn
    $ rnnbench compare --commits HEAD~1 HEAD
    """
    from rnnbench.compare.comparison import aa_noise, compare_backends, compare_runs

    noise = aa_noise(_read(aa)) if aa else None
    if commits:
        for name, value in (("--backends", backends), ("--different-machines", different_machines)):
            if value:
                raise ArgumentError(f"{name} with --commits; expected one of both")
        suite, settings = _to_measure(results or [], quick, rounds)
        files, pair = _measured(commits, backend or "numba_cpu", suite, settings, Path(output or "results"), context.obj)
    else:
        refuse(context, MEASURING, "without --commits", "both, or neither")
        files, pair = _given(results or [], backends, different_machines), backends
    for problem in (problem for one in files for problem in one.problems):
        terminal.tell(problem)
    if pair:
        outcome = compare_backends(files[0], pair[0], pair[1], noise)
    else:
        outcome = compare_runs(files[0], files[1], noise, different_machines=different_machines)
    if as_json:
        terminal.show_document(document(outcome, files, pair) + b"\n")
    else:
        terminal.show(text(outcome, files, pair))
    if fail_if and outcome.counts()["regression"]:
        return CHECK_FAILED
    return CASES_FAILED if fail_if and outcome.newly_failed else OK


def _given(results: list[str], backends: tuple[str, str] | None, different_machines: bool) -> "list[Times]":
    """The results files: two, or the one that both backends are in; raises ArgumentError for another number."""
    expected = 1 if backends else 2
    if len(results) != expected:
        given = f"{len(results)} results file{'' if len(results) == 1 else 's'}"
        raise ArgumentError(f"{given} given; expected two, A and B, or one with --backends X Y")
    if backends and different_machines:
        raise ArgumentError("--different-machines with --backends; expected one of both: a run has one machine")
    return [_read(path) for path in results]


def _to_measure(results: list[str], quick: bool, rounds: int | None) -> "tuple[Suite, Settings]":
    """The suite that two commits run, and how."""
    import dataclasses

    from rnnbench.measure.plan import Settings, quicker, with_suite_settings
    from rnnbench.suite.suite import load_suite

    if len(results) > 1:
        raise ArgumentError(f"{len(results)} suites given with --commits; expected one or none")
    suite = load_suite(*results or ["quick"])
    settings = with_suite_settings(Settings(), suite)
    settings = quicker(settings) if quick else settings
    return suite, dataclasses.replace(settings, rounds=rounds) if rounds else settings


def _measured(
    commits: tuple[str, str], backend: str, suite: "Suite", settings: "Settings", folder: Path, given: list[str]
) -> "tuple[list[Times], list[str]]":
    """The results file of a run that measures two commits, and their names in it."""
    from rnnbench.measure.commits import measure_commits

    progress = Progress("measuring")
    end_workers_on_sigterm()
    path, names = measure_commits(commits, backend, suite, settings, folder, progress.unit, ["rnnbench", *given])
    progress.clear()
    return [_read(path)], names


def text(outcome: "Comparisons", files: "list[Times]", backends: Sequence[str] | None) -> str:
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


def document(outcome: "Comparisons", files: "list[Times]", backends: Sequence[str] | None) -> bytes:
    """The same as JSON."""
    import msgspec

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


def _read(path: str | Path) -> "Times":
    from rnnbench.compare.comparison import times
    from rnnbench.results.reader import read

    return times(read(newest(path)))


def _with_devices(one: "Times", backends: Sequence[str]) -> Sequence[str]:
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
