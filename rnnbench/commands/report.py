"""``rnnbench report``: results as a page, as text in other formats, or as files of charts."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rnnbench.disk import save
from rnnbench.errors import ArgumentError
from rnnbench.store import results_files
from rnnbench.words import printable

FORMATS = ("html", "md", "csv", "json")


def report(options: argparse.Namespace, reports: Any) -> int:
    """Write the page and print its path; ``reports`` is the report package.  Returns the exit code."""
    if (options.results is None) == (options.asv is None):
        raise ArgumentError("expected either a results file or --asv DIR")
    _check_formats(options)
    output = Path(options.output or "report.html")
    if options.asv:
        written = reports.write_asv_html(Path(options.asv), output)
    elif options.charts:
        return _charts(options, reports)
    elif options.format in (None, "html"):
        written = reports.write_html(_results_file(options), output)
    else:
        return _text(options, reports)
    print(written)
    return 0


def _check_formats(options: argparse.Namespace) -> None:
    """Raise ArgumentError for options that exclude each other."""
    given = [f"--{name}" for name in ("asv", "charts", "format") if getattr(options, name) is not None]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} were given; expected one of them")
    if options.kind is not None and options.charts is None:
        raise ArgumentError(f"--as is {options.kind!r} without --charts; expected both")
    if options.charts is not None and options.output is not None:
        raise ArgumentError(f"-o is {options.output!r} with --charts; expected none: the charts go into {options.charts!r}")


def _results_file(options: argparse.Namespace) -> Path:
    """The file to read; raises ArgumentError where the output would take its place."""
    file = results_files(options.results)[-1]
    if options.output is not None and Path(options.output).resolve() == file.resolve():
        raise ArgumentError(f"-o is {options.output!r}, which holds the results; expected another file")
    return file


def _charts(options: argparse.Namespace, reports: Any) -> int:
    """Write every chart, print the files, and say on standard error which charts have nothing to draw."""
    data = reports.to_pandas(_results_file(options))
    charts = reports.write_charts(data, options.charts, options.kind or "svg")
    for file in charts.written:
        print(file)
    for sentence in charts.left_out:
        print(f"rnnbench: {printable(sentence)}", file=sys.stderr)
    return 0


def _text(options: argparse.Namespace, reports: Any) -> int:
    """Write a format that is text to the file asked for, or to standard output."""
    data = reports.to_pandas(_results_file(options))
    text = {"md": reports.to_markdown, "csv": reports.to_csv, "json": reports.to_json}[options.format](data)
    if options.output is None:
        sys.stdout.write(text)
    else:
        save(Path(options.output), [text.encode()])
        print(options.output)
    return 0


def add_arguments(sub: argparse.ArgumentParser) -> None:
    """The options that choose another format than the page."""
    sub.add_argument("--format", choices=FORMATS, help="default: html; md, csv and json go to standard output without -o")
    sub.add_argument("--charts", metavar="DIR", help="write each chart as a file into this folder, and no page")
    sub.add_argument("--as", dest="kind", choices=("svg", "png"), help="the kind of the charts' files (default: svg)")
