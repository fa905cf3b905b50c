"""The products over whole sequences: tiled, one thread per element and through PyTorch, on every layout.  About 10 s."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("greenlet", reason="greenlet is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install -e '.[cuda-offline]' in the checkout of rnnbench")

from rnnbench.impls.numba_cuda import offline, products, simulator
from rnnbench.impls.numba_cuda.arrays import on_device
from rnnbench.impls.numba_cuda.kernels import Matrix, matrix
from rnnbench.impls.numba_cuda.products import Multiply

MISSING = offline.missing_toolchain()


pytestmark = pytest.mark.usefixtures("simulated_gpu")


def stored(values: np.ndarray, transposed: bool) -> Matrix:
    if transposed:
        return matrix(on_device(np.ascontiguousarray(values.T).reshape(-1)), *values.T.shape).transposed
    return matrix(on_device(values.reshape(-1)), *values.shape)


def agrees(multiply: Multiply, sizes: tuple[int, int, int], transposed: tuple[bool, bool], dtype: str) -> None:
    """out = start + a b, start one row that is repeated, out the inner part of a larger matrix, whose border stays."""
    m, n, k = sizes
    rng = np.random.default_rng(0)
    a, b, row = (rng.standard_normal(shape).astype(dtype) for shape in ((m, k), (k, n), (1, n)))
    whole = matrix(on_device(np.full((m + 2) * (n + 3), 7, dtype)), m + 2, n + 3)
    start = stored(row, False).repeated(m)
    multiply(whole.part(slice(1, m + 1), slice(2, n + 2)), start, stored(a, transposed[0]), stored(b, transposed[1]))
    got = np.array(whole.array).reshape(m + 2, n + 3)
    exact = row.astype("float64") + a.astype("float64") @ b.astype("float64")
    # k products and k sums, each rounded by at most half a unit of the sum of their sizes
    bound = (k + 1) * np.finfo(dtype).eps * (np.abs(row) + np.abs(a) @ np.abs(b))
    assert (np.abs(got[1:-1, 2:-1] - exact) <= bound).all()
    got[1:-1, 2:-1] = 7
    assert (got == 7).all()


@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("multiply", [products.tiled, products.through_torch])
def test_every_layout(multiply: Multiply, transposed: tuple[bool, bool]) -> None:
    """Sizes that are no multiple of a tile; two tiles wide, two deep."""
    if multiply is products.through_torch:
        pytest.importorskip("torch", reason="PyTorch is missing: pip install -e '.[torch]' in the checkout of rnnbench")
    agrees(multiply, (3, 66, 17), transposed, "float32")


@pytest.mark.parametrize(
    ("sizes", "dtype", "kernel"),
    [((3, 5, 9), "float32", "product"), ((70, 70, 1), "float64", "product"), ((64, 64, 1), "float32", "tiled_product")],
)
def test_tiles_are_for_float32_that_fills_one(
    sizes: tuple[int, int, int], dtype: str, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, used = simulator.run, []

    def watched(function: Any, *args: Any, **options: Any) -> None:
        used.append(function.__name__)
        run(function, *args, **options)

    monkeypatch.setattr(simulator, "run", watched)
    agrees(products.own, sizes, (False, False), dtype)
    assert used == [kernel]


@pytest.mark.skipif(bool(MISSING), reason=str(MISSING))
def test_the_tiled_product_keeps_its_sums_in_registers() -> None:
    from numba.cuda import types

    operand = types.NamedTuple([types.CPointer(types.float32)] + [types.int64] * (len(Matrix._fields) - 1), Matrix)
    binary = offline.compile_kernel(products.tiled_product, types.void(*[operand] * 4), products.THREADS)
    found = offline.instructions(binary)
    assert (binary.spilled, binary.stack, offline.of_family(found, "LDL", "STL")) == (0, 0, 0)
    assert not offline.double_precision(found)
    assert offline.of_family(found, "FFMA") >= products.SIDE**2
