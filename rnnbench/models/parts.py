"""The contract of a backend's model parts: what a model computes around its recurrent network.

A backend module may offer ``parts(dtype, threads=None) -> Parts``; they work on its own arrays.  For a backend without them,
a model converts to and from NumPy and uses those of the reference.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from rnnbench.models.equations import Rule
from rnnbench.networks.contract import Array


class Rows(NamedTuple):
    """A gradient that is zero but for some rows: ``values`` (N, E) of the rows ``indices`` (N,), each named once, ascending."""

    indices: np.ndarray
    values: Array


class OutputGradients(NamedTuple):
    """The weighted sum of the losses, and its gradients with respect to y (T, B, F), the weight (O, F) and the bias (O,)."""

    loss: float
    y: Array
    weight: Array
    bias: Array


class Parts(Protocol):
    """What a model computes around its recurrent network.  Indices, targets and weights are NumPy arrays; others the backend's.

    Sizes: T steps, B sequences, V rows and E columns of the embedding, F features of the recurrent network, O outputs.
    """

    name: str

    def asarray(self, array: np.ndarray) -> Array:
        """Copy a NumPy array."""
        ...

    def to_numpy(self, array: Array) -> np.ndarray: ...

    def embedded(self, weight: Array, indices: np.ndarray) -> Array:
        """Return the rows (T, B, E) of the embedding (V, E) for indices (T, B)."""
        ...

    def embedding_gradient(self, indices: np.ndarray, dx: Array) -> Rows:
        """Return the gradient of the embedding: the cotangents dx (T, B, E) of each index, summed."""
        ...

    def scaled(self, array: Array, mask: np.ndarray) -> Array:
        """Return array * mask, elementwise: dropout."""
        ...

    def outputs(self, y: Array, weight: Array, bias: Array, activation: str) -> Array:
        """Return activation(y weight^T + bias), (T, B, O)."""
        ...

    def cross_entropy(self, y: Array, weight: Array, bias: Array, targets: np.ndarray, weights: np.ndarray) -> OutputGradients:
        """Return the sum of weights * -log softmax(y weight^T + bias)[targets], and its gradients.

        ``targets``: classes (T, B); ``weights`` (T, B): 0 where a target is ignored.
        """
        ...

    def squared_errors(
        self, y: Array, weight: Array, bias: Array, activation: str, targets: np.ndarray, weights: np.ndarray
    ) -> OutputGradients:
        """Return the sum of weights * (activation(y weight^T + bias) - targets)^2, and its gradients; all (T, B, O)."""
        ...

    def cross_entropy_loss(self, y: Array, weight: Array, bias: Array, targets: np.ndarray, weights: np.ndarray) -> float:
        """Return the loss of ``cross_entropy``, the same to the bit, without gradients."""
        ...

    def squared_errors_loss(
        self, y: Array, weight: Array, bias: Array, activation: str, targets: np.ndarray, weights: np.ndarray
    ) -> float:
        """Return the loss of ``squared_errors``, the same to the bit, without gradients."""
        ...

    def add(self, total: Array | Rows, term: Array | Rows) -> Array | Rows:
        """Return the sum of two gradients of the same parameter."""
        ...

    def squared_norm(self, gradients: Sequence[Array | Rows]) -> float:
        """Return the sum of squares of all elements."""
        ...

    def update(
        self,
        rule: Rule,
        parameter: Array,
        gradient: Array | Rows,
        slots: Sequence[Array],
        constants: tuple[float, ...],
        scale: float,
        limit: float,
    ) -> None:
        """Apply ``rule`` to a parameter and its slots in place, with scale * gradient, then clipped to +-limit."""
        ...
