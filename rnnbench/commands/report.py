"""``rnnbench report``: results as a page."""

import argparse
from pathlib import Path
from typing import Any

from rnnbench.errors import ArgumentError
from rnnbench.store import results_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="*",
        metavar="FILE",
        help="a results file, or a folder: its newest one; several are laid side by side, compared with the first; "
        "with --history all files below a folder",
    )
    parser.add_argument(
        "-o", "--output", default="report.html", metavar="FILE", help="the page to write (default: report.html)"
    )
    parser.add_argument("--history", action="store_true", help="all results files by commit: when did something become slower?")
    parser.add_argument("--repository", metavar="URL", help="with --history: where its commits are, as URL/commit/HASH")
    parser.add_argument("--asv", metavar="DIR", help="asv's results folder instead of a results file")


def report(options: argparse.Namespace, reports: Any) -> int:
    """Write the page and print its path; ``reports`` is the report package.  Returns the exit code."""
    if bool(options.results) == (options.asv is not None):
        raise ArgumentError("expected either a results file or --asv DIR")
    for name in ("history", "repository"):
        value = getattr(options, name)
        if value and (options.asv or not options.history):
            beside = "with --asv; expected none" if options.asv else "without --history; expected both"
            raise ArgumentError(f"--{name} is {value!r} {beside}")
    output = Path(options.output)
    if options.asv:
        written = reports.write_asv_html(Path(options.asv), output)
    elif options.history:
        written = reports.write_history(options.results, output, options.repository)
    elif len(options.results) == 1:
        written = reports.write_html(newest(options.results[0]), output)
    else:
        written = reports.write_side_by_side([newest(path) for path in options.results], output)
    print(written)
    return 0


def newest(path: str) -> Path:
    """The file itself, or the newest one of a folder."""
    return results_files(Path(path))[-1]
