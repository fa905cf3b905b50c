"""Read results files, and find them in folders.

A line that holds no row is reported and left out, as is a torn last line, which a crash leaves.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from rnnbench.errors import LeftOut, StoreError
from rnnbench.results.header import header_error
from rnnbench.results.rows import SCHEMA, AnyRow, Run


class _Head(msgspec.Struct, tag_field="kind", tag="run"):
    """The part of a run's row that every schema has."""

    schema: int


UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""Errors of decoding: no JSON or another form, no UTF-8 or too long a number, and deep nesting."""

_DECODER = msgspec.json.Decoder(AnyRow)
_HEAD = msgspec.json.Decoder(_Head)


class Contents(NamedTuple):
    """A results file: its run, all other rows in order, and a sentence for each unreadable line."""

    path: Path
    run: Run
    rows: list[AnyRow]
    problems: list[str]


def read(path: Path | str) -> Contents:
    """Read a results file; raises StoreError if it is missing or its first line is no run of this schema."""
    path = Path(path)
    rows: list[AnyRow] = []
    problems: list[str] = []
    for line in scan(path):
        if line.problem is None:
            rows.append(line.row)
        else:
            problems.append(line.problem)
    return Contents(path, cast("Run", rows[0]), rows[1:], problems)


class Line(NamedTuple):
    """One line of a results file: its number, its bytes, and either its row or a sentence why it holds none."""

    number: int
    content: bytes
    row: Any
    problem: str | None

    @property
    def torn(self) -> bool:
        return not self.content.endswith(b"\n")


def scan(path: Path, decoder: "msgspec.json.Decoder[Any]" = _DECODER) -> Iterator[Line]:
    """Yield the lines of a results file except blank ones, the run's line first; raises StoreError as ``read`` does."""
    first = True
    for number, content in numbered_lines(path):
        row, problem = None, None
        if content.endswith(b"\n"):
            try:
                row = decoder.decode(content)
            except UNREADABLE as error:
                problem = f"{path.name}:{number}: not a row: {_message(error)}"
            if isinstance(row, Run) and (error := header_error(row.environment, row.settings, row.backends)):
                row, problem = None, f"{path.name}:{number}: not a row: {error}"
        else:  # even if it decodes: it was never acknowledged, and resuming the run cuts it off
            problem = f"{path.name}:{number}: not a row: torn, the run was cut off while writing it"
        if first:
            _check_run(path, content, row, problem)
            first = False
        yield Line(number, content, row, problem)
    if first:
        _check_run(path, b"", None, None)


class Found(NamedTuple):
    """The results files below a folder, oldest name first, and a sentence for each other .jsonl file."""

    files: list[Path]
    left_out: list[str]


def found_files(path: Path | str) -> Found:
    """Find the results files at a path, a file or a folder; raises StoreError if there are none."""
    path = Path(path)
    if path.is_file():
        return Found([path], [])
    found = Found([], [])
    for file in sorted(path.rglob("*.jsonl"), key=lambda file: (file.name, file)):
        try:
            if not file.is_file():
                raise StoreError(f"{file} is no file")
            next(scan(file))
        except StoreError as error:
            found.left_out.append(f"left out: {error}")
        else:
            found.files.append(file)
    if not found.files:
        why = f": {found.left_out[0].removeprefix('left out: ')}" if found.left_out else ""
        raise StoreError(f"no results at {path}; expected a .jsonl file, or a folder that holds some{why}")
    return found


def results_files(path: Path | str) -> list[Path]:
    """Return the results files at a path, a file or a folder, oldest name first; raises StoreError if there are none.

    A .jsonl file whose first line is no run is left out with a warning (LeftOut).
    """
    found = found_files(path)
    for sentence in found.left_out:
        warnings.warn(sentence, LeftOut, stacklevel=2)
    return found.files


def quarantine_file(path: Path) -> Path:
    """Return the file for lines that hold no row: ``NUMBER<tab>LINE``, with the original line number."""
    return path.with_name(f"{path.name}.bad")


def numbered_lines(path: Path, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                if blank or content.strip():
                    yield number, content
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _message(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_run(path: Path, content: bytes, row: Any, problem: str | None) -> None:
    """Raise StoreError if the first line is no run of this schema, also for an unreadable run of another schema."""
    try:
        schema = _HEAD.decode(content).schema
    except UNREADABLE:
        schema = SCHEMA  # no run of any schema: raises below
    if schema != SCHEMA:
        raise StoreError(f"{path} has schema {schema}; this version reads schema {SCHEMA}")
    if not isinstance(row, Run):
        raise StoreError(f"{path} is no results file: its first line is no run" + (f" ({problem})" if problem else ""))
