"""Matrices in 16 bits as tensor cores take them: tiles, cut into the fragments that the lanes of a warp hold.

The instruction ``mma.m16n8k16`` of a warp multiplies a tile of 16 rows of A by one of 8 columns of B, 16 deep, and adds
to float32 sums.  Here A are weights and B is the operand of a step, a column for each row of the batch.  Who holds what is
from PTX ISA 8.x, "Matrix Fragments for mma.m16n8k16 with floating point type"; a word of 32 bits has two elements, the
first in its lower half.
"""

from typing import NamedTuple

import ml_dtypes
import numpy as np

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Of a tile."""

QUAD, PAIR = 4, 2
"""Words of a lane that hold its part of a tile of A, and of B."""

LANES = 32


class Half(NamedTuple):
    """A dtype of 16 bits, in NumPy and by its name in PTX."""

    numpy: np.dtype
    ptx: str


HALVES = {"bfloat16": Half(np.dtype(ml_dtypes.bfloat16), "bf16"), "float16": Half(np.dtype(np.float16), "f16")}
"""What tensor cores multiply with sums in float32, by the name of the dtype."""


def tiles(count: int, size: int) -> int:
    """How many tiles of a size hold ``count`` rows or columns."""
    return -(-count // size)


def operand_words(columns: int, depth: int) -> int:
    """How many words hold the tiles of an operand: those of so many columns, ``depth`` tiles deep."""
    return tiles(columns, COLUMNS) * depth * LANES * PAIR


def operand_index(k: int, column: int, depth: int) -> int:
    """Which element of 16 bits is (k, column) of an operand ``depth`` tiles deep; for device functions too."""
    tile = column // COLUMNS * depth + k // DEPTH
    lane = column % COLUMNS * 4 + k % 8 // 2
    return ((tile * LANES + lane) * PAIR + k % DEPTH // 8) * 2 + k % 2


def as_fragments(weights: np.ndarray, high: int, warps: int, deep: int, dtype: str) -> np.ndarray:
    """The weights (blocks, rows, length) of all blocks as threads read them: flat, by block, fragment, thread and word.

    A warp's fragments are those of its ``deep`` tiles of columns, of each its ``high`` tiles of rows.  The words are float32
    in name, which is what kernels take.
    """
    blocks, rows, length = weights.shape
    padded = np.zeros((blocks, high * ROWS, warps * deep * DEPTH), HALVES[dtype].numpy)
    padded[:, :rows, :length] = weights
    # row: tile, word, lane; column: warp, tile, word, lane, half
    parts = padded.reshape(blocks, high, 2, 8, warps, deep, 2, 4, 2).transpose(0, 5, 1, 4, 3, 7, 6, 2, 8)
    return np.ascontiguousarray(parts).reshape(-1).view(np.float32)
