"""``rnnbench run``: how fast are backends?"""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    COUNT,
    INTERRUPTED,
    NUMBER,
    OK,
    SEED,
    Env,
    Progress,
    complain,
    end_workers_on_sigterm,
    lists_from,
    names_from,
    one_of,
    refuse,
    seconds,
)
from rnnbench.cli.plan import budget_of, dry_run, plan_of
from rnnbench.errors import MissingLibrary

if TYPE_CHECKING:
    from rnnbench.measure.plan import Plan

INPUTS = ("text", "noise")


def run(
    context: typer.Context,
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="A suite's name, or the path of a .toml file (default: quick).",
            autocompletion=names_from(completion.suites),
            show_default=False,
        ),
    ] = None,
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Only these; default: all that can run here.", autocompletion=lists_from(completion.backends)
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few rounds and short samples, for a first look.")] = False,
    rigorous: Annotated[bool, typer.Option("--rigorous", help="20 to 40 rounds, whatever the suite asks for.")] = False,
    rounds: Annotated[
        int | None,
        typer.Option(
            parser=COUNT,
            metavar="N",
            help="Rounds of fresh processes (default: the suite's, or 12 and up to 40 until ratios are known to 1.5%).",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--input",
            help="What the networks read (default: text).",
            **one_of(INPUTS),
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="A text in UTF-8 to read instead of the sample in the package."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(parser=SEED, metavar="N", help="Of weights, states and cotangents (default: 0)."),
    ] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=NUMBER, metavar="S", help="Seconds for one request to a backend (default: 120)."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="DIR", help="Where results go (default: results).")
    ] = None,
    resume: Annotated[str | None, typer.Option(metavar="FILE", help="Go on with an interrupted run.")] = None,
    env: Env = None,
    only: Annotated[
        str | None,
        typer.Option(
            "--filter",
            metavar="TEXT",
            help="Only cases that have this in their label, such as 'lstm step' or H256.",
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="All cases with so many threads.")] = None,
    fit: Annotated[
        float | None,
        typer.Option(
            parser=seconds,
            metavar="TIME",
            help="End within this time, as in 10m: leave out the cases that take longest, then rounds.",
        ),
    ] = None,
    affinity: Annotated[
        str | None,
        typer.Option(metavar="CPUS", help="Measure on these processors, as in 0,2-3 (default: all of this process)."),
    ] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Print what would run and what it would take; run nothing.")] = False,
) -> int:
    """Check and time the cases of a suite on all backends.

    Examples:
    $ rnnbench run quick --quick
    $ rnnbench run cpu-grid --backends numba_cpu,torch_nn --filter "lstm step"
    $ rnnbench run deepbench-train --fit 30m --dry-run
    $ rnnbench run --resume results/MACHINE/RUN.jsonl
    """
    from rnnbench.measure.plan import resumed_plan

    if resume:
        others = [name for name in context.params if name != "resume"]
        refuse(context, others, "with --resume", "none: the results file names its own")
        plan = resumed_plan(Path(resume))
    else:
        plan = plan_of(context.params, ["rnnbench", *context.obj])
    if dry:
        dry_run(plan)
        return OK
    return execute(plan)


def execute(plan: "Plan") -> int:
    """Measure all that a plan still lacks, and print what came out; returns the exit code."""
    from rnnbench.measure.run import run as carry_out
    from rnnbench.results.reader import quarantine_file
    from rnnbench.results.writer import Writer

    for problem in plan.problems:
        terminal.tell(problem)
    expected = budget_of(plan)
    progress = Progress("running")
    end_workers_on_sigterm()
    with Writer(plan.path, resume=plan.resumes) as writer:
        for number in writer.moved:
            terminal.tell(f"{plan.path.name}:{number}: moved to {quarantine_file(plan.path)}")
        if not plan.resumes:
            writer.append(plan.run)
        try:
            left_out = carry_out(plan, writer, progress.unit, expected)
        except KeyboardInterrupt:
            progress.clear()
            again = f"rnnbench run --resume {shlex.quote(str(plan.path))}"
            return complain(f"interrupted; all that was measured is kept. Go on with: {again}", INTERRUPTED)
    progress.clear()
    for sentence in left_out:
        terminal.tell(sentence)
    return _summary(plan.path)


def _summary(path: Path) -> int:
    """Print what a run found, and where it is; returns the exit code."""
    from rnnbench import reports
    from rnnbench.results.reader import read
    from rnnbench.results.rows import End, Failure
    from rnnbench.text import duration

    _, run, rows, _ = read(path)
    end = rows[-1]
    if isinstance(end, End) and end.overhead is not None:
        terminal.note(f"running took {duration(end.seconds)}, {end.overhead:.0%} of it for neither samples nor checks")
    failures = [row for row in rows if isinstance(row, Failure) and row.reason != "unsupported"]
    try:
        terminal.show(reports.summary_text(path))
    except MissingLibrary as error:
        terminal.tell(f"no summary: {error}")
    terminal.show(f"results: {path}")
    harmful = any("reason" in facts for facts in run.backends.values())
    return CASES_FAILED if failures or harmful else OK
