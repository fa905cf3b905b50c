"""Matrix products on the device, and the affine maps of a layer with their gradients."""

import numpy as np

from rnnbench.impls.numba_cuda.arrays import DeviceArrays, on_device
from rnnbench.impls.numba_cuda.kernels import Matrix, constant, matrix
from rnnbench.impls.numba_cuda.products import Multiply

Weights = dict[str, Matrix]

ALL = slice(None)


class Algebra:
    """Operations on matrices (``kernels.Matrix``) of one dtype; a bias is a matrix of one row."""

    def __init__(self, arrays: DeviceArrays, multiply: Multiply) -> None:
        self._arrays, self.multiply = arrays, multiply
        self._zero, self._one = (on_device(np.full(1, value, arrays.dtype)) for value in (0, 1))

    def on_device(self, value: np.ndarray) -> Matrix:
        two_dimensional = np.atleast_2d(value)
        return matrix(on_device(two_dimensional.reshape(-1)), *two_dimensional.shape)

    def product(self, a: Matrix, b: Matrix, out: Matrix) -> None:
        """out = a b."""
        self.multiply(out, self._zeros(out), a, b)

    def affine(self, weights: Weights, name: str, out: Matrix, operand: Matrix, gates: slice = ALL) -> None:
        """out[:, gates] = operand weight[gates]^T + bias[gates]."""
        out = out.part(columns=gates)
        bias = weights.get(f"bias_{name}")
        start = self._zeros(out) if bias is None else bias.part(columns=gates).repeated(out.rows)
        self.multiply(out, start, operand, weights[f"weight_{name}"].part(gates).transposed)

    def affine_gradients(self, grads: Weights, name: str, dout: Matrix, operand: Matrix, gates: slice = ALL) -> None:
        """The gradients of ``affine`` with respect to weight[gates] and bias[gates], summed over the rows."""
        dout = dout.part(columns=gates)
        self.product(dout.transposed, operand, grads[f"weight_{name}"].part(gates))
        if f"bias_{name}" in grads:
            self.product(constant(self._one, 1, dout.rows), dout, grads[f"bias_{name}"].part(columns=gates))

    def _zeros(self, like: Matrix) -> Matrix:
        return constant(self._zero, like.rows, like.columns)
