"""``rnnbench study``: what recurrent networks do, as a page and tables."""

from pathlib import Path
from typing import Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    COUNT,
    NUMBER,
    OK,
    SEED,
    Progress,
    complain,
    end_workers_on_sigterm,
    listed,
    lists_from,
    names_from,
)
from rnnbench.cli.train import Threads, clear_at_end, pool_of_xla
from rnnbench.errors import ArgumentError, Diverged
from rnnbench.studies.names import STUDIES


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="STUDY",
            help=f"{', '.join(STUDIES)}.",
            autocompletion=names_from(lambda: STUDIES),
            show_default=False,
        ),
    ],
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="What computes (default: numba_cpu); time-to-loss compares several.",
            autocompletion=lists_from(completion.backends),
        ),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(parser=COUNT, metavar="N", help="Runs of each setting; 6 give 95% intervals.")
    ] = None,
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="N", help="The first seed (default: 0).")] = None,
    target: Annotated[
        float | None, typer.Option(parser=NUMBER, metavar="X", help="Validation loss in nats to reach, of time-to-loss.")
    ] = None,
    threads: Threads = None,
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="DIR", help="Where the page and the tables go (default: studies).")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small models, few steps and few seeds, for a first look.")] = False,
) -> int:
    """Study gradients, truncated BPTT, time to a loss or missing values.

    A folder gets a page with charts, and tables as CSV. The conclusion is printed.

    Examples:
    $ rnnbench study truncation --quick
    $ rnnbench study time-to-loss --backends numba_cpu,torch_nn --threads 1
    $ rnnbench study missing-values --seeds 6 --out gaps
    """
    from rnnbench import reports
    from rnnbench.studies.presets import Asked, run_study

    if name not in STUDIES:
        raise ArgumentError(f"study is {name!r}; expected one of {', '.join(STUDIES)}")
    write = reports.write_study  # without its libraries, before anything runs
    folder, progress = Path(out or "studies"), Progress("studying")
    own = {"backends": tuple(listed(backends) or ("numba_cpu",)), "seeds": seeds, "seed": seed or 0}
    end_workers_on_sigterm()
    try:
        with clear_at_end(progress), pool_of_xla(threads):
            asked = Asked(quick=quick, threads=threads, target=target, report=progress.unit, **own)
            found = run_study(name, asked)
    except Diverged as error:
        return complain(error, CASES_FAILED)
    written = write(found, folder)
    terminal.show(found.conclusion)
    for path in written:
        terminal.show(str(path))
    return OK
