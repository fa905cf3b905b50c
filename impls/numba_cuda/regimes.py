"""Regimes: which kernels run a network, by cell, hidden size, dtype and the limits of the device.

| regime             | float32, bfloat16 and float16 networks whose weights fit in    | one launch runs all steps on        |
| ------------------ | -------------------------------------------------------------- | ----------------------------------- |
| small              | the registers of one block                                     | one block                           |
| cluster-persistent | registers and shared memory of a cluster                       | a cluster of few blocks             |
| grid-persistent    | registers and shared memory of all multiprocessors             | all blocks, through global memory   |
| tensor-core grid   | the same in 16 bits: twice as many (not float32)               | all blocks; weights and h in 16 bit |
| per step           | none of these, and float64                                     | a few launches per time step        |

A thread keeps at most ``Limits.resident`` weights in registers, an eighth less for cells with two products per step; on tensor
cores it uses a quarter fewer registers, with two weights each.  Weights beyond that are in shared memory.  The batch is divided
into independent parts, one per cluster, or one after another on a grid, so every regime takes any batch size.  Where this needs
many passes over time, or more clusters than fit at once, a few launches per step may be faster; ``choosing`` decides.
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
"""Exchange of operands within clusters: ``layout.BARRIER`` or, if every block has units in all products, ``layout.MESSAGES``,
which is not yet tried on a GPU."""

BYTES = 4


class Limits(NamedTuple):
    """Limits of a device.

    ``threads``: of a block.  ``resident``: weights per thread in registers.  ``shared``: bytes of shared memory per block.
    ``cluster``: blocks per cluster (0 without clusters).  ``multiprocessors``: those that can wait for each other (0 on old
    devices).  ``tensor_cores``: whether they multiply bfloat16 and float16.  ``at_once``: number of clusters of 1, 2, 4, ...
    blocks that fit at once, one block per multiprocessor, as reported by the device; other sizes are estimated from the number
    of multiprocessors.  ``cublas``: whether separate products use cuBLAS.
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
        """Number of clusters of ``blocks`` blocks that fit at once."""
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
"""The H100 and H200.  128 of the 255 registers of a thread hold weights.  Clusters of 16 blocks need an attribute, and lie
within one of 8 groups of 16 or 18 multiprocessors."""

SIMULATED = Limits(threads=32, resident=4, shared=6144, cluster=2, multiprocessors=3, tensor_cores=True, at_once=(3, 1))
"""The simulator's device, small enough for networks of a few units to cover every regime."""


class Regime(NamedTuple):
    """A regime with the shapes of its teams for one batch row; the shapes are None for the regime per step."""

    name: str
    forward: Shape | None
    backward: Shape | None


def computed_spec(spec: Spec) -> Spec:
    """The spec in the computed dtype: float32 for bfloat16 and float16, else unchanged."""
    return replace(spec, dtype="float32") if spec.dtype in NARROW else spec


def by_size(spec: Spec, limits: Limits) -> Regime:
    """The first regime of the table that holds a network's layers."""
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
    """The smallest cluster that keeps all weights in registers, else the largest one if shared memory holds the rest."""
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
    """A grid with one block per multiprocessor; None where it cannot hold the weights."""
    if not limits.multiprocessors:
        return None
    most = max(product.units for product in products)
    blocks = -(-most // -(-most // limits.multiprocessors))
    team = cluster_of(products, blocks, limits)
    shape = team._replace(grid=True) if team else None
    return shape if shape and places(products, shape)[1] * BYTES <= limits.shared else None


def tensor_grid_of(products: tuple[Product, ...], dtype: str, limits: Limits) -> Shape | None:
    """A grid that multiplies on tensor cores; None where it cannot hold the weights in 16 bits.

    It has as many blocks as multiprocessors, or fewer if that adds no tiles and takes no lanes from a unit.
    """
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
    # the compiler loads operands of many multiplications in advance, which takes registers with one product or two
    shape = Shape(-(-most // units), units, lanes, 1, limits.resident * 3 // 4, grid=True, cores=cores)
    return shape if places(products, shape)[1] * BYTES <= limits.shared else None


def with_rows(shape: Shape, products: tuple[Product, ...], batch: int, limits: Limits) -> Shape:
    """The shape with enough batch rows per team for all teams to run at once: a power of two, within lanes and memory."""
    at_once = 1 if shape.grid else limits.clusters(shape.blocks)
    while shape.rows * at_once < batch and 2 * shape.rows <= shape.lanes:
        larger = shape._replace(rows=2 * shape.rows)
        if places(products, larger)[1] * BYTES > limits.shared:
            break
        shape = larger
    return shape


def cluster_of(products: tuple[Product, ...], blocks: int, limits: Limits) -> Shape | None:
    """A cluster of ``blocks`` blocks, with as many lanes per unit as threads allow, but no idle ones.

    None where a block would have too many units, or none.
    """
    most = max(product.units for product in products)
    units = -(-most // blocks)
    lanes = 1
    longest = max(product.length for product in products)
    while 2 * lanes * units <= limits.threads and lanes < WARP and 4 * lanes < longest:
        lanes *= 2
    # a second product needs registers for addresses, sums and an operand
    resident = limits.resident if len(products) == 1 else limits.resident * 7 // 8
    # messages order the blocks only if every block sends some in every exchange
    all_send = (blocks - 1) * units < min(product.units for product in products)
    shape = Shape(blocks, units, lanes, 1, resident, exchange=EXCHANGE.get() if all_send else BARRIER)
    return shape if shape.threads <= limits.threads and (blocks - 1) * units < most else None
