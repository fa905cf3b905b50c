"""``rnnbench train``: fit a model to data."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    COUNT,
    INTERRUPTED,
    OK,
    SEED,
    Progress,
    complain,
    end_workers_on_sigterm,
    names_from,
)
from rnnbench.errors import Diverged
from rnnbench.training.names import TASKS

if TYPE_CHECKING:
    from rnnbench.training.config import Config


Task = Annotated[
    str,
    typer.Argument(
        metavar="TASK",
        help=f"{', '.join(TASKS)}, or the path of a .toml file.",
        autocompletion=names_from(lambda: TASKS),
        show_default=False,
    ),
]

Data = Annotated[
    str | None,
    typer.Option(metavar="DATA", help="A data set's name, your own file, or the wheel that holds the data set."),
]

Threads = Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="That the backend may use.")]

Quick = Annotated[bool, typer.Option("--quick", help="A small model and few steps, for a first look.")]


def train(
    context: typer.Context,
    task: Task,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="B",
            help="What computes the network (default: the file's, numba_cpu).",
            autocompletion=names_from(completion.backends),
        ),
    ] = None,
    data: Data = None,
    steps: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Training steps in all.")] = None,
    seed: Annotated[
        int | None, typer.Option(parser=SEED, metavar="N", help="Of parameters, order of the data and dropout.")
    ] = None,
    threads: Threads = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            "-o",
            metavar="DIR",
            help="Where checkpoints and metrics go (default: training/TASK-BACKEND[-quick]).",
        ),
    ] = None,
    quick: Quick = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in that folder.")] = False,
) -> int:
    """Train a language model, a forecast or a classifier.

    A folder gets checkpoints, metrics and the result on the test part.

    Examples:
    $ rnnbench train lm --quick
    $ rnnbench train forecast --backend numpy_ref --steps 50
    $ rnnbench train lm --quick --resume
    """
    from rnnbench.training.config import load_config
    from rnnbench.training.loop import require_new

    config = load_config(task, quick=quick, data=data, backend=backend, steps=steps, seed=seed, threads=threads)
    name = f"{Path(task).stem}-{Path(config.backend).stem}{'-quick' if quick else ''}"
    folder = Path(out or Path("training") / name)
    if not resume:
        require_new(folder)
    return execute(config, folder, resume, again(context.obj))


def again(given: list[str]) -> str:
    """The command that resumes the run of these arguments."""
    return shlex.join(["rnnbench", *given, *(() if "--resume" in given else ("--resume",))])


def execute(config: "Config", folder: Path, resume: bool, go_on: str) -> int:
    """Train, and print the result; returns the exit code."""
    from rnnbench.training.run import has_checkpoint
    from rnnbench.training.run import train as carry_out

    progress = Progress("training")
    end_workers_on_sigterm()
    try:
        with clear_at_end(progress), pool_of_xla(config.threads):
            trained = carry_out(config, folder, resume=resume, report=progress.unit)
    except KeyboardInterrupt:
        if not has_checkpoint(folder):
            return complain("interrupted before the first checkpoint; nothing is kept", INTERRUPTED)
        return complain(f"interrupted; the last checkpoint is kept. Go on with: {go_on}", INTERRUPTED)
    except Diverged as error:
        return complain(error, CASES_FAILED)
    terminal.note(f"trained {trained.fitted.steps} steps in {progress.seconds:.0f} s: {trained.fitted.reason}")
    terminal.show(trained.summary)
    terminal.show(f"results: {folder}")
    return OK


@contextmanager
def pool_of_xla(threads: int | None) -> Iterator[None]:
    """Have XLA, which reads it when JAX is imported, start with this number of threads, unless the user has set one."""
    if threads is None or "NPROC" in os.environ:
        yield
        return
    os.environ["NPROC"] = str(threads)
    try:
        yield
    finally:
        del os.environ["NPROC"]


@contextmanager
def clear_at_end(progress: Progress) -> Iterator[None]:
    try:
        yield
    finally:
        progress.clear()
