"""``rnnbench self-test``: are the comparisons right?"""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    CHECK_FAILED,
    COUNT,
    NUMBER,
    OK,
    SEED,
    Command,
    Group,
    Progress,
    end_workers_on_sigterm,
    listed,
    lists_from,
    names_from,
)
from rnnbench.errors import ArgumentError

if TYPE_CHECKING:
    from rnnbench.compare.comparison import Comparisons
    from rnnbench.measure.plan import Settings

app = typer.Typer(
    cls=Group,
    help="Test what comparisons rest on: intervals, A/A runs, the store.",
)


@app.command(cls=Command)
def statistics(
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="N", help="Of the draws (default: 0).")] = None,
) -> int:
    """Print the coverage of the intervals, by simulation.

    Examples:
    $ rnnbench self-test statistics
    """
    from rnnbench.selftests.interval_coverage import DRAWS, KINDS, coverage, table

    results = [coverage(kind, DRAWS, seed or 0) for kind in KINDS]
    terminal.show(table(results, DRAWS))
    return OK if all(result.passed for result in results) else CHECK_FAILED


@app.command(cls=Command)
def store(
    rows: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="Made-up times (default: a million, of 500 MB)."),
    ] = None,
) -> int:
    """Print how fast results are stored and loaded here, and in how much memory.

    Examples:
    $ rnnbench self-test store --rows 100000
    """
    from rnnbench.processes.scratch import scratch_folder
    from rnnbench.selftests.store_speed import measure

    with scratch_folder() as folder:
        bars = measure(rows or 10**6, folder)
    terminal.show(bars.text())
    return OK if bars.met else CHECK_FAILED


@app.command(cls=Command)
def siblings(
    context: typer.Context,
    rounds: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="Of each run (default: 12, of two minutes each)."),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="These instead of numba_cpu, torch_nn, onnxruntime and jax_scan.",
            autocompletion=lists_from(completion.backends),
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Keep the results files in this folder.")
    ] = None,
) -> int:
    """Print ratios of backends in one run beside those of runs alone, on a quiet machine.

    Examples:
    $ rnnbench self-test siblings --rounds 12
    """
    from rnnbench.processes.scratch import scratch_folder
    from rnnbench.selftests.siblings import BACKENDS, BAR, measure, table

    progress = Progress("measuring")
    end_workers_on_sigterm()
    with contextlib.ExitStack() as stack:
        folder = Path(output or stack.enter_context(scratch_folder()))
        pairs = measure(rounds or 12, listed(backends) or list(BACKENDS), folder, progress.unit, ["rnnbench", *context.obj])
    progress.clear()
    terminal.show(table(pairs))
    return OK if all(pair.off <= BAR for pair in pairs) else CHECK_FAILED


@app.command(cls=Command)
def aa(
    context: typer.Context,
    comparisons: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="How many, of small cases (default: 200)."),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="SUITE",
            help="The cases of a suite instead, for compare --aa.",
            autocompletion=names_from(completion.suites),
        ),
    ] = None,
    planted: Annotated[
        float | None,
        typer.Option(parser=NUMBER, metavar="PERCENT", help="Slow one of the two by so much."),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(parser=COUNT, metavar="N", help="Rounds of fresh processes (default: as a run)."),
    ] = None,
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="N", help="Of the choice of cases (default: 0).")] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Keep the results file in this folder.")
    ] = None,
) -> int:
    """Count false alarms where a backend is compared with itself, or slowdowns that are found.

    Examples:
    $ rnnbench self-test aa --comparisons 20
    $ rnnbench self-test aa --planted 5
    """
    import dataclasses

    from rnnbench.measure.plan import Settings, until_narrow, with_suite_settings
    from rnnbench.processes.scratch import scratch_folder
    from rnnbench.selftests.aa import measure, small_suite
    from rnnbench.suite.suite import load_suite

    if suite and comparisons:
        raise ArgumentError(f"--comparisons is {comparisons} with --suite; expected one of both")
    cases = load_suite(suite) if suite else small_suite(comparisons or 200, seed or 0)
    given = {name: value for name, value in (("rounds", rounds), ("seed", seed)) if value is not None}
    usual = Settings() if rounds is not None else until_narrow(Settings())
    settings = dataclasses.replace(with_suite_settings(usual, cases), **given)
    progress = Progress("measuring")
    end_workers_on_sigterm()
    with contextlib.ExitStack() as stack:
        folder = Path(output or stack.enter_context(scratch_folder()))
        path, outcomes = measure(cases, planted or 0.0, settings, folder, progress.unit, ["rnnbench", *context.obj])
    progress.clear()
    return _told(outcomes, planted or 0.0, settings, path if output else None)


def _told(outcomes: "dict[str, Comparisons]", planted: float, settings: "Settings", path: Path | None) -> int:
    """Print the shares of false alarms, or of what was found, for each backend and for both; gives the exit code."""
    from rnnbench.selftests.aa import reach, shares

    rounds = f"{settings.rounds}" if settings.most == settings.rounds else f"{settings.rounds} to {settings.most}"
    for name, outcome in outcomes.items():
        compared = f"{len(outcome.rows)} comparisons of {rounds} rounds"
        terminal.show(f"{name}: {compared}, intervals of {reach(outcome):.1%} to each side")
        terminal.show("\n".join(f"  {share._replace(bar=None).line()}" for share in shares([outcome], planted)))
    whole = shares(list(outcomes.values()), planted)
    terminal.show("both")
    terminal.show("\n".join(f"  {share.line()}" for share in whole))
    failed = [sentence for outcome in outcomes.values() for sentence in (*outcome.newly_failed, *outcome.left_out)]
    for sentence in failed:
        terminal.show(f"not compared: {sentence}")
    if path is not None:
        terminal.show(f"results: {path}")
    if any(share.missed for share in whole):
        return CHECK_FAILED
    return CASES_FAILED if failed else OK
