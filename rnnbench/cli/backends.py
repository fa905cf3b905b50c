"""``rnnbench backends``: who is registered, told without importing anybody, or by asking each."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import NUMBER, OK
from rnnbench.networks.names import CHOOSERS, GROUP, PEERS

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUPS = {"": GROUP, "peers, to measure against:": PEERS, "choosers, which run one of the others:": CHOOSERS}


def backends(
    facts: Annotated[
        bool, typer.Option("--facts", help="Ask each, in a process of its own: versions, or why it cannot run.")
    ] = False,
    time_limit: Annotated[
        float | None,
        typer.Option(parser=NUMBER, metavar="S", help="With --facts: seconds for each answer (default: 120)."),
    ] = None,
) -> int:
    """List the registered backends, peers and choosers.

    Peers and choosers take part in a run only where they are named.

    Examples:
    $ rnnbench backends
    $ rnnbench backends --facts
    """
    from rnnbench.networks.registry import registered

    groups = {title: dict(sorted(registered(group).items())) for title, group in GROUPS.items()}
    entries = {name: entry for group in groups.values() for name, entry in group.items()}
    lines = _facts(list(entries), time_limit) if facts else {name: _first_line(entry) for name, entry in entries.items()}
    width = max(map(len, lines))
    for title, group in groups.items():
        if title and group:
            terminal.show(f"\n{title}")
        for name in group:
            terminal.show(f"{name:<{width}}  {lines[name]}")
    if not facts:
        terminal.show("\nWhich of them can run here, and with which versions: rnnbench backends --facts")
    return OK


def _facts(names: list[str], time_limit: float | None) -> dict[str, str]:
    """What each says of itself, or why it cannot run here."""
    from rnnbench.measure.capabilities import ask, described
    from rnnbench.processes.environment import process_threads

    answers = ask(names, threads=process_threads("OMP_NUM_THREADS"), time_limit=time_limit)
    return {name: described(answers[name]) for name in names}


def _first_line(entry: "EntryPoint") -> str:
    """The first sentence of a module's docstring, read and not run; of another package's, which its parent would have to be
    imported to find, the package."""
    import ast
    import importlib.util

    if entry.dist is None or entry.dist.name != "rnnbench":
        return f"from {entry.dist.name} {entry.dist.version}" if entry.dist else f"from {entry.module}"
    found = importlib.util.find_spec(entry.module)
    if found is None or found.origin is None:
        return f"its module {entry.module} is missing"
    said = ast.get_docstring(ast.parse(Path(found.origin).read_bytes())) or ""
    return " ".join(said.split("\n\n")[0].split())
