"""Numbers, counts and names as words, for tables and sentences."""

FORMULA = frozenset("=+-@|'\uff1d\uff0b\uff0d\uff20\uff5c")
"""What makes a spreadsheet run a text, in half and full width, and what marks it as a text (OWASP, "CSV injection")."""

BREAKS = ("\t", "\r", "\n")


def spreadsheet_safe(text: str) -> str:
    """With a quote before what a spreadsheet would run as a formula, also behind blanks and what it does not show."""
    first = next((character for character in text if character.isprintable() and not character.isspace()), "")
    return "'" + text if first in FORMULA or text.startswith(BREAKS) else text


def printable(text: str) -> str:
    """With control characters escaped, so that a name cannot steer a terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Three digits with a unit: ``12.3 ms``."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6), ("ns", 1e-9)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
