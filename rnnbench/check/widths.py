"""Sizes around common widths of vectors, tiles and blocks, combined into few problems."""

from typing import NamedTuple

WIDTHS = (4, 8, 16, 32, 64, 128, 256)
"""Common widths, in elements, of a register, a tile, or a block of a loop or of threads."""

EDGES = tuple(width + offset for width in WIDTHS for offset in (-1, 0, 1))
"""Sizes just below, at and just above each width."""


class Edge(NamedTuple):
    """Sizes of one problem; ``O`` is the output size of jordan."""

    T: int
    B: int
    I: int  # noqa: E741  # the field's name for the input size
    H: int
    O: int  # noqa: E741  # the field's name for the output size


def at_every_edge() -> list[Edge]:
    """Return problems with each size of EDGES once as T, B, I, H and O.

    Long sequences get few hidden units, so that no problem is large.  The strides are coprime to the number of sizes, and
    chosen for the least total work.
    """
    count = len(EDGES)
    return [
        Edge(
            T=EDGES[place],
            B=EDGES[(19 * place + 10) % count],
            I=EDGES[(2 * place + 10) % count],
            H=EDGES[count - 1 - place],
            O=EDGES[(count + 5 - place) % count],
        )
        for place in range(count)
    ]


def wide() -> list[Edge]:
    """Return problems with one element more than the three largest widths, each once as B, I and H, and few steps."""
    few, many, most = (width + 1 for width in WIDTHS[-3:])
    return [Edge(3, few, many, most, few), Edge(4, many, most, few, most), Edge(5, most, few, many, many)]
