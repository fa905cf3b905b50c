"""``rnnbench show``: what results files hold, in a terminal."""

import argparse
import shlex
import statistics
from collections import Counter
from collections.abc import Sequence

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError
from rnnbench.results.reader import Contents, read, results_files
from rnnbench.results.rows import End, Failure, Run, Truncation
from rnnbench.results.valid import Key, device_medians, medians, reasons, times
from rnnbench.suite.case import Case
from rnnbench.text import count, duration, printable

WIDEST = 60
"""Names longer than this are cut off."""


def show(options: argparse.Namespace) -> int:
    """Show what results files hold: runs, numbers of rows, failures, bad lines and medians."""
    contents = [read(file) for path in options.results for file in results_files(path)]
    cases = dict.fromkeys(case for one in contents for case in _cases(one))
    if not any(_matches(case, options.case) for case in cases):
        raise ArgumentError(f"--case is {options.case!r}; none of {count(len(cases), 'case')} has that in its name")
    backends = dict.fromkeys(name for one in contents for name in _backends(one))
    if options.backend is not None and options.backend not in backends:
        raise ArgumentError(f"--backend is {options.backend!r}; these results have {', '.join(backends)}")
    lines = [line for one in contents for line in [*_facts(one), *_failures(one, options), *_table(one, options), ""]]
    terminal.show("\n".join(printable(line) for line in lines[:-1]))
    return 0


def _facts(contents: Contents) -> list[str]:
    run, environment = contents.run, contents.run.environment
    kinds = Counter(type(row).__name__.lower() for row in contents.rows)
    machine = [f"{environment[name]}" for name in ("cpu", "os") if name in environment]
    machine += [f"on the processors {environment['affinity']}"] if environment.get("affinity") else []
    software = [f"Python {environment['python']}"] if "python" in environment else []
    versions = environment.get("versions")
    software += [f"{name} {version}" for name, version in versions.items()] if isinstance(versions, dict) else []
    commit = f"{environment.get('commit') or 'not known'}{', with uncommitted changes' if environment.get('dirty') else ''}"
    facts = {
        "run": f"{run.run}, started {run.started}, {_end(contents)}",
        "command": shlex.join(run.command),
        "machine": f"{environment.get('machine', 'not known')}: {', '.join(machine)}",
        "software": ", ".join(software),
        "commit": commit,
        "rows": ", ".join(f"{number} {kind}" for kind, number in kinds.items()) or "none",
        "bad lines": f"{len(contents.problems)}" if contents.problems else "none",
    }
    return [
        str(contents.path),
        *(f"  {name:<9}  {text}" for name, text in facts.items()),
        *map("    {}".format, contents.problems),
    ]


def _end(contents: Contents) -> str:
    end = next((row for row in reversed(contents.rows) if isinstance(row, End)), None)
    if end is None:
        return "has no last row: cut off, or still running"
    overhead = "" if end.overhead is None else f", {end.overhead:.0%} of {duration(end.seconds)} for neither samples nor checks"
    return f"{'interrupted' if end.interrupted else 'completed'} {end.finished}{overhead}"


def _failures(contents: Contents, options: argparse.Namespace) -> list[str]:
    lines = [
        f"    {row.backend} on {row.case.label()}: {row.stage}: {row.reason}: {row.message}"
        for row in contents.rows
        if isinstance(row, Failure) and _matches(row.case, options.case) and options.backend in (None, row.backend)
    ]
    absent = [
        f"    {name}: unavailable: {facts['unavailable']}"
        for name, facts in contents.run.backends.items()
        if "unavailable" in facts and options.backend in (None, name)
    ]
    lines = [line if len(line) <= 3 * WIDEST else line[: 3 * WIDEST] + "…" for line in absent + lines]
    return [f"  failures   {len(lines) or 'none'}", *lines]


def _table(contents: Contents, options: argparse.Namespace) -> list[str]:
    """Seconds per call, the median over rounds of each round's median; a case a line, a backend a column.

    Below them the same by the clocks of devices, where there are any.
    """
    measured, excluded = times(contents), reasons(contents)
    unavailable = {name for name, facts in contents.run.backends.items() if "unavailable" in facts}
    names = [name for name in _backends(contents) if options.backend in (None, name) and name not in unavailable]
    cases = [case for case in _cases(contents) if _matches(case, options.case)]

    def cell(key: Key) -> str:
        return duration(statistics.median(medians(measured[key]))) if key in measured else excluded.get(key, "missing")

    if not cases or not names:
        return []
    rounds = [len(measured[key]) for key in measured if key[0] in cases and key[1] in names]
    told = f"{min(rounds)} to {max(rounds)}" if rounds and min(rounds) < max(rounds) else str(max(rounds, default=0))
    rows = [[case.label(), *(cell((case, name)) for name in names)] for case in cases]
    lines = [f"  time of a call, median of {told} rounds", *_aligned([["", *names], *rows])]
    on_device = {key: found for key, rounds in measured.items() if (found := device_medians(rounds))}
    timed = [name for name in names if any((case, name) in on_device for case in cases)]

    def device_cell(key: Key) -> str:
        return duration(statistics.median(on_device[key])) if key in on_device else ""

    if timed:
        rows = [[case.label(), *(device_cell((case, name)) for name in timed)] for case in cases]
        lines += ["  device time of a call, calls submitted without waiting", *_aligned([["", *timed], *rows])]
    return lines


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    clipped = [[text if len(text) <= WIDEST else text[: WIDEST - 1] + "…" for text in map(printable, row)] for row in rows]
    widths = [max(map(len, column)) for column in zip(*clipped, strict=True)]
    return [
        "    "
        + "  ".join([f"{first:<{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(rest, widths[1:], strict=True))])
        for first, *rest in clipped
    ]


def _cases(contents: Contents) -> list[Case]:
    """All cases of the run, those that rows add behind those that it asked for."""
    return list(dict.fromkeys([*contents.run.cases, *(row.case for row in contents.rows if not isinstance(row, Run | End))]))


def _backends(contents: Contents) -> list[str]:
    of_rows = (row.backend for row in contents.rows if not isinstance(row, Run | Truncation | End))
    return list(dict.fromkeys([*contents.run.backends, *of_rows]))


def _matches(case: Case, text: str | None) -> bool:
    return text is None or text in case.label()
