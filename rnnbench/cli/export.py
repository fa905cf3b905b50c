"""``rnnbench export``: times in the formats of other tools."""

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rnnbench.cli import terminal
from rnnbench.cli.common import OK, one_of
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.text import spreadsheet_safe

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet", "asv", "pyperf", "bencher")


def export(
    form: Annotated[
        str,
        typer.Argument(
            help="csv, parquet: all times; pyperf, bencher: one run; asv: a folder.",
            **one_of(FORMATS, "FORMAT"),
        ),
    ],
    results: Annotated[
        str,
        typer.Argument(
            metavar="RESULTS", help="A results file, or a folder: all of it, for pyperf and bencher its newest one."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: standard output; asv: its results folder."),
    ] = None,
) -> int:
    """Write times as CSV, Parquet, or files of asv, pyperf or Bencher.

    Examples:
    $ rnnbench export csv results -o times.csv
    $ rnnbench export pyperf results/run.jsonl > run.json
    """
    from rnnbench.results.reader import found_files

    files, left_out = found_files(results)
    path = _output(form, output, files)
    if form not in ("csv", "parquet"):  # load_results tells of them
        _tell(left_out)
    match form:
        case "csv":
            _write(csv(_loaded(results)), path)
        case "parquet":
            _write(parquet(_loaded(results)), path)
        case "asv":
            for written in _export_asv(files, path or Path()):
                terminal.show(str(written))
            return OK
        case _:
            _write(_one_run(form, files[-1]), path)
    if path is not None:
        terminal.show(str(path))
    return OK


def _output(form: str, output: str | None, files: list[Path]) -> Path | None:
    """The file or folder to write, None for standard output; raises ArgumentError."""
    if output is None:
        if form in ("parquet", "asv"):
            raise ArgumentError(f"-o is missing for {form}; expected {'a folder' if form == 'asv' else 'a file'} to write")
        return None
    path = Path(output)
    if path.resolve() in {file.resolve() for file in files}:
        raise ArgumentError(f"-o is {output!r}, which holds the results; expected another file")
    return path


def csv(frame: "pd.DataFrame") -> bytes:
    """A frame of ``load_results`` as CSV; a text that a spreadsheet would run as a formula has a quote before it."""
    safe = frame.copy(deep=False)
    for name in frame.columns[frame.dtypes == "category"]:
        column = frame[name].cat
        safe[name] = column.rename_categories([spreadsheet_safe(text) for text in column.categories])
    return safe.to_csv(index=False, lineterminator="\n").encode()


def parquet(frame: "pd.DataFrame") -> bytes:
    """A frame of ``load_results`` as Parquet, texts as dictionaries; raises MissingLibrary without pyarrow."""
    try:
        import pyarrow  # noqa: F401  # pandas' own message for it is a paragraph
    except ModuleNotFoundError as error:
        raise MissingLibrary("export parquet needs pyarrow: pip install pyarrow") from error
    buffer = io.BytesIO()
    frame.to_parquet(buffer, engine="pyarrow", index=False)
    return buffer.getvalue()


def _loaded(path: str) -> "pd.DataFrame":
    """All times below a path; what was left out is told on standard error."""
    import warnings

    from rnnbench.results.frame import load_results

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # told below, whole
        frame = load_results(path)
    _tell(frame.attrs.get("problems", []))
    return frame


def _one_run(kind: str, file: Path) -> bytes:
    from rnnbench import exports
    from rnnbench.results.reader import read

    contents = read(file)
    document: dict[str, Any] = exports.pyperf(contents) if kind == "pyperf" else exports.bencher(contents)
    _tell([*contents.problems, *(f"not exported: {sentence}" for sentence in exports.left_out(contents))])
    return json.dumps(document, indent=1).encode() + b"\n"


def _export_asv(files: Iterable[Path], folder: Path) -> list[Path]:
    from rnnbench.exports.asv import write_asv
    from rnnbench.results.reader import read

    runs = [read(file) for file in files]
    written = write_asv(runs, folder)
    _tell(problem for one in runs for problem in one.problems)
    _tell(
        f"{one.run.run} ran with uncommitted changes; asv shows it as its commit"
        for one in runs
        if one.run.environment.get("dirty")
    )
    return written


def _write(content: bytes, output: Path | None) -> None:
    if output is None:
        terminal.show_document(content)
    else:
        from rnnbench.results.disk import save

        save(output, [content])


def _tell(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        terminal.tell(sentence)
