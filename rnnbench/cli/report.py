"""``rnnbench report``: results as a page, as text in other formats, or as files of charts."""

from pathlib import Path
from typing import Annotated

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import OK, newest, one_of
from rnnbench.errors import ArgumentError

FORMATS = ("html", "md", "csv", "json")
CHARTS = ("svg", "png")


def report(
    context: typer.Context,
    results: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE",
            help="A results file, or a folder: its newest one; several are laid side by side, compared with the first; "
            "with --history all files below a folder.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("--output", "-o", metavar="FILE", help="The file to write (default of a page: report.html).")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="All results files by commit: when did something become slower?")
    ] = False,
    repository: Annotated[
        str | None, typer.Option(metavar="URL", help="With --history: where its commits are, as URL/commit/HASH.")
    ] = None,
    asv: Annotated[str | None, typer.Option(metavar="DIR", help="asv's results folder instead of a results file.")] = None,
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="Default: html; md, csv and json go to standard output without -o.",
            **one_of(FORMATS),
        ),
    ] = None,
    charts: Annotated[
        str | None, typer.Option(metavar="DIR", help="Write each chart as a file into this folder, and no page.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            "--as",
            help="The kind of the charts' files (default: svg).",
            **one_of(CHARTS),
        ),
    ] = None,
) -> int:
    """Write results as a page, as text or as charts.

    A page has one run, several side by side, all of a folder by commit, or asv's results.

    Examples:
    $ rnnbench report results
    $ rnnbench report before.jsonl after.jsonl -o both.html
    $ rnnbench report results --format md
    $ rnnbench report --history results
    """
    files = results or []
    _check(context, files)
    if charts is not None:
        return _write_charts(_only(files, output), charts, kind or "svg")
    if form is not None and form != "html":
        return _write_text(form, _only(files, output), output)
    terminal.show(str(_page(files, Path(output or "report.html"), asv, history, repository)))
    return OK


def _check(context: typer.Context, files: list[str]) -> None:
    """Raise ArgumentError for options that exclude each other, or need another."""
    given = context.params
    asv, charts, output = given["asv"], given["charts"], given["output"]
    if bool(files) == (asv is not None):
        raise ArgumentError("expected either a results file or --asv DIR")
    for name in ("history", "repository"):
        if given[name] and (asv or not given["history"]):
            beside = "with --asv; expected none" if asv else "without --history; expected both"
            raise ArgumentError(f"--{name} is {given[name]!r} {beside}")
    ways = {"--asv": asv, "--history": given["history"], "--charts": charts, "--format": given["form"]}
    asked = [name for name, value in ways.items() if value]
    if len(asked) > 1:
        raise ArgumentError(f"{' and '.join(asked)} were given; expected one of them")
    for name in ("--charts", "--format"):
        if ways[name] and len(files) > 1:
            raise ArgumentError(f"{name} is given with {len(files)} results files; expected one")
    if given["kind"] is not None and charts is None:
        raise ArgumentError(f"--as is {given['kind']!r} without --charts; expected both")
    if charts is not None and output is not None:
        raise ArgumentError(f"-o is {output!r} with --charts; expected none: the charts go into {charts!r}")


def _page(files: list[str], output: Path, asv: str | None, history: bool, repository: str | None) -> Path:
    """Write the page that was asked for."""
    from rnnbench import reports

    if asv is not None:
        return reports.write_asv_html(Path(asv), output)
    if history:
        return reports.write_history(files, output, repository)
    if len(files) == 1:
        return reports.write_html(_only(files, str(output)), output)
    return reports.write_side_by_side([newest(path) for path in files], output)


def _only(files: list[str], output: str | None) -> Path:
    """The one file to read; raises ArgumentError where the output would take its place."""
    file = newest(files[0])
    if output is not None and Path(output).resolve() == file.resolve():
        raise ArgumentError(f"-o is {output!r}, which holds the results; expected another file")
    return file


def _write_charts(file: Path, folder: str, kind: str) -> int:
    """Write every chart, print the files, and say on standard error which charts have nothing to draw."""
    from rnnbench import reports

    charts = reports.write_charts(reports.to_pandas(file), folder, kind)
    for path in charts.written:
        terminal.show(str(path))
    for sentence in charts.left_out:
        terminal.tell(sentence)
    return OK


def _write_text(form: str, file: Path, output: str | None) -> int:
    """Write a format that is text to the file asked for, or to standard output."""
    from rnnbench import reports

    write = {"md": reports.to_markdown, "csv": reports.to_csv, "json": reports.to_json}[form]
    text = write(reports.to_pandas(file))
    if output is None:
        terminal.show_document(text.encode())
    else:
        from rnnbench.results.disk import save

        save(Path(output), [text.encode()])
        terminal.show(output)
    return OK
