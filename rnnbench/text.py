"""Formatting of numbers, counts and names."""

from collections.abc import Mapping
from typing import Any

FORMULA_STARTS = frozenset("=+-@|'\uff1d\uff0b\uff0d\uff20\uff5c")
"""Characters that start a formula in a spreadsheet, in half and full width, and the text mark (OWASP, "CSV injection")."""

BREAKS = ("\t", "\r", "\n")


def spreadsheet_safe(text: str) -> str:
    """Quote text that a spreadsheet would run as a formula, even after blanks or invisible characters."""
    first = next((character for character in text if character.isprintable() and not character.isspace()), "")
    return "'" + text if first in FORMULA_STARTS or text.startswith(BREAKS) else text


def printable(text: str) -> str:
    """Escape control characters, so that a name cannot control a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format a duration with three digits and a unit: ``12.3 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def flattened(facts: Mapping[str, Any], separator: str = ".") -> dict[str, Any]:
    """The values of nested mappings, by their names joined from outside to inside."""
    found: dict[str, Any] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping):
            found |= {f"{name}{separator}{key}": part for key, part in flattened(value, separator).items()}
        else:
            found[name] = value
    return found
