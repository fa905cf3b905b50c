"""What a time step of both passes is expected to take, in microseconds: by it the regime of a batch is chosen.

Estimates, none of them measured on a GPU: each constant names where it is from.  They tell one wave from many, not one kernel
from a slightly better one.
"""

from rnnbench.impls.numba_cuda.fragments import COLUMNS, tiles
from rnnbench.impls.numba_cuda.layout import Place, Shape, Tiles, backward_products, forward_products, places
from rnnbench.impls.numba_cuda.regimes import CLUSTER, GRID, SMALL, TENSOR_GRID, Limits, Regime, with_rows
from rnnbench.networks.spec import Spec

MEETING = {SMALL: 0.4, CLUSTER: 0.9, GRID: 2.0, TENSOR_GRID: 2.0}
"""A step with nothing to multiply, most of it the barrier: published latencies of DSMEM, of cluster and of grid barriers."""

CYCLES = 1700.0
"""Of a multiprocessor in a microsecond: the H100's boost clock, a tenth less."""

MULTIPLIERS = 128
"""Products of float32 that a multiprocessor of the H100 makes in a cycle (its data sheet)."""

BUSY = 0.5
"""The part of a step in which multipliers are fed, between loads, shuffles and gates: about that of their instructions in the
loops' machine code."""

SHARED_BYTES = 128
"""That a multiprocessor reads of its shared memory in a cycle (CUDA's programming guide)."""

TILE_CYCLES = 32
"""Of a warp for one multiplication of fragments with its load of the operand."""

LAUNCH, HOST_LAUNCH = 2.5, 10.0
"""From one kernel to the next that waits for it, on the device; and what Python takes for a launch, which is measured with a
driver that does nothing."""

PRODUCTS = 20.0e6
"""Products of float32 by cuBLAS in a microsecond: six tenths of the H100's data sheet."""

CACHE_BYTES = 5.0e6
"""That the H100 reads of its second-level cache in a microsecond."""

OWN_PRODUCTS, OWN_LATENCY = 6.0e6, 0.03
"""Products of our own kernel in a microsecond, a third of cuBLAS's; and what a tile takes for one element of the operand that
it walks along, 512 cycles for 16 of them, with their loads."""


def persistent_step(spec: Spec, regime: Regime, batch: int, limits: Limits) -> float:
    """A step where the weights are resident: each wave of clusters, or pass of a grid, goes through all of time again."""
    total = 0.0
    for shape, products in ((regime.forward, forward_products(spec)), (regime.backward, backward_products(spec))):
        assert shape is not None
        filled = with_rows(shape, products, batch, limits)
        teams = -(-batch // filled.rows)
        waves = teams if filled.grid else -(-teams // limits.clusters(filled.blocks))
        meetings = MEETING[regime.name] * len(products)
        total += waves * (meetings + sum(_cycles(place, filled) for place in places(products, filled)[0]) / CYCLES)
    return total


def separate_step(spec: Spec, batch: int, limits: Limits) -> float:
    """A step of launches for each product and the cell: on the device, or what the host takes if that is longer."""
    launches, device = 0, 0.0
    for products in (forward_products(spec), backward_products(spec)):
        launches += 2 * len(products)
        for product in products:
            weights = product.length * product.units * product.gates
            if limits.cublas:
                device += max(batch * weights / PRODUCTS, 4 * weights / CACHE_BYTES)
            else:
                device += max(batch * weights / OWN_PRODUCTS, product.length * OWN_LATENCY)
    return max(launches * HOST_LAUNCH, launches * LAUNCH + device)


def _cycles(place: Place | Tiles, shape: Shape) -> float:
    """Of a block for one product of all its rows."""
    if isinstance(place, Place):
        multiplied = 4 * place.whole * shape.threads / (MULTIPLIERS * BUSY)
        loaded = 16 * (place.whole - place.kept) * shape.threads / SHARED_BYTES
        return shape.rows * (multiplied + loaded)
    assert shape.cores is not None
    return tiles(shape.rows, COLUMNS) * place.whole * TILE_CYCLES
