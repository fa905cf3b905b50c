"""``rnnbench suites``: what can be run, where it is from, and how long it takes."""

import textwrap
from typing import Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import OK, names_from

WIDTH = 110


def suites(
    suite: Annotated[
        str | None,
        typer.Argument(
            metavar="SUITE",
            help="A suite's name, or the path of a .toml file.",
            autocompletion=names_from(completion.suites),
            show_default=False,
        ),
    ] = None,
) -> int:
    """List the suites in the package, or the cases of one.

    Examples:
    $ rnnbench suites
    $ rnnbench suites deepbench-train
    """
    if suite is None:
        _list()
    else:
        _show(suite)
    return OK


def _show(name: str) -> None:
    from rnnbench.suite.suite import load_suite

    suite = load_suite(name)
    terminal.show(f"{suite.name}: {suite.description}\nsource: {suite.source}")
    if suite.settings.backends:
        terminal.show(f"backends: {', '.join(suite.settings.backends)}")
    for case in suite.cases:
        terminal.show(f"  {case.label()}")


def _list() -> None:
    from rnnbench.measure.budget import RATE, alone, duration_of
    from rnnbench.measure.plan import Settings, with_suite_settings
    from rnnbench.suite.suite import load_suite, suite_names

    names = suite_names()
    width = max(map(len, names))
    indent = " " * (width + 2)
    for name in names:
        suite = load_suite(name)
        settings = with_suite_settings(Settings(), suite)
        own = suite.settings.backends  # that rate is not theirs
        took = "not known" if own else duration_of(alone(suite.cases, settings).seconds(settings.rounds))
        terminal.show(f"{name:<{width}}  {len(suite.cases):4d} cases  {took:>12}  {suite.description}")
        if own:
            terminal.show(f"{indent}backends: {', '.join(own)}")
        source = " ".join(f"source: {suite.source}".split())
        terminal.show(textwrap.fill(source, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False))
    terminal.show(
        f"\nTimes are those of one backend at {RATE / 1e9:g} GFLOP/s in the fewest rounds; for the backends here: "
        "rnnbench run SUITE --dry-run"
    )
