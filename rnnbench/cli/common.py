"""What all commands share: exit codes, kinds of options, which options exclude each other, interrupts and progress."""

import datetime
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rnnbench.cli import completion, terminal
from rnnbench.errors import ArgumentError
from rnnbench.text import printable

OK, CHECK_FAILED, USAGE, CASES_FAILED, ENVIRONMENT, INTERRUPTED = 0, 1, 2, 3, 4, 130

UsageError: Any = typer.BadParameter.__base__
"""Click's, or that of Typer's own copy of Click, as the version of Typer has it."""


class Command(TyperCommand):
    """A command whose help goes through ``terminal``, and whose name is in each of its errors."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except UsageError as error:
            error.ctx = error.ctx or ctx
            raise

    def get_help_option(self, ctx: Any) -> Any:
        return _shown_by_us(super().get_help_option(ctx))


class Group(TyperGroup):
    """A group of them, which names them where another is asked for."""

    def get_help_option(self, ctx: Any) -> Any:
        return _shown_by_us(super().get_help_option(ctx))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            known = (name for name, command in self.commands.items() if not command.hidden)
            ctx.fail(f"unknown command {args[0]!r}; expected {', '.join(known)}")
        return super().resolve_command(ctx, args)


def _shown_by_us(option: Any) -> Any:
    """The option --help; Typer's own callback takes an output that is full for a fault of ours."""

    def show(context: Any, parameter: Any, value: bool) -> None:
        if value and not context.resilient_parsing:
            with terminal.drawing():
                print(context.get_help())
            context.exit()

    option.callback = show
    return option


def positive(kind: type, *, zero: bool = False) -> Callable[[str], Any]:
    """A parser of finite numbers above 0, or from 0 on; it raises BadParameter."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is no {kind.__name__}") from None
        if not (value > 0 or (zero and value == 0)) or value != value or value == float("inf"):
            raise typer.BadParameter(f"{text!r} is out of range; expected {'0 or more' if zero else 'more than 0'}")
        return value

    return parse


COUNT = positive(int)
SEED = positive(int, zero=True)
NUMBER = positive(float)


def seconds(text: str) -> float:
    """``90s``, ``10m`` or ``1.5h`` as seconds; raises BadParameter."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is no time; expected a number and s, m or h, as in 10m")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def one_of(names: Sequence[str], metavar: str = "") -> dict[str, Any]:
    """What makes an option take one of these names alone, show them in its help, and have the shell complete them."""

    def parse(text: str) -> str:
        if text not in names:
            raise typer.BadParameter(f"invalid choice: {text!r}; expected {', '.join(names)}")
        return text

    return {"parser": parse, "metavar": metavar or "|".join(names), "autocompletion": names_from(lambda: names)}


def names_from(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The completion of one name."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names() if name.startswith(incomplete)]

    return complete


def lists_from(names: Callable[[], Iterable[str]]) -> Callable[[str], list[str]]:
    """The completion of names with commas between them: of the last one, by a name that is not yet there."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in names() if name.startswith(last) and name not in before.split(",")]

    return complete


Cells = Annotated[
    list[str] | None,
    typer.Option(
        "--cell",
        metavar="CELL",
        help="Only this cell; may be given several times.",
        autocompletion=names_from(completion.cells),
    ),
]

Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME", help="An environment variable that backends see; may be given several times."),
]


def listed(text: str | None) -> list[str] | None:
    """The names that an option such as ``--backends A,B`` has; None where it was not given."""
    return text.split(",") if text else None


def refuse(context: typer.Context, names: Iterable[str], beside: str, expected: str) -> None:
    """Raise ArgumentError for a parameter of the command that was given beside another that excludes it."""
    spelled = {parameter.name: max(parameter.opts, key=len) for parameter in context.command.params}
    for name in names:
        value = context.params[name]
        if value not in (None, False, (), []):
            shown = list(value) if isinstance(value, tuple) else value
            raise ArgumentError(f"{spelled[name]} is {shown!r} {beside}; expected {expected}")


def newest(path: str | Path) -> Path:
    """The results file itself, or the newest one of a folder; raises StoreError."""
    from rnnbench.results.reader import results_files

    return results_files(Path(path))[-1]


def end_workers_on_sigterm() -> None:
    """Make SIGTERM an interrupt, so that workers are ended with this process."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def complain(error: object, code: int) -> int:
    """One line on standard error; gives the code to exit with."""
    terminal.tell(error)
    return code


class Progress:
    """A bar on a terminal, rewritten in place; elsewhere a line at most every ten seconds."""

    def __init__(self, verb: str) -> None:
        self._verb, self._start, self._last = verb, time.monotonic(), 0.0
        self._bar = _Bar(verb) if sys.stderr.isatty() else None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def count(self, done: int, total: int) -> None:
        self.unit(done, total, "")

    def unit(self, done: int, total: int, what: str, seconds_left: float | None = None) -> None:
        """So many of the whole are done, and this is next; the time left follows from the count unless it is given."""
        now = time.monotonic()
        if now - self._last < (0.1 if self._bar else 10):
            return
        self._last = now
        if self._bar:
            terminal.rewrite(self._bar.line(done, total, what, seconds_left))
        else:
            if seconds_left is None and done > total / 20:
                seconds_left = self.seconds / done * (total - done)
            left = "" if seconds_left is None else f", about {seconds_left:.0f} s left"
            terminal.note(f"{self._verb} {done}/{total}{left}  {what}"[:110])

    def clear(self) -> None:
        if self._bar:
            terminal.rewrite("")


class _Bar:
    """Draws the line, and leaves the terminal alone: no thread runs beside a measurement, no cursor is hidden."""

    def __init__(self, verb: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
        from rich.table import Column

        self._console = Console(stderr=True)
        rest = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        columns = (
            TextColumn(verb),
            BarColumn(20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}", markup=False),
            TextColumn("{task.description}", markup=False, table_column=rest),
        )
        self._progress = Progress(*columns, console=self._console, auto_refresh=False, expand=True)
        self._task = self._progress.add_task("", total=None, left="")
        self._start = time.monotonic()

    def line(self, done: int, total: int, what: str, seconds_left: float | None) -> str:
        if seconds_left is None and done:
            seconds_left = (time.monotonic() - self._start) / done * (total - done)
        left = "-:--:--" if seconds_left is None else str(datetime.timedelta(seconds=round(seconds_left)))
        self._progress.update(self._task, completed=done, total=total, description=printable(what), left=left)
        with self._console.capture() as drawn:
            self._console.print(self._progress, end="")
        return drawn.get().split("\n")[0].rstrip()
