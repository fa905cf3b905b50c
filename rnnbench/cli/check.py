"""``rnnbench check``: is a backend right?"""

import os
from typing import Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CHECK_FAILED,
    COUNT,
    INTERRUPTED,
    NUMBER,
    OK,
    SEED,
    Cells,
    Env,
    Progress,
    complain,
    names_from,
    one_of,
    refuse,
)
from rnnbench.errors import ArgumentError, BackendUnavailable

LEVELS = ("smoke", "standard", "full")
DEVICES = ("host", "simulator")

NOT_WITH_SELF_TEST = ("cell", "dtype", "level", "random", "seed", "gradients_only", "time_limit", "env", "as_json")


def check(
    context: typer.Context,
    backends: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="BACKEND",
            help="A registered name, or the path of a module (.py); default: all.",
            autocompletion=names_from(completion.backends),
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(help="How much is examined (default: standard).", **one_of(LEVELS)),
    ] = None,
    cell: Cells = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DTYPE",
            help="Only this dtype; may be given several times (smoke: float32).",
            autocompletion=names_from(completion.dtypes),
        ),
    ] = None,
    gradients_only: Annotated[
        bool, typer.Option("--gradients-only", help="Compare outputs and gradients; leave the contract aside.")
    ] = False,
    random: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Also run N random trials.")] = None,
    seed: Annotated[int | None, typer.Option(parser=SEED, metavar="S", help="Seed of the random trials (default: 0).")] = None,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=NUMBER, metavar="S", help="Seconds for an import, a call or a promise (default: 60)."),
    ] = None,
    env: Env = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output instead of tables.")] = False,
    device: Annotated[
        str,
        typer.Option(
            help="simulator: numba_cuda without a GPU.",
            show_default=False,
            **one_of(DEVICES),
        ),
    ] = "host",
    self_test: Annotated[bool, typer.Option("--self-test", help="Check the harness: is every planted bug found?")] = False,
) -> int:
    """Check outputs and gradients against the float64 reference.

    Promises about calls, such as results that stay as they were, are checked as well.

    Examples:
    $ rnnbench check numba_cpu
    $ rnnbench check mine.py --cell lstm --level smoke
    $ rnnbench check numba_cuda --device simulator
    """
    from rnnbench import check as harness
    from rnnbench.processes.environment import named

    if self_test:
        return _self_test(context, backends)
    names, todo = _to_check(backends or [], level or "standard", cell, dtype, random, seed, device)
    if gradients_only:
        todo = harness.numbers_only(todo)
    if device == "simulator":
        os.environ["RNNBENCH_SIMULATE_CUDA"] = "1"  # for the processes that import the backends
    asked = {"level": level or "standard", "cell": cell, "dtype": dtype, "random": random, "seed": seed, "device": device}
    asked |= {"gradients_only": gradients_only, "time_limit": time_limit or harness.TIME_LIMIT}
    return _carry_out(names, todo, asked, named(env), as_json=as_json, all_backends=not backends)


def _carry_out(
    names: list[str], todo: list[Any], asked: dict[str, Any], env: list[str], *, as_json: bool, all_backends: bool
) -> int:
    """Check, and print what came out; of all backends those that cannot run here are told.  Gives the exit code."""
    from rnnbench import check as harness

    progress = Progress("checking")

    def unavailable(name: str, error: BackendUnavailable) -> None:
        progress.clear()
        terminal.tell(f"not checked: {error}")

    told = unavailable if all_backends else None
    interrupted = False
    try:
        reports = harness.check_all(
            names, todo, time_limit=asked["time_limit"], progress=progress.count, unavailable=told, env=env
        )
    except harness.Interrupted as interrupt:
        reports, interrupted = interrupt.reports, True
    progress.clear()
    if as_json:
        document = harness.json_document(reports, asked | {"interrupted": interrupted}, progress.seconds)
        terminal.show_document(f"{document}\n".encode())
    else:
        terminal.show(harness.text(reports, progress.seconds))
    if interrupted:
        return complain("interrupted; what is printed was known by then", INTERRUPTED)
    return OK if reports and all(report.passed for report in reports) else CHECK_FAILED


def _to_check(
    backends: list[str],
    level: str,
    cells: list[str] | None,
    dtypes: list[str] | None,
    random: int | None,
    seed: int | None,
    device: str,
) -> tuple[list[str], list[Any]]:
    """The names of backends and their trials; raises ArgumentError."""
    from rnnbench.check import levels
    from rnnbench.networks.registry import GROUP, registered

    if seed is not None and random is None:
        raise ArgumentError(f"--seed is {seed} without --random; expected both")
    if device == "simulator":
        if random is not None:
            raise ArgumentError(f"--random is {random} with --device simulator; expected none: it takes too long")
        return backends or ["numba_cuda"], levels.simulator_trials(level, cells, dtypes)
    names = list(dict.fromkeys(backends)) or sorted(registered(GROUP))
    todo = levels.trials(level, cells, dtypes=dtypes)
    if random is not None:
        todo += levels.random_trials(random, seed or 0, cells, dtypes)
    return names, todo


def _self_test(context: typer.Context, backends: list[str] | None) -> int:
    """Check the harness itself: every planted bug has to be found."""
    from rnnbench.check.mutation_test import self_test

    alone = "none: it checks the harness alone"
    if backends:
        raise ArgumentError(f"the backend is {backends!r} with --self-test; expected {alone}")
    refuse(context, NOT_WITH_SELF_TEST, "with --self-test", alone)
    progress = Progress("planting bugs")
    result = self_test(progress.count)
    progress.clear()
    terminal.show(result.table())
    return OK if result.passed else CHECK_FAILED
