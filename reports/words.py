"""The parts of sentences: numbers, counts and lists as words."""

import re
from collections.abc import Iterable
from typing import NamedTuple

LONGEST_WORD = 60


class Answer(NamedTuple):
    """A sentence, and the sentences that carry it out."""

    text: str
    details: list[str]


def clipped(text: str) -> str:
    """Without the tails of words that are too long for a sentence; the tables have them whole."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda match: match[0][:LONGEST_WORD] + "…", text)


def printable(text: str) -> str:
    """With control characters escaped, so that a name cannot steer a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def share(number: int, total: int) -> str:
    if total == 1:
        return "the only case"
    return f"all {total} cases" if number == total else f"{number} of {total} cases"


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def times(ratio: float) -> str:
    return f"{ratio:.2g}×" if ratio < 9.95 else f"{ratio:.0f}×"  # noqa: RUF001  # the multiplication sign


def percent(part: float) -> str:
    return f"{100 * part:.2g}%" if part < 0.0995 else f"{part:.0%}"


def duration(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def listed(names: Iterable[str]) -> str:
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
