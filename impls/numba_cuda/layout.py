"""How the threads of a cluster share the recurrent products of one layer: who holds which weights, and where operands lie.

A cluster of blocks holds the weights of a layer and runs ``rows`` sequences of the batch through all time steps.  A group
of ``lanes`` neighbouring threads computes one unit: each of them holds a part of the unit's weights, for all its gates.
Operands lie in the shared memory of every block, each block brings those of its own units.
"""

from typing import NamedTuple

import numpy as np

from rnnbench.impls.numba_cuda.fragments import COLUMNS, DEPTH, QUAD, ROWS, as_fragments, operand_words, tiles
from rnnbench.networks.spec import Spec

WARP = 32

MAIL = 32
"""Where mail begins: the barrier's count has a cache line of its own."""


BARRIER, MESSAGES = "barrier", "messages"
"""How the blocks of a cluster exchange operands: stores before a cluster barrier, or messages that an mbarrier counts."""

MBARRIERS = 4
"""So many float32 of shared memory hold the two mbarriers of a block, at its beginning."""


class Cores(NamedTuple):
    """The tensor cores of a block: so many ``warps`` use them, and multiply operands of a ``dtype`` of 16 bits."""

    warps: int
    dtype: str


class Shape(NamedTuple):
    """A team: so many ``blocks`` of ``units`` units, ``lanes`` threads to a unit, for ``rows`` <= lanes rows of the batch.

    ``resident``: how many registers of a thread hold weights at most; the others lie in shared memory.  With ``grid`` the
    team is all there is on the device at a time, and blocks exchange through global memory; otherwise it is a cluster.
    With ``cores``, in a grid only, tensor cores multiply for all units of a block, and a unit's lanes do what comes after.
    ``exchange`` is for clusters of several blocks.
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
        """Of a block: whole warps, so that some may have nothing to do."""
        return WARP * (self.cores.warps if self.cores else -(-self.units * self.lanes // WARP))


class Product(NamedTuple):
    """``gates`` sums for each of ``units`` units, each over ``length`` elements of the operand."""

    length: int
    units: int
    gates: int


class Place(NamedTuple):
    """One product on a team.  ``operand`` and ``weights`` are where its parts of shared memory begin, in elements, and
    ``mail`` where the buffers begin through which the blocks of a grid exchange the operand.

    A lane multiplies ``quads`` times four elements per gate, of which the first ``resident`` quads are in registers.
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
        """How many quads of weights a thread multiplies."""
        return self.quads * self.product.gates

    @property
    def kept(self) -> int:
        """How many of them it has in registers."""
        return self.resident * self.product.gates

    def posted(self, rows: int) -> int:
        """How many float32 of mail the operand takes for some rows of the batch."""
        return rows * self.padded


class Tiles(NamedTuple):
    """One product on tensor cores, in 16 bits: words of shared memory and of mail hold two elements each.

    A block's weights, all gates of its units, are ``high`` tiles of 16 rows, and each of its ``warps`` multiplies ``deep``
    tiles of 16 columns.  The first ``resident`` of a warp's high * deep fragments are in registers, the others in shared
    memory from ``weights`` on.  Shared memory begins with the warps' sums, and ``mail`` is where the operand's buffers do.
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
        """How many fragments of weights a warp multiplies, of each a quad of words in a thread."""
        return self.high * self.deep

    @property
    def kept(self) -> int:
        """How many of them it has in registers."""
        return self.resident

    @property
    def apart(self) -> int:
        """From one tile of 8 rows of the batch to the next, how many float32 of sums; a quarter of the 32 banks is added."""
        return self.high * ROWS * COLUMNS + COLUMNS

    def posted(self, rows: int) -> int:
        """How many words of mail the operand takes for some rows of the batch."""
        return operand_words(rows, self.warps * self.deep)


def forward_products(spec: Spec) -> tuple[Product, ...]:
    """The recurrent product of a step, and the second one of those cells that have two."""
    units, size = spec.hidden_size, spec.state_size
    first = Product(size, units, spec.kind.outer_gates)
    return (first, *_second(spec, Product(units, size, 1)))


def backward_products(spec: Spec) -> tuple[Product, ...]:
    """The same with transposed weights: each unit of the state from all gates of all units."""
    units, size = spec.hidden_size, spec.state_size
    first = Product(spec.kind.outer_gates * units, size, 1)
    return (first, *_second(spec, Product(size, units, 1)))


def _second(spec: Spec, product: Product) -> tuple[Product, ...]:
    return (product,) if spec.kind.inner_gates or spec.kind.feeds_back_output else ()


def places(products: tuple[Product, ...], shape: Shape) -> tuple[tuple[Place, ...] | tuple[Tiles, ...], int]:
    """Where each product lies, and how many float32 of shared memory a block needs.

    The first product's operand has two buffers, one is read while the other is written; the second's has one.  In a grid
    the two are mail, and shared memory has a copy of one; tensor cores read them there.
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
    # the products of a step come one after the other, and leave their sums in the same place
    first = max(place.apart for place in found) * warps * tiles(shape.rows, COLUMNS)
    for number, place in enumerate(found):
        found[number] = place._replace(weights=first)
        first += (place.whole - place.kept) * QUAD * shape.threads
    return tuple(found), first


def mail_size(products: tuple[Product, ...], shape: Shape) -> int:
    """How many float32 of global memory the blocks of a grid exchange through, the barrier's count included."""
    last = places(products, shape)[0][-1]
    return last.mail + (1 if len(products) > 1 else 2) * last.posted(shape.rows) if shape.grid else 0


def pack(weights: np.ndarray, place: Place | Tiles, shape: Shape) -> np.ndarray:
    """Weights (units, gates, length) as threads read them: flat, by block, quad, gate, thread and element of the quad.

    For tensor cores by block, fragment, thread and word; row g * units + u of a block's weights is gate g of its unit u.
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
