"""The command line: ``rnnbench`` and ``python -m rnnbench``.

Results go to standard output, progress to standard error.  Exit codes: 0 ok, 1 a check failed, 2 usage, 3 some cases
failed, 4 the environment (a missing library, an unwritable folder or output, another system), 130 interrupted.
"""

import functools
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.main import get_command

import rnnbench
from rnnbench.cli import (
    backends,
    best,
    check,
    compare,
    cuda_audit,
    cuda_warm,
    export,
    gpu,
    latency,
    machine,
    merge,
    report,
    run,
    sample,
    self_test,
    show,
    study,
    suites,
    template,
    terminal,
    train,
    tune,
    versus,
    warm,
)
from rnnbench.cli.common import ENVIRONMENT, INTERRUPTED, OK, USAGE, Command, Group, UsageError, complain
from rnnbench.errors import (
    ArgumentError,
    BackendUnavailable,
    MissingLibrary,
    OutputError,
    ReferenceFailed,
    RnnbenchError,
    StoreError,
    UnsupportedSystem,
)
from rnnbench.processes.platforms import require_supported

HELP = "Which recurrent-network implementation is right, and how fast it is, for your shape, on your machine."

SELDOM = "CUDA kernels and self-tests"

PANELS = {
    "Check and measure": (check.check, run.run, latency.latency),
    "Train": (train.train, tune.tune, sample.sample, study.study),
    "Read results": (report.report, show.show, compare.compare, best.best, versus.versus, export.export, merge.merge),
    "About": (backends.backends, suites.suites, machine.machine, warm.warm, template.template),
    SELDOM: (gpu.gpu, cuda_audit.cuda_audit, cuda_warm.cuda_warm),
}
"""The commands, in the order in which they are needed."""

COMPLETING = "_RNNBENCH_COMPLETE"
"""The variable by which a shell asks for completions."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code.  What a user did wrong is one line on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with terminal.prepared():
            require_supported()
            try:
                return dispatch(given)
            finally:
                terminal.flush()  # here, where a reader that has gone is no error
    except OutputError as error:
        terminal.discard()
        return complain(error, ENVIRONMENT)
    except (BackendUnavailable, MissingLibrary, ReferenceFailed, StoreError, UnsupportedSystem) as error:
        return complain(error, ENVIRONMENT)
    except RnnbenchError as error:
        return complain(error, USAGE)
    except KeyboardInterrupt:
        return complain("interrupted", INTERRUPTED)
    except BrokenPipeError:  # the reader of our output, a pager for example, has gone
        terminal.discard()
        return OK


def dispatch(given: list[str]) -> int:
    """Run the command of these arguments; returns its exit code.  Raises the errors that ``main`` turns into one."""
    command = command_line()
    if COMPLETING in os.environ:
        command.main(prog_name="rnnbench")
    try:
        with terminal.writing():  # --show-completion prints here
            context = command.make_context("rnnbench", list(given), obj=given)
        with context:
            return command.invoke(context)
    except typer.Exit as end:
        return end.exit_code
    except UsageError as error:
        raise ArgumentError(_in_one_line(error)) from error


@functools.cache
def command_line() -> Any:
    """The command line as Click's group of commands; built once, which takes a few milliseconds."""
    return get_command(application())


def application() -> typer.Typer:
    """The command line with all its commands."""
    app = typer.Typer(cls=Group, help=HELP)
    app.callback()(_options)
    for panel, commands in PANELS.items():
        for command in commands:
            app.command(cls=Command, rich_help_panel=panel)(command)
    app.command("bars", cls=Command, hidden=True)(versus.versus)  # what versus was called before
    app.add_typer(self_test.app, name="self-test", rich_help_panel=SELDOM)
    return app


def _show_version(value: bool) -> None:
    if value:
        terminal.show(f"rnnbench {rnnbench.__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """What may stand before a command."""


def _in_one_line(error: Any) -> str:
    """What is wrong with the arguments, and where to read how they have to be."""
    if isinstance(error, typer.BadParameter) and error.message and error.param:
        parameter = error.param
        name = parameter.metavar if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
        message = f"{name}: {error.message}"
    else:
        said = error.format_message().rstrip(".")
        message = said[:1].lower() + said[1:]
    return f"{message}; see {error.ctx.command_path if error.ctx else 'rnnbench'} --help"


if __name__ == "__main__":
    sys.exit(main())
