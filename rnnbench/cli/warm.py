"""``rnnbench warm``: compile what backends need, before it is needed."""

from typing import Annotated

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import OK, Progress, end_workers_on_sigterm, names_from

USUAL = ("numba_cpu",)
"""The backends that keep compiled code for later processes."""


def warm(
    backends: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[BACKEND]...",
            help="Default: numba_cpu.",
            autocompletion=names_from(completion.backends),
            show_default=False,
        ),
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the cases of a suite need, or of its file (default: every cell, in float32).",
            autocompletion=names_from(completion.suites),
        ),
    ] = None,
) -> int:
    """Compile kernels before they are needed.

    Later processes load them from Numba's cache: NUMBA_CACHE_DIR, else a folder beside the sources.

    Examples:
    $ rnnbench warm
    $ rnnbench warm numba_cpu --suite quick
    """
    from rnnbench.measure.plan import Settings, requested_backends
    from rnnbench.measure.warm import small, usual_cases
    from rnnbench.measure.warm import warm as carry_out
    from rnnbench.suite.suite import load_suite
    from rnnbench.text import count

    cases = small(load_suite(suite).cases) if suite else usual_cases()
    names = list(dict.fromkeys(backends or USUAL))
    requested_backends(names, (), Settings())
    end_workers_on_sigterm()
    progress = Progress("compiling")
    for name in names:
        found = carry_out(name, cases, progress.unit)
        progress.clear()
        for folder, loaded, compiled in found:
            terminal.show(f"{name}: {count(compiled, 'function')} compiled, {loaded} already there: {folder}")
        if not found:
            terminal.show(f"{name}: keeps no compiled code in Numba's cache")
    return OK
