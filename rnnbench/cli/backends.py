"""``rnnbench backends``: who is registered, told without importing anybody, or by asking each."""

import argparse
import ast
import importlib.util
from importlib.metadata import EntryPoint
from pathlib import Path

from rnnbench.cli import terminal
from rnnbench.networks.registry import CHOOSERS, GROUP, PEERS, registered
from rnnbench.processes.environment import process_threads

GROUPS = {"": GROUP, "peers, to measure against:": PEERS, "choosers, which run one of the others:": CHOOSERS}


def backends(options: argparse.Namespace) -> int:
    """List the registered backends, then peers and choosers, which take part where named; --facts asks each of them."""
    groups = {title: dict(sorted(registered(group).items())) for title, group in GROUPS.items()}
    entries = {name: entry for group in groups.values() for name, entry in group.items()}
    lines = _facts(list(entries), options.time_limit) if options.facts else {n: _first_line(e) for n, e in entries.items()}
    width = max(map(len, lines))
    for title, group in groups.items():
        if title and group:
            terminal.show(f"\n{title}")
        for name in group:
            terminal.show(f"{name:<{width}}  {lines[name]}")
    if not options.facts:
        terminal.show("\nWhich of them can run here, and with which versions: rnnbench backends --facts")
    return 0


def _facts(names: list[str], time_limit: float | None) -> dict[str, str]:
    """What each says of itself, or why it cannot run here."""
    from rnnbench.measure.capabilities import ask, described

    answers = ask(names, threads=process_threads("OMP_NUM_THREADS"), time_limit=time_limit)
    return {name: described(answers[name]) for name in names}


def _first_line(entry: EntryPoint) -> str:
    """The first sentence of a module's docstring, read and not run; of another package's, which its parent would have to be
    imported to find, the package."""
    if entry.dist is None or entry.dist.name != "rnnbench":
        return f"from {entry.dist.name} {entry.dist.version}" if entry.dist else f"from {entry.module}"
    found = importlib.util.find_spec(entry.module)
    if found is None or found.origin is None:
        return f"its module {entry.module} is missing"
    said = ast.get_docstring(ast.parse(Path(found.origin).read_bytes())) or ""
    return " ".join(said.split("\n\n")[0].split())
