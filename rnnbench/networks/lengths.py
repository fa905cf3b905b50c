"""Lengths of the sequences of a batch: integers (B,) from 0 to T, in any order, on the host."""

from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError


def checked_lengths(lengths: Any, steps: int, batch: int) -> np.ndarray:
    """Copy lengths into an int64 array (B,); raises ArgumentError unless they are integers from 0 to ``steps``.

    ``lengths``: a list, a NumPy array, or an array of another library that NumPy can read, which one on a device is not.
    """
    kind = type(lengths)
    try:
        array = np.asarray(lengths)
    except Exception as error:  # each library raises its own for an array on a device
        raise ArgumentError(
            f"lengths are a {kind.__module__}.{kind.__name__} that NumPy cannot read ({error}); expected integers on the host"
        ) from None
    if not np.issubdtype(array.dtype, np.integer):
        raise ArgumentError(f"lengths have dtype {array.dtype}; expected integers")
    if array.shape != (batch,):
        raise ArgumentError(f"lengths have shape {array.shape}; expected (B,) = ({batch},)")
    wrong = (array < 0) | (array > steps)
    if wrong.any():
        row = int(wrong.argmax())
        raise ArgumentError(f"lengths[{row}] is {array[row]}; expected an integer from 0 to T = {steps}")
    return array.astype(np.int64)
