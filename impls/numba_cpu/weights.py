"""A layer's parameters as the loops read them."""

from typing import NamedTuple

import numpy as np

from rnnbench.impls.numba_cpu.bfloat16 import computed
from rnnbench.impls.numba_cpu.products import packed, rounded_up
from rnnbench.impls.numba_cpu.target import Target
from rnnbench.params import Params
from rnnbench.spec import Spec


class Weights(NamedTuple):
    """Packed for forward and, transposed, for BPTT; hh split into outer and inner gates.

    Biases have rows of whole vectors, zeros where there is none.
    """

    ih: np.ndarray
    outer: np.ndarray
    inner: np.ndarray
    ho: np.ndarray
    bias_ih: np.ndarray
    bias_outer: np.ndarray
    bias_inner: np.ndarray
    bias_ho: np.ndarray
    ih_back: np.ndarray
    outer_back: np.ndarray
    inner_back: np.ndarray
    ho_back: np.ndarray


class LayerWeights:
    """One layer's parameters; what a thread needs for its hidden units is packed when it is first asked for."""

    def __init__(self, spec: Spec, params: Params, target: Target) -> None:
        self._spec, self._params, self._target = spec, params, target
        self._packed: dict[tuple[int, int], Weights] = {}

    def of_units(self, units: slice) -> Weights:
        key = (units.start, units.stop)
        if key not in self._packed:
            self._packed[key] = self._pack(units)
        return self._packed[key]

    def _pack(self, units: slice) -> Weights:
        spec, cell, params, dtype = self._spec, self._spec.kind, self._params, self._spec.numpy_dtype
        real = computed(dtype)

        def of_gates(values: np.ndarray, first: int, last: int) -> np.ndarray:
            """The rows of these units in the gates from first to last."""
            gates = values.reshape(len(cell.gates), spec.hidden_size, *values.shape[1:])[first:last, units]
            return gates.reshape(-1, *values.shape[1:])

        count, outer = len(cell.gates), cell.outer_gates
        nothing = np.zeros(count * spec.hidden_size, real)
        bias_ih, bias_hh = (params.get(name, nothing).astype(real, copy=False) for name in ("bias_ih", "bias_hh"))
        if cell.reads_sums and not cell.inner_gates:
            bias_ih, bias_hh = bias_ih + bias_hh, nothing
        weight_ho = params.get("weight_ho", np.zeros((0, spec.hidden_size), dtype))
        matrices = [
            of_gates(params["weight_ih"], 0, count),
            of_gates(params["weight_hh"], 0, outer),
            of_gates(params["weight_hh"], outer, count),
            weight_ho,
        ]
        biases = [
            of_gates(bias_ih, 0, count),
            of_gates(bias_hh, 0, outer),
            of_gates(bias_hh, outer, count),
            params.get("bias_ho", np.zeros(len(weight_ho))).astype(real, copy=False),
        ]
        return Weights(
            *(packed(matrix.T, self._target) for matrix in matrices),
            *(self._row(bias) for bias in biases),
            *(packed(matrix, self._target) for matrix in matrices),
        )

    def _row(self, bias: np.ndarray) -> np.ndarray:
        row = np.zeros(rounded_up(len(bias), self._target.lanes(bias.dtype)), bias.dtype)
        row[: len(bias)] = bias
        return row
