"""Calls from a table run the compiled function on each row, invert its flag, and stop at a failure.  Takes 1 s."""

from typing import NamedTuple

import numpy as np
from numba import njit

from rnnbench.jit.table_call import table_call, words


class Pair(NamedTuple):
    a: np.ndarray
    size: int


@njit
def add(pair, matrix, negative, total):
    """Add the matrix's sum and the pair to total[0], or subtract them."""
    if pair.size < 0:
        raise ValueError("negative")
    found = pair.a.sum() + pair.size + matrix[1, 2]
    total[0] += -found if negative else found


def arguments(size: int, total: np.ndarray, negative: bool = False) -> tuple:
    return Pair(np.arange(3.0), size), np.arange(6.0).reshape(2, 3), negative, total


def test_rows_are_called_in_turn_and_each_call_inverts_the_flag():
    total = np.zeros(1)
    rows = [arguments(1, total), arguments(10, total)]
    run, flag, _ = table_call(add, rows[0])
    table = np.array([words(row) for row in rows])
    assert run(table.ctypes.data, 2) == 0
    assert total[0] == (3 + 1 + 5) + (3 + 10 + 5)
    assert table[:, flag].tolist() == [1, 1]
    assert run(table.ctypes.data, 1) == 0
    assert total[0] == 3 + 10 + 5
    assert table[:, flag].tolist() == [0, 1]


def test_a_failed_call_ends_the_run_with_its_status():
    total = np.zeros(1)
    rows = [arguments(1, total), arguments(-1, total), arguments(1, total)]
    table = np.array([words(row) for row in rows])
    assert table_call(add, rows[0]).run(table.ctypes.data, 3) != 0
    assert total[0] == 3 + 1 + 5
