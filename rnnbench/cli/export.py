"""``rnnbench export``: times in the formats of other tools."""

import argparse
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnnbench.cli import terminal
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.results.disk import save
from rnnbench.results.reader import found_files, read
from rnnbench.text import spreadsheet_safe

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "parquet", "asv", "pyperf", "bencher")


def export(options: argparse.Namespace) -> int:
    """Write times as CSV, Parquet, or files of asv, pyperf or Bencher."""
    files, left_out = found_files(options.results)
    output = _output(options, files)
    if options.format not in ("csv", "parquet"):  # load_results tells of them
        _tell(left_out)
    match options.format:
        case "csv":
            _write(csv(_loaded(options.results)), output)
        case "parquet":
            _write(parquet(_loaded(options.results)), output)
        case "asv":
            for path in _export_asv(files, Path(options.output)):
                terminal.show(str(path))
            return 0
        case _:
            _write(_one_run(options.format, files[-1]), output)
    if output is not None:
        terminal.show(str(output))
    return 0


def _output(options: argparse.Namespace, files: list[Path]) -> Path | None:
    if options.output is None:
        if options.format in ("parquet", "asv"):
            what = "a folder" if options.format == "asv" else "a file"
            raise ArgumentError(f"-o is missing for {options.format}; expected {what} to write")
        return None
    output = Path(options.output)
    if output.resolve() in {file.resolve() for file in files}:
        raise ArgumentError(f"-o is {options.output!r}, which holds the results; expected another file")
    return output


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

    contents = read(file)
    document: dict[str, Any] = exports.pyperf(contents) if kind == "pyperf" else exports.bencher(contents)
    _tell([*contents.problems, *(f"not exported: {sentence}" for sentence in exports.left_out(contents))])
    return json.dumps(document, indent=1).encode() + b"\n"


def _export_asv(files: Iterable[Path], folder: Path) -> list[Path]:
    from rnnbench.exports.asv import write_asv

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
        save(output, [content])


def _tell(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        terminal.tell(sentence)
