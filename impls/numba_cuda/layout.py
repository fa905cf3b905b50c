"""Distribution of the recurrent products of a layer among the threads of a team: which thread holds which weights, and where
operands are stored.

A cluster of blocks holds the weights of a layer and runs ``rows`` sequences of the batch through all time steps.  A group of
``lanes`` adjacent threads computes one unit; each thread holds a part of the unit's weights, for all gates.  Every block stores
all operands in its shared memory, and produces those of its own units.
"""

from typing import NamedTuple

import numpy as np

from rnnbench.impls.numba_cuda.fragments import COLUMNS, DEPTH, QUAD, ROWS, as_fragments, operand_words, tiles
from rnnbench.networks.spec import Spec

WARP = 32

MAIL = 32
"""Offset of the mail in elements; the barrier's counter before it has a cache line of its own."""

BARRIER, MESSAGES = "barrier", "messages"
"""Exchange of operands within a cluster: stores before a cluster barrier, or messages counted by an mbarrier."""

MBARRIERS = 4
"""Number of float32 at the start of shared memory that hold the two mbarriers of a block."""


class Cores(NamedTuple):
    """Use of a block's tensor cores: number of warps, and the 16-bit dtype of the operands."""

    warps: int
    dtype: str


class Shape(NamedTuple):
    """A team: ``blocks`` blocks of ``units`` units, with ``lanes`` threads per unit, for ``rows`` <= lanes batch rows.

    ``resident``: maximum number of registers per thread that hold weights; the other weights are in shared memory.
    ``grid``: the team occupies the whole device, and its blocks exchange through global memory; otherwise it is a cluster.
    ``cores``: tensor cores multiply for all units of a block, and the lanes of a unit do the rest; only in a grid.
    ``exchange``: how the blocks of a cluster exchange operands.
    """

    blocks: int
    units: int
    lanes: int
    rows: int
    resident: int
    grid: bool = False
    cores: Cores | None = None
    exchange: str = BARRIER

    @property
    def sends_messages(self) -> bool:
        return self.exchange == MESSAGES and self.blocks > 1 and not self.grid

    @property
    def threads(self) -> int:
        """Threads per block, rounded up to whole warps; some may be idle."""
        return WARP * (self.cores.warps if self.cores else -(-self.units * self.lanes // WARP))


class Product(NamedTuple):
    """A product of ``gates`` sums for each of ``units`` units, over ``length`` elements of the operand."""

    length: int
    units: int
    gates: int


class Place(NamedTuple):
    """Placement of one product on a team.

    A lane multiplies ``quads`` quads of four elements per gate, of which the first ``resident`` are in registers.
    ``operand`` and ``weights`` are offsets in shared memory, in elements.  ``mail`` is the offset of the buffers through which
    the blocks of a grid exchange the operand.
    """

    product: Product
    quads: int
    resident: int
    padded: int
    operand: int
    weights: int
    mail: int

    @property
    def whole(self) -> int:
        """Number of quads of weights per thread."""
        return self.quads * self.product.gates

    @property
    def kept(self) -> int:
        """Number of them kept in registers."""
        return self.resident * self.product.gates

    def posted(self, rows: int) -> int:
        """Number of float32 of mail for the operand of ``rows`` batch rows."""
        return rows * self.padded


class Tiles(NamedTuple):
    """Placement of one product on tensor cores, in 16 bits: words of shared memory and of mail hold two elements each.

    The weights of a block (all gates of its units) are ``high`` tiles of 16 rows; each of its ``warps`` multiplies ``deep``
    tiles of 16 columns.  The first ``resident`` of a warp's high * deep fragments are in registers, the others in shared
    memory from offset ``weights`` on.  Shared memory starts with the sums of the warps.  ``mail`` is the offset of the
    operand's buffers.
    """

    product: Product
    high: int
    warps: int
    deep: int
    resident: int
    weights: int
    mail: int

    @property
    def whole(self) -> int:
        """Number of fragments of weights per warp, each a quad of words per thread."""
        return self.high * self.deep

    @property
    def kept(self) -> int:
        """Number of them kept in registers."""
        return self.resident

    @property
    def apart(self) -> int:
        """Distance in float32 between the sums of two tiles of 8 batch rows, padded by a quarter of the 32 banks."""
        return self.high * ROWS * COLUMNS + COLUMNS

    def posted(self, rows: int) -> int:
        """Number of words of mail for the operand of ``rows`` batch rows."""
        return operand_words(rows, self.warps * self.deep)


def forward_products(spec: Spec) -> tuple[Product, ...]:
    """The recurrent product of a step, and the second one for cells that have two."""
    units, size = spec.hidden_size, spec.state_size
    first = Product(size, units, spec.kind.outer_gates)
    return (first, *_second(spec, Product(units, size, 1)))


def backward_products(spec: Spec) -> tuple[Product, ...]:
    """The products of BPTT, with transposed weights: each unit of the state sums over all gates of all units."""
    units, size = spec.hidden_size, spec.state_size
    first = Product(spec.kind.outer_gates * units, size, 1)
    return (first, *_second(spec, Product(size, units, 1)))


def _second(spec: Spec, product: Product) -> tuple[Product, ...]:
    return (product,) if spec.kind.inner_gates or spec.kind.feeds_back_output else ()


def places(products: tuple[Product, ...], shape: Shape) -> tuple[tuple[Place, ...] | tuple[Tiles, ...], int]:
    """The placement of each product, and the number of float32 of shared memory per block.

    The operand of the first product has two buffers, one to read while the other is written; that of the second has one.  In
    a grid the buffers are mail, and shared memory holds a copy of one; tensor cores read the mail directly.
    """
    if shape.cores:
        return _tiled(products, shape, shape.cores.warps)
    found, first, mail, left = [], MBARRIERS * shape.sends_messages, MAIL, shape.resident
    for number, product in enumerate(products):
        quads = -(-product.length // (4 * shape.lanes))
        padded = 4 * shape.lanes * quads
        resident = min(quads, left // (4 * product.gates))
        left -= 4 * product.gates * resident
        buffers = 1 if number else 2
        weights = first + (1 if shape.grid else buffers) * shape.rows * padded
        found.append(Place(product, quads, resident, padded, first, weights, mail))
        mail += buffers * shape.rows * padded
        first = weights + (quads - resident) * product.gates * shape.threads * 4
    return tuple(found), first


def _tiled(products: tuple[Product, ...], shape: Shape, warps: int) -> tuple[tuple[Tiles, ...], int]:
    found, mail, left = [], MAIL, shape.resident
    for number, product in enumerate(products):
        high, deep = tiles(product.gates * shape.units, ROWS), tiles(product.length, DEPTH * warps)
        resident = min(high * deep, left // QUAD)
        left -= QUAD * resident
        place = Tiles(product, high, warps, deep, resident, 0, mail)
        found.append(place)
        mail += (1 if number else 2) * place.posted(shape.rows)
    # the products of a step run one after another, and use the same memory for their sums
    first = max(place.apart for place in found) * warps * tiles(shape.rows, COLUMNS)
    for number, place in enumerate(found):
        found[number] = place._replace(weights=first)
        first += (place.whole - place.kept) * QUAD * shape.threads
    return tuple(found), first


def mail_size(products: tuple[Product, ...], shape: Shape) -> int:
    """Number of float32 of global memory for the exchange in a grid, including the barrier's counter."""
    last = places(products, shape)[0][-1]
    return last.mail + (1 if len(products) > 1 else 2) * last.posted(shape.rows) if shape.grid else 0


def pack(weights: np.ndarray, place: Place | Tiles, shape: Shape) -> np.ndarray:
    """Lay out weights (units, gates, length) as threads read them: flat, by block, quad, gate, thread and element.

    For tensor cores: by block, fragment, thread and word; row g * units + u of a block's weights is gate g of its unit u.
    """
    units, gates, length = weights.shape
    if isinstance(place, Tiles):
        assert shape.cores is not None
        padded = np.zeros((shape.blocks * shape.units, gates, length), weights.dtype)
        padded[:units] = weights
        rows = padded.reshape(shape.blocks, shape.units, gates, length).transpose(0, 2, 1, 3)
        rows = rows.reshape(shape.blocks, gates * shape.units, length)
        return as_fragments(rows, place.high, place.warps, place.deep, shape.cores.dtype)
    padded = np.zeros((shape.blocks * shape.units, gates, place.padded), weights.dtype)
    padded[:units, :, :length] = weights
    parts = padded.reshape(shape.blocks, shape.units, gates, place.quads, shape.lanes, 4).transpose(0, 3, 2, 1, 4, 5)
    packed = np.zeros((shape.blocks, place.quads, gates, shape.threads, 4), weights.dtype)
    packed[:, :, :, : shape.units * shape.lanes] = parts.reshape(*parts.shape[:3], shape.units * shape.lanes, 4)
    return packed.reshape(-1)
