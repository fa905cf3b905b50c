"""``rnnbench latency``: how long single steps take, and how long the slowest of them."""

import csv
import dataclasses
import io
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnbench.cli import completion, terminal
from rnnbench.cli.common import (
    CASES_FAILED,
    COUNT,
    NUMBER,
    OK,
    Progress,
    end_workers_on_sigterm,
    listed,
    lists_from,
    names_from,
)
from rnnbench.errors import ArgumentError, StoreError
from rnnbench.results.disk import add_lines, save
from rnnbench.text import spreadsheet_safe

if TYPE_CHECKING:
    from rnnbench.measure.latency import Row, Settings, Summary

DEFAULT = ("numba_cpu", "onnxruntime", "torch_nn", "jax_scan")
"""Backends that take part if they can run here and none is named."""

QUICK = {"steps": 5_000, "rounds": 2}


def latency(
    suite: Annotated[
        str,
        typer.Argument(
            metavar="SUITE",
            help="A suite of single steps, or the path of a .toml file.",
            autocompletion=names_from(completion.suites),
        ),
    ] = "latency",
    backends: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help=f"Only these; default: those of {', '.join(DEFAULT)} that can run here.",
            autocompletion=lists_from(completion.backends),
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="5,000 steps in two rounds, for a first look.")] = False,
    steps: Annotated[int | None, typer.Option(parser=COUNT, metavar="N", help="Steps in a round (default: 100,000).")] = None,
    rounds: Annotated[
        int | None, typer.Option(parser=COUNT, metavar="N", help="Rounds of fresh processes (default: 5).")
    ] = None,
    frame: Annotated[
        float, typer.Option(parser=NUMBER, metavar="MS", help="Milliseconds in which a step has to be done.")
    ] = 10.0,
    only: Annotated[
        str | None,
        typer.Option("--filter", metavar="TEXT", help="Only cases that have this in their label, such as lstm or H64."),
    ] = None,
    output: Annotated[str, typer.Option("--output", "-o", metavar="DIR", help="Where the rows go, as JSON lines.")] = "latency",
    table: Annotated[str | None, typer.Option("--csv", metavar="FILE", help="Write the table to this file, too.")] = None,
    chart: Annotated[str | None, typer.Option(metavar="FILE", help="Draw the distribution to this SVG file.")] = None,
) -> int:
    """Time single steps with a kept state, and show their distribution.

    Examples:
    $ rnnbench latency --quick
    $ rnnbench latency --backends numba_cpu,onnxruntime --chart steps.svg
    """
    from rnnbench.measure.latency import Settings, check_cases, measure, summaries
    from rnnbench.suite.suite import load_suite

    names = _names(listed(backends))
    cases = [case for case in load_suite(suite).cases if only is None or only in case.label()]
    if not cases:
        raise ArgumentError(f"--filter is {only!r}; expected a part of a label of the suite {suite}")
    check_cases(cases)
    chosen = dict(QUICK) if quick else {}
    chosen |= {name: value for name, value in (("steps", steps), ("rounds", rounds)) if value is not None}
    settings = dataclasses.replace(Settings(), frame=frame / 1000, **chosen)
    end_workers_on_sigterm()
    progress = Progress("step")
    rows: list[Row] = []
    path = _new_file(Path(output))
    _write(path, {"type": "run"} | _facts(settings))
    for row in measure(names, cases, settings, progress.unit):
        rows.append(row)
        _write(path, row)
    progress.clear()
    found = summaries(rows, settings.frame)
    terminal.show(text(found, settings))
    for line in dict.fromkeys(f"{row.backend}: {row.case.label()}: {row.failure}" for row in rows if row.failure):
        terminal.tell(line)
    if table is not None:
        _write_csv(Path(table), found)
    if chart is not None and found:
        from rnnbench import reports

        reports.write_latency_chart(chart, found, settings.frame)
    terminal.note(f"stored: {path}")
    return CASES_FAILED if any(row.failure for row in rows) else OK


def text(found: "Sequence[Summary]", settings: "Settings") -> str:
    """The table: a line for each case and backend, microseconds; late steps, and the real-time factor of the median."""
    columns = ["p50", "p99", "p99.9", "max"]
    lines, last = [["", "backend", *columns, "factor", "late", "preempted"]], None
    for one in found:
        label, numbers = one.case.label(), [f"{one.quantiles[name] * 1e6:,.1f}" for name in columns]
        counts = [f"{one.factor:.5f}", str(one.late), str(one.preempted)]
        lines.append(["" if label == last else label, one.backend, *numbers, *counts])
        last = label
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = []
    for line in lines:
        cells = [*map(str.ljust, line[:2], widths[:2]), *map(str.rjust, line[2:], widths[2:])]
        shown.append("  ".join(cells).rstrip())
    frame = f"{settings.frame * 1e3:g} ms"
    said = f"Microseconds of {settings.steps:,} steps in {settings.rounds} rounds: medians of the rounds, max over all."
    return "\n".join([*shown, "", said, f"factor: p50 / {frame}; late: steps above {frame}; preempted: by the system."])


def _names(given: list[str] | None) -> list[str]:
    """The backends to measure, each asked in a process of its own; raises for those named as ``rnnbench run`` does."""
    from rnnbench.measure.capabilities import ask, failure_text
    from rnnbench.measure.plan import Settings, requested_backends

    if given is not None:
        return list(requested_backends(given, (), Settings()))
    found = ask(DEFAULT)
    for name, capabilities in found.items():
        if capabilities.failure:
            terminal.tell(f"left out: {name}: {failure_text(capabilities.failure)}")
    return [name for name, capabilities in found.items() if not capabilities.failure]


def _new_file(folder: Path) -> Path:
    from rnnbench.machine.facts import machine_name

    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{machine_name()}-{datetime.now(UTC):%Y%m%dT%H%M%S.%f}.jsonl"
        path.touch(exist_ok=False)
    except OSError as error:
        raise StoreError(f"cannot write to {folder}: {error.strerror}") from error
    return path


def _facts(settings: "Settings") -> dict[str, Any]:
    from rnnbench.machine.facts import environment

    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["rnnbench", *sys.argv[1:]]),
        "environment": environment(),
        "settings": dataclasses.asdict(settings),
    }


def _write(path: Path, row: Any) -> None:
    """Append one line, which is on the disk when the next step is measured; raises StoreError."""
    import msgspec

    try:
        add_lines(path, [msgspec.json.encode(row, enc_hook=str) + b"\n"])
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def _write_csv(path: Path, found: "Sequence[Summary]") -> None:
    import msgspec

    lines = io.StringIO(newline="")
    writer: csv.DictWriter[str] | None = None
    for one in found:
        row = {"backend": spreadsheet_safe(one.backend), **msgspec.structs.asdict(one.case), "rounds": one.rounds}
        row |= {f"{name}_s": value for name, value in one.quantiles.items()}
        row |= {"real_time_factor": one.factor, "late": one.late, "preempted": one.preempted}
        if writer is None:
            writer = csv.DictWriter(lines, list(row))
            writer.writeheader()
        writer.writerow(row)
    save(path, [lines.getvalue().encode()])
