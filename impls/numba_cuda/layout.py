"""How the threads of a cluster share the recurrent products of one layer: who holds which weights, and where operands lie.

A cluster of blocks holds the weights of a layer and runs ``rows`` sequences of the batch through all time steps.  A group
of ``lanes`` neighbouring threads computes one unit: each of them holds a part of the unit's weights, for all its gates.
Operands lie in the shared memory of every block, each block brings those of its own units.
"""

from typing import NamedTuple

import numpy as np

from rnnbench.spec import Spec

WARP = 32


class Shape(NamedTuple):
    """A cluster: so many ``blocks`` of ``units`` units, ``lanes`` threads to a unit, for ``rows`` <= lanes rows of the batch.

    ``resident``: how many weights a thread keeps in registers at most; the others lie in shared memory.
    """

    blocks: int
    units: int
    lanes: int
    rows: int
    resident: int

    @property
    def threads(self) -> int:
        """Of a block: whole warps, so that some may have nothing to do."""
        return -(-self.units * self.lanes // WARP) * WARP


class Product(NamedTuple):
    """``gates`` sums for each of ``units`` units, each over ``length`` elements of the operand."""

    length: int
    units: int
    gates: int


class Place(NamedTuple):
    """One product on a cluster.  ``operand`` and ``weights`` are where its parts of shared memory begin, in elements.

    A lane multiplies ``quads`` times four elements per gate, of which the first ``resident`` quads are in registers.
    """

    product: Product
    quads: int
    resident: int
    padded: int
    operand: int
    weights: int


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


def places(products: tuple[Product, ...], shape: Shape) -> tuple[tuple[Place, ...], int]:
    """Where each product lies, and how many float32 of shared memory a block needs.

    The first product's operand has two buffers, one is read while the other is written; the second's has one.
    """
    found, first, left = [], 0, shape.resident
    for number, product in enumerate(products):
        quads = -(-product.length // (4 * shape.lanes))
        padded = 4 * shape.lanes * quads
        resident = min(quads, left // (4 * product.gates))
        left -= 4 * product.gates * resident
        weights = first + (1 if number else 2) * shape.rows * padded
        found.append(Place(product, quads, resident, padded, first, weights))
        first = weights + (quads - resident) * product.gates * shape.threads * 4
    return tuple(found), first


def pack(weights: np.ndarray, place: Place, shape: Shape) -> np.ndarray:
    """Weights (units, gates, length) as threads read them: flat, by block, quad, gate, thread and element of the quad."""
    units, gates, length = weights.shape
    padded = np.zeros((shape.blocks * shape.units, gates, place.padded), weights.dtype)
    padded[:units, :, :length] = weights
    parts = padded.reshape(shape.blocks, shape.units, gates, place.quads, shape.lanes, 4).transpose(0, 3, 2, 1, 4, 5)
    packed = np.zeros((shape.blocks, place.quads, gates, shape.threads, 4), weights.dtype)
    packed[:, :, :, : shape.units * shape.lanes] = parts.reshape(*parts.shape[:3], shape.units * shape.lanes, 4)
    return packed.reshape(-1)
