"""16-bit matrices in the layout of tensor cores: tiles, divided into the fragments that the lanes of a warp hold.

The instruction ``mma.m16n8k16`` multiplies a 16 x 16 tile of A by a 16 x 8 tile of B and adds to float32 sums.  Here A holds
weights, and B the operand of a step with one column per batch row.  The layout is from PTX ISA 8.x, "Matrix Fragments for
mma.m16n8k16 with floating point type"; a 32-bit word holds two elements, the first in its lower half.
"""

from typing import NamedTuple

import numpy as np

from rnnbench.networks.bfloat16 import bfloat16

ROWS, COLUMNS, DEPTH = 16, 8, 16
"""Rows of a tile of A, columns of a tile of B, and the summed length of both."""

QUAD, PAIR = 4, 2
"""Number of words per lane for its part of a tile of A, and of B."""

LANES = 32


class Half(NamedTuple):
    """A 16-bit dtype, in NumPy and by its name in PTX."""

    numpy: np.dtype
    ptx: str


HALVES = {"bfloat16": Half(bfloat16(), "bf16"), "float16": Half(np.dtype(np.float16), "f16")}
"""Dtypes that tensor cores multiply with float32 sums, by name."""


def tiles(count: int, size: int) -> int:
    """Number of tiles of ``size`` that hold ``count`` rows or columns."""
    return -(-count // size)


def operand_words(columns: int, depth: int) -> int:
    """Number of words of an operand with ``columns`` columns, ``depth`` tiles deep."""
    return tiles(columns, COLUMNS) * depth * LANES * PAIR


def operand_index(k: int, column: int, depth: int) -> int:
    """Index of the 16-bit element (k, column) of an operand ``depth`` tiles deep; also used as a device function."""
    tile = column // COLUMNS * depth + k // DEPTH
    lane = column % COLUMNS * 4 + k % 8 // 2
    return ((tile * LANES + lane) * PAIR + k % DEPTH // 8) * 2 + k % 2


def as_fragments(weights: np.ndarray, high: int, warps: int, deep: int, dtype: str) -> np.ndarray:
    """Lay out weights (blocks, rows, length) as threads read them: flat, by block, fragment, thread and word.

    The fragments of a warp are those of its ``deep`` tiles of columns, each with ``high`` tiles of rows.  Words have dtype
    float32, which kernels take, but hold 16-bit pairs.
    """
    blocks, rows, length = weights.shape
    padded = np.zeros((blocks, high * ROWS, warps * deep * DEPTH), HALVES[dtype].numpy)
    padded[:, :rows, :length] = weights
    # row: tile, word, lane; column: warp, tile, word, lane, half
    parts = padded.reshape(blocks, high, 2, 8, warps, deep, 2, 4, 2).transpose(0, 5, 1, 4, 3, 7, 6, 2, 8)
    return np.ascontiguousarray(parts).reshape(-1).view(np.float32)
