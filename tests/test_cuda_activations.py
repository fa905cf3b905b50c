"""The activations of CUDA kernels over all of float32: accuracy, both ends, NaN; and no slow path in the machine code.

Simulated, with a reciprocal that is as wrong as the manual allows.  About 5 s.
"""

import numpy as np
import pytest
from helpers.patched_source import patched

pytest.importorskip("greenlet", reason="greenlet is missing: pip install 'rnnbench[cuda-offline]'")
pytest.importorskip("numba_cuda", reason="numba-cuda is missing: pip install 'rnnbench[cuda-offline]'")

from rnnbench.impls.numba_cuda import cell_kernels, intrinsics, offline, simulator

EVERYWHERE = np.arange(0, 2**32, 40_009, dtype=np.uint32).view(np.float32)
"""Float32 at equal distances of their bits: all magnitudes, both signs, subnormal numbers and NaN."""

DENSE = np.linspace(-20, 20, 40_001, dtype=np.float32)


def applied(name: str, z: np.ndarray) -> np.ndarray:
    function = getattr(cell_kernels.activations(z.dtype), name)

    def kernel(z, y):
        for i in range(len(z)):
            y[i] = function(z[i])

    y = np.full_like(z, np.nan)
    simulator.run(kernel, (z, y), blocks=1, threads=1)
    return y


def distances(found: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Errors in units of the distance between float32 numbers there."""
    return np.abs(found - exact) / np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)


def exact_sigmoid(z: np.ndarray) -> np.ndarray:
    return of_exponential(z, np.exp(-np.abs(z.astype(np.float64))))


def of_exponential(z: np.ndarray, small: np.ndarray) -> np.ndarray:
    return np.where(z >= 0, 1, small) / (1 + small)


@pytest.mark.parametrize("z", [EVERYWHERE, DENSE], ids=["everywhere", "dense"])
def test_sigmoid_adds_three_roundings_to_the_error_of_its_exponential(z: np.ndarray) -> None:
    """A sum, a reciprocal and a product; CUDA's manual has the error of the exponential."""
    z = z[~np.isnan(z)]
    exact = of_exponential(z, np.exp(-np.abs(z)).astype(np.float64))
    beyond = np.abs(applied("sigmoid", z) - exact) - (3.01 * 2.0**-24 * exact + 2.0**-150)
    assert beyond.max() <= 0, z[beyond.argmax()]


def test_sigmoid_at_both_ends() -> None:
    z = np.array([np.inf, -np.inf, np.nan, 0, -0.0, 100, -87, -103, -200, 2.0**-140], "float32")
    wanted = [1, 0, np.nan, 0.5, 0.5, 1, exact_sigmoid(z[6]), exact_sigmoid(z[7]), 0, 0.5]
    np.testing.assert_array_equal(applied("sigmoid", z), np.array(wanted, "float32"))


def test_sigmoid_of_float64_has_its_accuracy() -> None:
    z = np.linspace(-40, 40, 1001)
    np.testing.assert_allclose(applied("sigmoid", z), exact_sigmoid(z), rtol=4 * 2.0**-53)


def test_the_reciprocal_is_as_good_as_rounded() -> None:
    """... from one to two, which is where sigmoid needs it."""
    values = np.append(np.arange(0x3F800000, 0x40000000, 997, dtype=np.uint32).view(np.float32), np.float32(2))
    found = np.array([intrinsics.TWINS[intrinsics.reciprocal](None, value) for value in values])
    assert distances(found, 1 / values.astype(np.float64)).max() <= 0.501


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("np.float64(near) * np.float64(missing) + np.float64(near)", "np.float64(near)"),
        ("1 - np.float64(near)", "2 - np.float64(near)"),
    ],
)
def test_a_reciprocal_without_its_newton_step_is_not(right: str, wrong: str) -> None:
    twin = patched(intrinsics, (right, wrong))._reciprocal
    values = np.arange(0x3F800000, 0x40000000, 99_991, dtype=np.uint32).view(np.float32)
    assert distances(np.array([twin(None, value) for value in values]), 1 / values.astype(np.float64)).max() > 1


@pytest.mark.skipif(bool(offline.missing_toolchain()), reason=str(offline.missing_toolchain()))
def test_sigmoid_has_neither_a_call_nor_a_branch() -> None:
    from numba import cuda
    from numba.cuda.types import CPointer, float32, void

    sigmoid = cell_kernels.activations(np.dtype("float32")).sigmoid

    def kernel(x, y):
        y[cuda.threadIdx.x] = sigmoid(x[cuda.threadIdx.x])

    found = offline.instructions(offline.compile_kernel(kernel, void(CPointer(float32), CPointer(float32)), 128))
    assert found["MUFU.RCP"] == 1
    assert not offline.of_family(found, "CALL", "BSSY", "FCHK")
