"""Read results files, and find them in folders.

A torn last line, as a crash leaves it, is skipped; any other line that holds no row is reported.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from rnnbench.errors import LeftOut, StoreError
from rnnbench.results.header import flaw
from rnnbench.results.rows import SCHEMA, AnyRow, Run


class _Head(msgspec.Struct, tag_field="kind", tag="run"):
    """What a run's row of any schema holds."""

    schema: int


UNREADABLE = (msgspec.DecodeError, ValueError, RecursionError)
"""What decoding raises: for what is no JSON or has another form, no UTF-8 or too long a number, and deep nesting."""

_DECODER = msgspec.json.Decoder(AnyRow)
_HEAD = msgspec.json.Decoder(_Head)


class Contents(NamedTuple):
    """What a results file holds: its run, all other rows in order, and one sentence for each line that did not read."""

    path: Path
    run: Run
    rows: list[AnyRow]
    problems: list[str]


def read(path: Path | str) -> Contents:
    """Read a results file; raises StoreError where there is none, or where its first line is no run of this schema."""
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
    """One line of a results file: its number, its bytes, and either the row that it holds or a sentence why it holds none."""

    number: int
    content: bytes
    row: Any
    problem: str | None

    @property
    def torn(self) -> bool:
        return not self.content.endswith(b"\n")


def scan(path: Path, decoder: "msgspec.json.Decoder[Any]" = _DECODER) -> Iterator[Line]:
    """The lines of a results file that are not blank, of which the first holds its run; raises StoreError as ``read``."""
    first = True
    for number, content in numbered_lines(path):
        row, problem = None, None
        if content.endswith(b"\n"):
            try:
                row = decoder.decode(content)
            except UNREADABLE as error:
                problem = f"{path.name}:{number}: not a row: {_said(error)}"
            if isinstance(row, Run) and (wrong := flaw(row.environment, row.settings, row.backends)):
                row, problem = None, f"{path.name}:{number}: not a row: {wrong}"
        else:  # even if it reads as a row: it was never acknowledged, and going on with the run cuts it off
            problem = f"{path.name}:{number}: not a row: torn, the run was cut off while writing it"
        if first:
            _check_run(path, content, row, problem)
            first = False
        yield Line(number, content, row, problem)
    if first:
        _check_run(path, b"", None, None)


class Found(NamedTuple):
    """The results files below a folder, oldest name first, and a sentence for each file that has the name of one only."""

    files: list[Path]
    left_out: list[str]


def found_files(path: Path | str) -> Found:
    """The file itself, or what is below a folder; raises StoreError if there are no results files."""
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
    """The file itself, or all results files below a folder, oldest name first; raises StoreError if there are none.

    Files that have the name of one, and whose first line is no run, are left out with a warning (LeftOut) each.
    """
    found = found_files(path)
    for sentence in found.left_out:
        warnings.warn(sentence, LeftOut, stacklevel=2)
    return found.files


def quarantine_file(path: Path) -> Path:
    """Where lines of a results file go that hold no row: ``NUMBER<tab>LINE`` each, with the number that it had."""
    return path.with_name(f"{path.name}.bad")


def numbered_lines(path: Path, *, blank: bool = False) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            for number, content in enumerate(file, 1):
                if blank or content.strip():
                    yield number, content
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error


def _said(error: Exception) -> str:
    return "nested too deeply" if isinstance(error, RecursionError) else str(error)


def _check_run(path: Path, content: bytes, row: Any, problem: str | None) -> None:
    """Raise StoreError where the first line is no run of this schema, also where that other schema's run does not read."""
    try:
        schema = _HEAD.decode(content).schema
    except UNREADABLE:
        schema = SCHEMA  # no run of any schema: refused below
    if schema != SCHEMA:
        raise StoreError(f"{path} has schema {schema}; this version reads schema {SCHEMA}")
    if not isinstance(row, Run):
        raise StoreError(f"{path} is no results file: its first line is no run" + (f" ({problem})" if problem else ""))
