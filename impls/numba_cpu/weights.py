"""A layer's parameters, packed for the kernels."""

from typing import NamedTuple

import numpy as np

from rnnbench.impls.numba_cpu.bfloat16 import computed
from rnnbench.impls.numba_cpu.compile import packed
from rnnbench.impls.numba_cpu.products import rounded_up
from rnnbench.jit.target import Target
from rnnbench.networks.params import Params
from rnnbench.networks.spec import Spec


class Weights(NamedTuple):
    """Weights packed for the forward loop; hh is split into outer and inner gates.

    Biases are padded to whole vectors, and zero where the layer has none.  ``peepholes``: (gates * units,), gate after gate.
    """

    ih: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    ho: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    bias_ho: np.ndarray
    peepholes: np.ndarray


class BackWeights(NamedTuple):
    """The same matrices packed for BPTT, which multiplies by their transposes, and the same peephole weights."""

    ih: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    ho: np.ndarray
    peepholes: np.ndarray


class LayerWeights:
    """One layer's parameters, packed for a thread's hidden units on first use: without training nothing is packed for BPTT."""

    def __init__(self, spec: Spec, params: Params, target: Target) -> None:
        self._spec, self._params, self._target = spec, params, target
        self._packed: dict[tuple[int, int], Weights] = {}
        self._packed_back: dict[tuple[int, int], BackWeights] = {}

    def of_units(self, units: slice) -> Weights:
        key = (units.start, units.stop)
        if key not in self._packed:
            packed_weights = (packed(matrix.T, self._target) for matrix in self._matrices(units))
            biases = (self._row(bias) for bias in self._biases(units))
            self._packed[key] = Weights(*packed_weights, *biases, peepholes=self._peepholes(units))
        return self._packed[key]

    def back_of_units(self, units: slice) -> BackWeights:
        key = (units.start, units.stop)
        if key not in self._packed_back:
            packed_weights = (packed(matrix, self._target) for matrix in self._matrices(units))
            self._packed_back[key] = BackWeights(*packed_weights, peepholes=self._peepholes(units))
        return self._packed_back[key]

    def _matrices(self, units: slice) -> list[np.ndarray]:
        """ih, the outer gates of hh, its inner gates, and ho."""
        spec, params = self._spec, self._params
        count, outer = len(spec.kind.gates), spec.kind.outer_gates
        return [
            self._of_gates(params["weight_ih"], units, 0, count),
            self._of_gates(params["weight_hh"], units, 0, outer),
            self._of_gates(params["weight_hh"], units, outer, count),
            params.get(f"weight_{spec.kind.output}", np.zeros((0, spec.hidden_size), spec.numpy_dtype)),
        ]

    def _biases(self, units: slice) -> list[np.ndarray]:
        spec, cell, params = self._spec, self._spec.kind, self._params
        real, count, outer = computed(spec.numpy_dtype), len(cell.gates), cell.outer_gates
        nothing = np.zeros(count * spec.hidden_size, real)
        bias_ih, bias_hh = (params.get(name, nothing).astype(real, copy=False) for name in ("bias_ih", "bias_hh"))
        if cell.reads_sums and not cell.inner_gates:
            bias_ih, bias_hh = bias_ih + bias_hh, nothing
        outputs = len(params.get(f"weight_{cell.output}", ()))
        return [
            self._of_gates(bias_ih, units, 0, count),
            self._of_gates(bias_hh, units, 0, outer),
            self._of_gates(bias_hh, units, outer, count),
            params.get(f"bias_{cell.output}", np.zeros(outputs)).astype(real, copy=False),
        ]

    def _peepholes(self, units: slice) -> np.ndarray:
        spec, count = self._spec, len(self._spec.kind.peepholes)
        weights = self._params["weight_ch"] if count else np.zeros(0)
        return self._of_gates(weights, units, 0, count).astype(computed(spec.numpy_dtype))

    def _of_gates(self, values: np.ndarray, units: slice, first: int, last: int) -> np.ndarray:
        """The rows of these units in gates ``first`` to ``last`` (exclusive)."""
        size = self._spec.hidden_size
        if units == slice(0, size):
            return values[first * size : last * size]
        gates = values.reshape(-1, size, *values.shape[1:])[first:last, units]
        return gates.reshape(-1, *values.shape[1:])

    def _row(self, bias: np.ndarray) -> np.ndarray:
        row = np.zeros(rounded_up(len(bias), self._target.lanes(bias.dtype)), bias.dtype)
        row[: len(bias)] = bias
        return row
