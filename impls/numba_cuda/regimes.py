"""Which kernels run a network: the table of regimes, by cell, hidden size, dtype and the device's limits.

| regime             | which networks of float32, bfloat16 or float16                | how                                     |
| ------------------ | ------------------------------------------------------------- | --------------------------------------- |
| small              | whose weights the registers of one block hold                 | one block runs all steps of its rows    |
| cluster-persistent | whose weights a cluster holds, in registers and shared memory | so does a cluster, of few blocks        |
| grid-persistent    | whose weights all multiprocessors hold                        | all blocks do, through global memory    |
| tensor-core grid   | the same, of the two with 16 bits: twice as many weights      | so does a grid, weights and h in 16 bit |
| per step           | all others, and float64                                       | a few launches per time step            |

A thread keeps at most ``Limits.resident`` weights in registers, an eighth less for cells with two products a step; on
tensor cores a quarter less of registers, with two weights each.  Those that find none in the largest team lie in shared
memory.  The batch is cut into parts that know nothing of each other, one to a cluster, or one after the other where the grid
works on one: any batch size fits in every regime.  Where it takes many passes over time, or more clusters than run at once,
a few launches per step may be faster: ``choosing`` decides.
"""

from contextvars import ContextVar
from dataclasses import replace
from typing import NamedTuple

from rnnbench.impls.numba_cuda.fragments import HALVES, ROWS, tiles
from rnnbench.impls.numba_cuda.layout import BARRIER, WARP, Cores, Product, Shape, backward_products, forward_products, places
from rnnbench.networks.spec import NARROW, Spec

SMALL, CLUSTER, GRID, PER_STEP = "small", "cluster-persistent", "grid-persistent", "per step"
TENSOR_GRID = "tensor-core grid"

EXCHANGE: ContextVar[str] = ContextVar("exchange", default=BARRIER)
"""How the blocks of clusters exchange operands: ``layout.BARRIER``, or, where each has units in all products,
``layout.MESSAGES``, which no GPU has proved yet."""

BYTES = 4


class Limits(NamedTuple):
    """What a device offers: threads of a block and weights that each keeps in registers, bytes of shared memory of a
    block, blocks of a cluster (0: it knows no clusters), multiprocessors that can wait for each other (0: it is too old),
    and whether tensor cores multiply bfloat16 and float16.

    ``at_once``: so many clusters of 1, 2, 4, ... blocks run at once, one block to a multiprocessor, as the device answers;
    of other sizes, and where it was not asked, as many as there are multiprocessors for.  ``cublas``: products of their own
    launches are cuBLAS's.
    """

    threads: int
    resident: int
    shared: int
    cluster: int
    multiprocessors: int
    tensor_cores: bool
    at_once: tuple[int, ...] = ()
    cublas: bool = True

    def clusters(self, blocks: int) -> int:
        """How many clusters of so many blocks run at once."""
        asked = blocks.bit_length() - 1
        if blocks == 1 << asked and asked < len(self.at_once):
            return max(1, self.at_once[asked])
        return max(1, self.multiprocessors // blocks)


HOPPER = Limits(
    threads=256,
    resident=128,
    shared=227 * 1024,
    cluster=16,
    multiprocessors=132,
    tensor_cores=True,
    at_once=(132, 66, 32, 16, 8),
)
"""The H100 and H200.  128 of the 255 registers of a thread hold weights; a cluster of 16 blocks has to be asked for, and lies
within one of 8 groups of 16 or 18 multiprocessors."""

SIMULATED = Limits(threads=32, resident=4, shared=6144, cluster=2, multiprocessors=3, tensor_cores=True, at_once=(3, 1))
"""So small that networks of a few units come into every regime."""


class Regime(NamedTuple):
    """``forward`` and ``backward`` are the clusters' shapes with one row of the batch each, None where steps are launched."""

    name: str
    forward: Shape | None
    backward: Shape | None


def computed_spec(spec: Spec) -> Spec:
    """The network that kernels compute: bfloat16 and float16 in float32, everything else as it is."""
    return replace(spec, dtype="float32") if spec.dtype in NARROW else spec


def by_size(spec: Spec, limits: Limits) -> Regime:
    """The first regime of the table that a network's layers fit in."""
    if computed_spec(spec).dtype == "float32":
        forward, backward = (fitting(products, limits) for products in (forward_products(spec), backward_products(spec)))
        if forward and backward:
            return Regime(SMALL if forward.blocks == backward.blocks == 1 else CLUSTER, forward, backward)
        if spec.dtype in HALVES:
            forward, backward = (
                tensor_grid_of(products, spec.dtype, limits) for products in (forward_products(spec), backward_products(spec))
            )
            if forward and backward:
                return Regime(TENSOR_GRID, forward, backward)
        forward, backward = (grid_of(products, limits) for products in (forward_products(spec), backward_products(spec)))
        if forward and backward:
            return Regime(GRID, forward, backward)
    return Regime(PER_STEP, None, None)


def fitting(products: tuple[Product, ...], limits: Limits) -> Shape | None:
    """The fewest blocks that keep all weights in registers, else as many as there can be, if shared memory takes the rest."""
    largest = None
    blocks = 1
    while blocks <= limits.cluster:
        shape = cluster_of(products, blocks, limits)
        if shape:
            largest = shape
            found, floats = places(products, shape)
            if floats * BYTES <= limits.shared and all(place.kept == place.whole for place in found):
                return shape
        blocks *= 2
    return largest if largest and places(products, largest)[1] * BYTES <= limits.shared else None


def grid_of(products: tuple[Product, ...], limits: Limits) -> Shape | None:
    """One block to a multiprocessor, if all of them hold the weights; None if not."""
    if not limits.multiprocessors:
        return None
    most = max(product.units for product in products)
    blocks = -(-most // -(-most // limits.multiprocessors))
    team = cluster_of(products, blocks, limits)
    shape = team._replace(grid=True) if team else None
    return shape if shape and places(products, shape)[1] * BYTES <= limits.shared else None


def tensor_grid_of(products: tuple[Product, ...], dtype: str, limits: Limits) -> Shape | None:
    """As many blocks as there are multiprocessors, or as few as have no more tiles and no fewer lanes to a unit; None if they
    do not hold the weights in 16 bit."""
    if not limits.multiprocessors or not limits.tensor_cores:
        return None
    most = max(product.units for product in products)
    fewest = -(-most // limits.multiprocessors)
    if fewest > limits.threads:
        return None
    lanes = 1
    while 2 * lanes * fewest <= limits.threads and lanes < WARP:
        lanes *= 2
    in_tiles = min(tiles(product.gates * fewest, ROWS) * ROWS // product.gates for product in products)
    units = min(most, in_tiles, limits.threads // lanes)
    cores = Cores(limits.threads // WARP, dtype)
    # the compiler reads the operands of many multiplications ahead: that takes registers, with one product or two
    shape = Shape(-(-most // units), units, lanes, 1, limits.resident * 3 // 4, grid=True, cores=cores)
    return shape if places(products, shape)[1] * BYTES <= limits.shared else None


def with_rows(shape: Shape, products: tuple[Product, ...], batch: int, limits: Limits) -> Shape:
    """As many rows of the batch to a team as make all teams run at once, a power of two, as lanes and memory allow."""
    at_once = 1 if shape.grid else limits.clusters(shape.blocks)
    while shape.rows * at_once < batch and 2 * shape.rows <= shape.lanes:
        larger = shape._replace(rows=2 * shape.rows)
        if places(products, larger)[1] * BYTES > limits.shared:
            break
        shape = larger
    return shape


def cluster_of(products: tuple[Product, ...], blocks: int, limits: Limits) -> Shape | None:
    """A unit gets as many lanes as there are, but none that would have nothing to multiply; None where a block would have
    too many units, or none."""
    most = max(product.units for product in products)
    units = -(-most // blocks)
    lanes = 1
    longest = max(product.length for product in products)
    while 2 * lanes * units <= limits.threads and lanes < WARP and 4 * lanes < longest:
        lanes *= 2
    # a second product takes registers of its own: addresses, sums, an operand
    resident = limits.resident if len(products) == 1 else limits.resident * 7 // 8
    # messages order the blocks only if each of them sends some in every exchange
    heard = (blocks - 1) * units < min(product.units for product in products)
    shape = Shape(blocks, units, lanes, 1, resident, exchange=EXCHANGE.get() if heard else BARRIER)
    return shape if shape.threads <= limits.threads and (blocks - 1) * units < most else None
