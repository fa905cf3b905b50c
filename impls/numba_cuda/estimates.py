"""Estimated time of a time step (forward and backward) in microseconds, used to choose the regime of a batch.

No constant was measured on a GPU; each names its source.  The estimates distinguish one wave from many, not a kernel from a
slightly better one.
"""

from rnnbench.impls.numba_cuda.fragments import COLUMNS, tiles
from rnnbench.impls.numba_cuda.layout import Place, Shape, Tiles, backward_products, forward_products, places
from rnnbench.impls.numba_cuda.regimes import CLUSTER, GRID, SMALL, TENSOR_GRID, Limits, Regime, with_rows
from rnnbench.networks.spec import Spec

BARRIER_TIME = {SMALL: 0.4, CLUSTER: 0.9, GRID: 2.0, TENSOR_GRID: 2.0}
"""Microseconds of a step without products, mostly the barrier (published latencies of DSMEM, cluster and grid barriers)."""

CYCLES = 1700.0
"""Cycles of a multiprocessor per microsecond: the H100's boost clock less a tenth."""

MULTIPLIERS = 128
"""float32 products per multiprocessor and cycle (data sheet of the H100)."""

BUSY = 0.5
"""Fraction of a step in which the multipliers are busy: about their share of the instructions in the loops' machine code."""

SHARED_BYTES = 128
"""Bytes of shared memory that a multiprocessor reads per cycle (CUDA programming guide)."""

TILE_CYCLES = 32
"""Cycles of a warp for one multiplication of fragments, including the load of the operand."""

LAUNCH, HOST_LAUNCH = 2.5, 10.0
"""Microseconds between dependent kernels on the device, and of a launch in Python (measured with a driver without effect)."""

PRODUCTS = 20.0e6
"""float32 products of cuBLAS per microsecond: 60% of the H100's data sheet."""

CACHE_BYTES = 5.0e6
"""Bytes that the H100 reads from its L2 cache per microsecond."""

OWN_PRODUCTS, OWN_LATENCY = 6.0e6, 0.03
"""Products of our own kernel per microsecond (a third of cuBLAS), and microseconds that a tile takes per element along the
summed axis (512 cycles for 16 elements, including loads)."""


def persistent_step(spec: Spec, regime: Regime, batch: int, limits: Limits) -> float:
    """Time of a step with resident weights; each wave of clusters, or pass of a grid, runs through all time steps again."""
    total = 0.0
    for shape, products in ((regime.forward, forward_products(spec)), (regime.backward, backward_products(spec))):
        assert shape is not None
        filled = with_rows(shape, products, batch, limits)
        teams = -(-batch // filled.rows)
        waves = teams if filled.grid else -(-teams // limits.clusters(filled.blocks))
        exchanges = BARRIER_TIME[regime.name] * len(products)
        total += waves * (exchanges + sum(_cycles(place, filled) for place in places(products, filled)[0]) / CYCLES)
    return total


def separate_step(spec: Spec, batch: int, limits: Limits) -> float:
    """Time of a step with separate launches for each product and the cell: the longer of device and host time."""
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
    """Cycles of a block for one product of all its rows."""
    if isinstance(place, Place):
        multiplied = 4 * place.whole * shape.threads / (MULTIPLIERS * BUSY)
        loaded = 16 * (place.whole - place.kept) * shape.threads / SHARED_BYTES
        return shape.rows * (multiplied + loaded)
    assert shape.cores is not None
    return tiles(shape.rows, COLUMNS) * place.whole * TILE_CYCLES
