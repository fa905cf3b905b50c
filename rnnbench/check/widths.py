"""Sizes around the usual widths of vectors, tiles and blocks, in few problems that each combine several."""

from typing import NamedTuple

WIDTHS = (4, 8, 16, 32, 64, 128, 256)
"""Values that a register, a tile, a block of a loop or of threads usually holds."""

EDGES = tuple(width + by for width in WIDTHS for by in (-1, 0, 1))
"""Just below, at and just beyond each."""


class Edge(NamedTuple):
    """Sizes of one problem; ``O`` is that of a network with an output of its own."""

    T: int
    B: int
    I: int  # noqa: E741  # the field's name for the input size
    H: int
    O: int  # noqa: E741  # the field's name for the output size


def at_every_edge() -> list[Edge]:
    """Every size of EDGES once as T, once as B, once as I, once as H and once as O.

    A long sequence has few hidden units, so that no problem is large; the strides, prime to the number of sizes, are those
    with the least work.
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
    """One element beyond the three largest widths, once as B, as I and as H, in sequences of a few steps."""
    few, many, most = (width + 1 for width in WIDTHS[-3:])
    return [Edge(3, few, many, most, few), Edge(4, many, most, few, most), Edge(5, most, few, many, many)]
