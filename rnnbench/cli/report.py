"""``rnnbench report``: results as a page, as text in other formats, or as files of charts."""

import argparse
from pathlib import Path
from typing import Any

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError
from rnnbench.results.disk import save
from rnnbench.results.reader import results_files

FORMATS = ("html", "md", "csv", "json")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "results",
        nargs="*",
        metavar="FILE",
        help="a results file, or a folder: its newest one; several are laid side by side, compared with the first; "
        "with --history all files below a folder",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="the file to write (default of a page: report.html)")
    parser.add_argument("--history", action="store_true", help="all results files by commit: when did something become slower?")
    parser.add_argument("--repository", metavar="URL", help="with --history: where its commits are, as URL/commit/HASH")
    parser.add_argument("--asv", metavar="DIR", help="asv's results folder instead of a results file")
    parser.add_argument("--format", choices=FORMATS, help="default: html; md, csv and json go to standard output without -o")
    parser.add_argument("--charts", metavar="DIR", help="write each chart as a file into this folder, and no page")
    parser.add_argument("--as", dest="kind", choices=("svg", "png"), help="the kind of the charts' files (default: svg)")


def report(options: argparse.Namespace, reports: Any) -> int:
    """Write what was asked for and print its path, or the text; ``reports`` is the report package.  Returns the exit code."""
    if bool(options.results) == (options.asv is not None):
        raise ArgumentError("expected either a results file or --asv DIR")
    for name in ("history", "repository"):
        value = getattr(options, name)
        if value and (options.asv or not options.history):
            beside = "with --asv; expected none" if options.asv else "without --history; expected both"
            raise ArgumentError(f"--{name} is {value!r} {beside}")
    _check_formats(options)
    if options.charts:
        return _charts(options, reports)
    if options.format not in (None, "html"):
        return _text(options, reports)
    output = Path(options.output or "report.html")
    if options.asv:
        written = reports.write_asv_html(Path(options.asv), output)
    elif options.history:
        written = reports.write_history(options.results, output, options.repository)
    elif len(options.results) == 1:
        written = reports.write_html(_only(options), output)
    else:
        written = reports.write_side_by_side([newest(path) for path in options.results], output)
    terminal.show(str(written))
    return 0


def newest(path: str) -> Path:
    """The file itself, or the newest one of a folder."""
    return results_files(Path(path))[-1]


def _check_formats(options: argparse.Namespace) -> None:
    """Raise ArgumentError for options that exclude each other."""
    given = [f"--{name}" for name in ("asv", "history", "charts", "format") if getattr(options, name)]
    if len(given) > 1:
        raise ArgumentError(f"{' and '.join(given)} were given; expected one of them")
    for name in ("charts", "format"):
        if getattr(options, name) and len(options.results) > 1:
            raise ArgumentError(f"--{name} is given with {len(options.results)} results files; expected one")
    if options.kind is not None and options.charts is None:
        raise ArgumentError(f"--as is {options.kind!r} without --charts; expected both")
    if options.charts is not None and options.output is not None:
        raise ArgumentError(f"-o is {options.output!r} with --charts; expected none: the charts go into {options.charts!r}")


def _only(options: argparse.Namespace) -> Path:
    """The one file to read; raises ArgumentError where the output would take its place."""
    file = newest(options.results[0])
    if options.output is not None and Path(options.output).resolve() == file.resolve():
        raise ArgumentError(f"-o is {options.output!r}, which holds the results; expected another file")
    return file


def _charts(options: argparse.Namespace, reports: Any) -> int:
    """Write every chart, print the files, and say on standard error which charts have nothing to draw."""
    charts = reports.write_charts(reports.to_pandas(_only(options)), options.charts, options.kind or "svg")
    for file in charts.written:
        terminal.show(str(file))
    for sentence in charts.left_out:
        terminal.tell(sentence)
    return 0


def _text(options: argparse.Namespace, reports: Any) -> int:
    """Write a format that is text to the file asked for, or to standard output."""
    data = reports.to_pandas(_only(options))
    text = {"md": reports.to_markdown, "csv": reports.to_csv, "json": reports.to_json}[options.format](data)
    if options.output is None:
        terminal.show_document(text.encode())
    else:
        save(Path(options.output), [text.encode()])
        terminal.show(options.output)
    return 0
