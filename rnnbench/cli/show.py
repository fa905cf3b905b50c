"""``rnnbench show``: what results files hold, in a terminal."""

import shlex
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import OK, names_from
from rnnbench.errors import ArgumentError
from rnnbench.text import count, duration, printable

if TYPE_CHECKING:
    from rnnbench.results.reader import Contents
    from rnnbench.results.valid import Key
    from rnnbench.suite.case import Case

WIDEST = 60
"""Names longer than this are cut off."""


class Wanted(NamedTuple):
    """What of the results is shown: cases with this text in their name, and one backend; None for all."""

    case: str | None
    backend: str | None


def show(
    results: Annotated[list[str], typer.Argument(metavar="RESULTS", help="Results files, or folders of them.")],
    case: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Only cases that have this in their name, such as 'lstm step' or H256."),
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this one.", autocompletion=names_from(completion.backends))
    ] = None,
) -> int:
    """Show runs, failures, bad lines and medians of results files.

    Examples:
    $ rnnbench show results
    $ rnnbench show results --case "lstm step" --backend numba_cpu
    """
    from rnnbench.results.reader import read, results_files

    contents = [read(file) for path in results for file in results_files(path)]
    cases = dict.fromkeys(one for file in contents for one in _cases(file))
    if not any(_matches(one, case) for one in cases):
        raise ArgumentError(f"--case is {case!r}; none of {count(len(cases), 'case')} has that in its name")
    backends = dict.fromkeys(name for one in contents for name in _backends(one))
    if backend is not None and backend not in backends:
        raise ArgumentError(f"--backend is {backend!r}; these results have {', '.join(backends)}")
    wanted = Wanted(case, backend)
    lines = [line for one in contents for line in [*_facts(one), *_failures(one, wanted), *_table(one, wanted), ""]]
    terminal.show("\n".join(printable(line) for line in lines[:-1]))
    return OK


def _facts(contents: "Contents") -> list[str]:
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


def _end(contents: "Contents") -> str:
    from rnnbench.results.rows import End

    end = next((row for row in reversed(contents.rows) if isinstance(row, End)), None)
    if end is None:
        return "has no last row: cut off, or still running"
    overhead = "" if end.overhead is None else f", {end.overhead:.0%} of {duration(end.seconds)} for neither samples nor checks"
    return f"{'interrupted' if end.interrupted else 'completed'} {end.finished}{overhead}"


def _failures(contents: "Contents", wanted: Wanted) -> list[str]:
    from rnnbench.results.rows import Failure

    lines = [
        f"    {row.backend} on {row.case.label()}: {row.stage}: {row.reason}: {row.message}"
        for row in contents.rows
        if isinstance(row, Failure) and _matches(row.case, wanted.case) and wanted.backend in (None, row.backend)
    ]
    absent = [
        f"    {name}: unavailable: {facts['unavailable']}"
        for name, facts in contents.run.backends.items()
        if "unavailable" in facts and wanted.backend in (None, name)
    ]
    lines = [line if len(line) <= 3 * WIDEST else line[: 3 * WIDEST] + "…" for line in absent + lines]
    return [f"  failures   {len(lines) or 'none'}", *lines]


def _table(contents: "Contents", wanted: Wanted) -> list[str]:
    """Seconds per call, the median over rounds of each round's median; a case a line, a backend a column.

    Below them the same by the clocks of devices, where there are any.
    """
    from statistics import median

    from rnnbench.results.valid import device_medians, medians, reasons, times

    measured, excluded = times(contents), reasons(contents)
    unavailable = {name for name, facts in contents.run.backends.items() if "unavailable" in facts}
    names = [name for name in _backends(contents) if wanted.backend in (None, name) and name not in unavailable]
    cases = [case for case in _cases(contents) if _matches(case, wanted.case)]

    def cell(key: "Key") -> str:
        return duration(median(medians(measured[key]))) if key in measured else excluded.get(key, "missing")

    if not cases or not names:
        return []
    rounds = [len(measured[key]) for key in measured if key[0] in cases and key[1] in names]
    told = f"{min(rounds)} to {max(rounds)}" if rounds and min(rounds) < max(rounds) else str(max(rounds, default=0))
    rows = [[case.label(), *(cell((case, name)) for name in names)] for case in cases]
    lines = [f"  time of a call, median of {told} rounds", *_aligned([["", *names], *rows])]
    on_device = {key: found for key, rounds in measured.items() if (found := device_medians(rounds))}
    timed = [name for name in names if any((case, name) in on_device for case in cases)]

    def device_cell(key: "Key") -> str:
        return duration(median(on_device[key])) if key in on_device else ""

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


def _cases(contents: "Contents") -> "list[Case]":
    """All cases of the run, those that rows add behind those that it asked for."""
    from rnnbench.results.rows import End, Run

    return list(dict.fromkeys([*contents.run.cases, *(row.case for row in contents.rows if not isinstance(row, Run | End))]))


def _backends(contents: "Contents") -> list[str]:
    from rnnbench.results.rows import End, Run, Truncation

    of_rows = (row.backend for row in contents.rows if not isinstance(row, Run | Truncation | End))
    return list(dict.fromkeys([*contents.run.backends, *of_rows]))


def _matches(case: "Case", text: str | None) -> bool:
    return text is None or text in case.label()
