"""The rows of a share at each step: all of them, or those whose sequences are that long.

For sequences of different lengths the rows of a share are sorted, longest first, and lie one step after the other without
gaps, so nothing is computed for a sequence that has ended.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.impls.numba_cpu.workers import Share

Slots = tuple[Any, Any]
"""An index of states (slots, B, ...): the slot of each row, or one of all rows, and the rows."""


class ShareRows(NamedTuple):
    """The rows of one share.

    ``starts`` (T+1,): the number of its rows before each step.  ``places`` (T,): the place of each step's first row in y, dy
    and dx.  ``batch``: its rows of the batch, in its order.  ``index``: the rows of x (T*B) at its steps in order, or None for
    sequences of one length, whose y, dy and dx are those of the whole batch.
    ``initial``, ``final``: the slots of the states in the forward loop.  ``dinitial``, ``dfinal``: those of their cotangents in
    BPTT, which alternates between two slots.
    """

    starts: np.ndarray
    places: np.ndarray
    batch: Any
    index: np.ndarray | None
    initial: Slots
    final: Slots
    dinitial: Slots
    dfinal: Slots


def rows_of_one_length(shares: Sequence[Share], steps: int, batch: int, slots: int, reverse: bool) -> list[ShareRows]:
    """The rows of shares whose sequences all have T steps; ``slots`` is the number of slots of states in the forward loop."""
    times, everything = np.arange(steps + 1), slice(None)
    found = []
    for share in shares:
        starts, places = times * (share.rows.stop - share.rows.start), times[:-1] * batch + share.rows.start
        found.append(ShareRows(starts, places, share.rows, None, *_slots(steps, steps, everything, slots, reverse)))
    return found


def rows_of_lengths(shares: Sequence[Share], lengths: np.ndarray, slots: int, reverse: bool) -> list[ShareRows]:
    """The rows of shares whose sequences have these lengths; shares of rows get long and short sequences alike."""
    batch, steps = len(lengths), max(1, int(lengths.max()))
    times, found = np.arange(steps), []
    for rows in _dealt(shares, np.argsort(-lengths, kind="stable")):
        own = lengths[rows]
        active = np.searchsorted(-own, -times, side="left")  # the number of rows longer than t
        starts = np.concatenate([[0], np.cumsum(active)])
        index = np.repeat(times, active) * batch + rows[np.arange(starts[-1]) - np.repeat(starts[:-1], active)]
        slots_of_rows = _slots(steps, own, np.arange(len(rows)), slots, reverse)
        found.append(ShareRows(starts, starts[:-1], rows, index, *slots_of_rows))
    return found


def _dealt(shares: Sequence[Share], in_order: np.ndarray) -> list[np.ndarray]:
    """Deal the rows of a batch to shares of rows, of as many rows as each has; shares of units get all of them."""
    if len(shares) == 1 or shares[0].rows == shares[1].rows:
        return [in_order] * len(shares)
    each = len(in_order) // len(shares)
    dealt, rest = in_order[: each * len(shares)].reshape(each, -1), iter(in_order[each * len(shares) :])
    return [
        np.append(dealt[:, k], next(rest)) if share.rows.stop - share.rows.start > each else dealt[:, k]
        for k, share in enumerate(shares)
    ]


def _slots(steps: int, lengths: Any, rows: Any, slots: int, reverse: bool) -> tuple[Slots, Slots, Slots, Slots]:
    """Slots of the initial and final states, and of their cotangents."""
    begin, end = (lengths, 0) if reverse else (0, lengths)
    steps_back = [position if reverse else steps - position for position in (begin, end)]
    first, last = ((step % 2, rows) for step in steps_back)
    return (begin % slots, rows), (end % slots, rows), first, last


def new_output(
    shape: tuple[int, int, int], dtype: np.dtype, rows: Sequence[ShareRows]
) -> tuple[np.ndarray, Sequence[np.ndarray]]:
    """A new array (T, B, N) for shares to fill, and the part (rows, N) of it that each fills; ``joined`` puts them together."""
    if rows[0].index is None:
        whole = np.empty(shape, dtype)
        return whole, (whole.reshape(-1, shape[2]),) * len(rows)
    return np.zeros(shape, dtype), [np.empty((row.starts[-1], shape[2]), dtype) for row in rows]


def joined(whole: np.ndarray, parts: Sequence[np.ndarray], rows: Sequence[ShareRows]) -> np.ndarray:
    """The array of ``new_output``, with the parts of sequences of different lengths in it; others are views of it."""
    if rows[0].index is not None:
        flat = whole.reshape(-1, whole.shape[2])
        for row, part in zip(rows, parts, strict=True):
            flat[row.index] = part
    return whole


def share_of(array: np.ndarray, rows: ShareRows, copy: np.ndarray | None) -> np.ndarray:
    """The rows of (T, B, N) at a share's steps as (rows, N), in ``copy`` if given."""
    flat = array.reshape(-1, array.shape[2])
    if rows.index is not None:
        return flat[rows.index]
    if copy is None:
        return flat
    copy[:] = array[:, rows.batch]
    return copy.reshape(-1, copy.shape[2])
