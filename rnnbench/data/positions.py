"""Parts of a sequence by position, and checks of counts."""

from collections.abc import Sequence
from itertools import pairwise

from rnnbench.errors import ArgumentError


def require_count(name: str, value: object, least: int = 1) -> int:
    """Return an integer that is at least ``least``; raises ArgumentError for anything else."""
    try:
        number = None if isinstance(value, bool) else value.__index__()  # type: ignore[attr-defined]  # NumPy's integers too
    except AttributeError:
        number = None
    if number is None or number < least:
        raise ArgumentError(f"{name} is {value!r}; expected an integer >= {least}")
    return number


def edges(count: int, parts: Sequence[float]) -> list[int]:
    """Where the parts of ``count`` elements begin and end, one number more than parts.

    Raises ArgumentError unless the parts are positive, sum to 1 and get at least one element each.
    """
    if not parts or any(part <= 0 for part in parts) or abs(sum(parts) - 1) > 1e-9:
        raise ArgumentError(f"parts are {tuple(parts)}; expected positive numbers that sum to 1")
    found = [round(count * sum(parts[:position])) for position in range(len(parts))] + [count]
    sizes = [end - start for start, end in pairwise(found)]
    if min(sizes) < 1:
        raise ArgumentError(f"parts {tuple(parts)} of {count} elements have sizes {sizes}; expected at least 1 each")
    return found
