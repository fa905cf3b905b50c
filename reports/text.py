"""Text helpers of the reports: numbers, counts and lists in sentences."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from rnnbench.text import count, duration, printable

__all__ = ["Answer", "clipped", "count", "cut", "duration", "factor", "listed", "percent", "printable", "share", "times"]

MAX_WORD_LENGTH = 60
MAX_MESSAGE_LENGTH = 600


class Answer(NamedTuple):
    """A claim in one sentence, sentences with its details, and its topic."""

    text: str
    details: list[str]
    topic: str = ""


def clipped(text: str) -> str:
    """Text with very long words shortened; the tables have them in full."""
    return re.sub(rf"\S{{{MAX_WORD_LENGTH + 1},}}", lambda match: match[0][:MAX_WORD_LENGTH] + "…", text)


def cut(message: str) -> str:
    """A message, shortened where it is too long for a page."""
    return message if len(message) <= MAX_MESSAGE_LENGTH else f"{message[:MAX_MESSAGE_LENGTH]}… ({len(message)} characters)"


def share(number: int, total: int) -> str:
    if total == 1:
        return "the only case"
    return f"all {total} cases" if number == total else f"{number} of {total} cases"


def factor(ratio: float) -> str:
    return f"{times(ratio)}×"  # noqa: RUF001  # the multiplication sign


def times(ratio: float) -> str:
    """A ratio with two significant digits, as a number of times."""
    return f"{ratio:.2g}" if ratio < 9.95 else f"{ratio:.0f}"


def percent(part: float) -> str:
    return f"{100 * part:.2g}%" if part < 0.0995 else f"{part:.0%}"


def listed(names: Iterable[str]) -> str:
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
