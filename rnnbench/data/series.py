"""Series of numbers over time, with gaps: the data sets, and users' CSV and Parquet files."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.data.positions import require_count
from rnnbench.data.sources import find, read_file, read_member
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.text import count

MISSING = frozenset(("", "nan", "na"))
"""Cells without a number, in lower case."""

INDEX_NAMES = frozenset(("", "date", "datetime", "day", "index", "month", "time", "timestamp", "week", "year"))
"""Names of a first column that tells when, also where it holds numbers; in lower case."""

_KNOWN: dict[str, tuple[tuple[str, ...], int]] = {
    "co2": (("co2",), 52),
    "co2-sample": (("co2",), 52),
    "sunspots": (("SUNACTIVITY",), 11),
    "weather": (("precipitation", "temp_max", "temp_min", "wind"), 365),
}
"""The columns and the season of each data set."""


@dataclass(frozen=True, eq=False)
class Series:
    """A series of N rows and C channels.

    ``values`` is float64 (N, C) with NaN for missing ones; ``names`` the C channels; ``index`` the N times, as strings or
    numbers; ``period`` the length of a season in rows, or None.
    """

    values: np.ndarray
    names: tuple[str, ...]
    index: tuple[str | float, ...]
    period: int | None = None

    def __post_init__(self) -> None:
        expected = (len(self.index), len(self.names))
        if self.values.shape != expected:
            raise ArgumentError(f"values have shape {self.values.shape}; expected (N, C) = {expected} as index and names have")
        if self.period is not None:
            require_count("period", self.period)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> int:
        """The number of rows in which a value is missing."""
        return int(np.isnan(self.values).any(axis=1).sum())


@dataclass(frozen=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]
    numbers: list[int]
    """Each row's number in the file; the header is row 1."""


def read_series(
    name_or_path: str | Path,
    path: str | Path | None = None,
    columns: Sequence[str] | None = None,
    period: int | None = None,
) -> Series:
    """Read a data set ("co2", "co2-sample", "sunspots", "weather"), or a CSV or Parquet file with a header.

    ``path``: where the data set's package lies as a wheel, see ``read_member``.
    ``columns``: the channels; without them, those of the data set, or every column of a file that holds a number.
    ``period``: the length of a season in rows; without it, that of the data set: 52 weeks, 11 years or 365 days.
    The first column is the index if it is no channel; it is no channel by default if it holds no number or is named "date",
    "time", "year" or the like.  Without an index, rows count from 0.  Empty cells and NaN are missing.  Rows of errors are
    those of the file, where the header is row 1.
    Raises ArgumentError for an unreadable file, a cell that is no finite number, a missing column, and fewer than two rows;
    MissingLibrary if the package is missing, or pandas and pyarrow for Parquet.
    """
    dataset = find(str(name_or_path), "series")
    if dataset is not None:
        known, season = _KNOWN[dataset.name]
        table = _read_csv(dataset.name, read_member(dataset, path))
        return _series(table, known if columns is None else columns, season if period is None else period)
    if path is not None:
        raise ArgumentError(f"path is {str(path)!r} for the file {str(name_or_path)!r}; expected none")
    content = read_file(name_or_path, "series")
    read = _read_parquet if Path(name_or_path).suffix.lower() in (".parquet", ".pq") else _read_csv
    return _series(read(Path(name_or_path).name, content), columns, period)


def _read_csv(name: str, content: bytes) -> _Table:
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    except csv.Error as error:
        raise ArgumentError(f"{name} is no CSV: {error}") from None
    if not lines:
        raise ArgumentError(f"{name} is empty; expected a header and at least 2 rows")
    header = tuple(cell.strip() for cell in lines[0])
    filled = [(number, row) for number, row in enumerate(lines[1:], 2) if row]
    for number, row in filled:
        if len(row) != len(header):
            raise ArgumentError(f"{name}, row {number}: {count(len(row), 'cell')}; expected {len(header)}, as in the header")
    return _Table(name, header, [row for _, row in filled], [number for number, _ in filled])


def _read_parquet(name: str, content: bytes) -> _Table:
    try:
        import pandas as pd
        import pyarrow  # noqa: F401  # pandas reads Parquet with it
    except ImportError:
        raise MissingLibrary(f"{name} needs pandas and pyarrow: pip install pandas pyarrow") from None
    try:
        frame = pd.read_parquet(io.BytesIO(content), engine="pyarrow")
    except (OSError, ValueError) as error:  # pyarrow's errors are among them
        raise ArgumentError(f"{name} is no Parquet file: {str(error).splitlines()[0]}") from None
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    cells = frame.astype(object).where(frame.notna(), None)
    rows = [tuple(row) for row in cells.itertuples(index=False, name=None)]
    return _Table(name, tuple(map(str, frame.columns)), rows, list(range(2, len(rows) + 2)))


def _series(table: _Table, columns: Sequence[str] | None, period: int | None) -> Series:
    if len(set(table.columns)) < len(table.columns):
        twice = next(name for name in table.columns if table.columns.count(name) > 1)
        raise ArgumentError(f"{table.name} has several columns {twice!r}; expected different names")
    if len(table.rows) < 2:
        raise ArgumentError(f"{table.name} has {count(len(table.rows), 'row')} of values; expected at least 2")
    names = _default_columns(table) if columns is None else _require_columns(table, columns)
    values = np.empty((len(table.rows), len(names)))
    for channel, name in enumerate(names):
        place = table.columns.index(name)
        for position, (number, row) in enumerate(zip(table.numbers, table.rows, strict=True)):
            values[position, channel] = _number(row[place], f"{table.name}, row {number}, column {name}")
        if np.isnan(values[:, channel]).all():
            raise ArgumentError(f"{table.name}, column {name}: every value is missing; expected at least one")
    return Series(values, names, _index(table, names), period)


def _require_columns(table: _Table, columns: Sequence[str]) -> tuple[str, ...]:
    names = (columns,) if isinstance(columns, str) else tuple(columns)
    if not names or len(set(names)) < len(names):
        raise ArgumentError(f"columns are {names}; expected at least one, all different")
    for name in names:
        if name not in table.columns:
            raise ArgumentError(f"{table.name} has no column {name!r}; expected one of {', '.join(table.columns)}")
    return names


def _default_columns(table: _Table) -> tuple[str, ...]:
    candidates = table.columns[table.columns[0].lower() in INDEX_NAMES :]
    names = tuple(name for name in candidates if any(_holds_number(row[table.columns.index(name)]) for row in table.rows))
    if not names:
        raise ArgumentError(f"{table.name} has no column of numbers; its columns are {', '.join(table.columns)}")
    return names


def _holds_number(cell: object) -> bool:
    try:
        return not math.isnan(_number(cell, ""))
    except ArgumentError:
        return False


def _number(cell: Any, place: str) -> float:
    if cell is None or (isinstance(cell, str) and cell.strip().lower() in MISSING):
        return math.nan
    try:
        if isinstance(cell, str) and "_" in cell:
            raise ValueError  # float would read 1_000
        number = float(cell)
    except (TypeError, ValueError):
        raise ArgumentError(f"{place}: {str(cell)!r} is no number") from None
    if math.isinf(number):
        raise ArgumentError(f"{place}: {str(cell)!r} is not finite; expected a number, or nothing where it is missing")
    return number


def _index(table: _Table, names: tuple[str, ...]) -> tuple[str | float, ...]:
    """The first column, as numbers if all its cells are; else the numbers of rows, from 0."""
    if table.columns[0] in names:
        return tuple(range(len(table.rows)))
    cells = [str(row[0]) for row in table.rows]
    for convert in (int, float):
        try:
            return tuple(convert(cell) for cell in cells)
        except ValueError:
            continue
    return tuple(cells)
