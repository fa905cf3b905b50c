"""Spec: one frozen description of a network, with the shapes, sizes and counts that follow from it."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import ml_dtypes
import numpy as np

from rnnbench.errors import SpecError
from rnnbench.networks.cells import CELLS, Cell
from rnnbench.networks.names import DTYPES

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

NARROW = ("bfloat16", "float16")
"""Those in which arrays are stored and nothing is summed up: products add up in float32."""

MAX_SIZE, MAX_LAYERS = 1 << 24, 1 << 16
"""Of a size and of the number of layers: far beyond what fits into any machine, and near enough to be counted."""


@dataclass(frozen=True)
class Spec:
    """A recurrent network: its cell, sizes, layers, directions and dtype, validated on construction.

    ``cell``: one of elman, jordan, lstm, gru, gru_reset_before.  ``nonlinearity``: tanh, relu or sigmoid for elman and
    jordan; tanh for the others.  ``output_size``: the size O of jordan's output y = V h + c (default: hidden_size); for
    no other cell.  ``dtype``: float32, float64, bfloat16 or float16, of every array; products of the last
    two add up in float32.  What no float16 can be, beyond 65504, becomes infinite, and below 3e-8 zero.
    NumPy's integers, booleans, strings, dtypes and scalar types are taken and kept as Python's own.
    Raises SpecError.
    """

    cell: str
    input_size: int
    hidden_size: int
    _: KW_ONLY
    num_layers: int = 1
    bidirectional: bool = False
    nonlinearity: str = "tanh"
    bias: bool = True
    output_size: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self._keep("cell", _text(self.cell))
        if not isinstance(self.cell, str) or self.cell not in CELLS:
            raise SpecError(f"cell is {self.cell!r}; expected one of {', '.join(CELLS)}")
        for name in ("input_size", "hidden_size"):
            self._keep(name, _size(name, getattr(self, name), MAX_SIZE))
        self._keep("num_layers", _size("num_layers", self.num_layers, MAX_LAYERS))
        for name in ("bidirectional", "bias"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise SpecError(f"{name} is {value!r}; expected True or False")
            self._keep(name, bool(value))
        self._keep("nonlinearity", _text(self.nonlinearity))
        allowed = CELLS[self.cell].nonlinearities
        if self.nonlinearity not in allowed:
            raise SpecError(f"nonlinearity is {self.nonlinearity!r}; expected {' or '.join(allowed)} for {self.cell}")
        self._keep("dtype", _dtype_name(self.dtype))
        if self.dtype not in DTYPES:
            raise SpecError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if not CELLS[self.cell].feeds_back_output:
            if self.output_size is not None:
                raise SpecError(f"output_size is {self.output_size!r}; expected None: only jordan has an output layer")
        elif self.output_size is None:
            self._keep("output_size", self.hidden_size)
        else:
            self._keep("output_size", _size("output_size", self.output_size, MAX_SIZE))

    def _keep(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def kind(self) -> Cell:
        """The cell's entry in ``cells.CELLS``."""
        return CELLS[self.cell]

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """Width of one direction's recurrent state and output: O for jordan, else H."""
        return self.output_size if self.output_size is not None else self.hidden_size

    @property
    def features(self) -> int:
        """Width of y: directions x state_size."""
        return self.directions * self.state_size

    def layer_input_size(self, layer: int) -> int:
        return self.input_size if layer == 0 else self.features

    def suffixes(self) -> list[str]:
        """``_l0``, ``_l0_reverse``, ``_l1``, ... in the order in which torch stores layers and directions."""
        return [f"_l{layer}{tail}" for layer in range(self.num_layers) for tail in ("", "_reverse")[: self.directions]]

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one direction of one layer, by name without suffix."""
        rows, size = len(self.kind.gates) * self.hidden_size, self.state_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.layer_input_size(layer)), "weight_hh": (rows, size)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.kind.feeds_back_output:
            shapes["weight_ho"] = (size, self.hidden_size)
            if self.bias:
                shapes["bias_ho"] = (size,)
        return shapes

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by torch.nn's name, in torch's order."""
        return {
            name + suffix: shape
            for index, suffix in enumerate(self.suffixes())
            for name, shape in self.layer_shapes(index // self.directions).items()
        }

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape (L*D, B, H) of each array of the state; the last size is O for jordan."""
        return (self.num_layers * self.directions, batch, self.state_size)

    @property
    def numpy_dtype(self) -> np.dtype:
        """bfloat16 is ``ml_dtypes.bfloat16``."""
        return BFLOAT16 if self.dtype == "bfloat16" else np.dtype(self.dtype)

    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.param_shapes().values())

    def parameter_bytes(self) -> int:
        return self.parameter_count() * self.numpy_dtype.itemsize

    def state_bytes(self, batch: int) -> int:
        return len(self.kind.states) * math.prod(self.state_shape(batch)) * self.numpy_dtype.itemsize

    def forward_flops(self, steps: int, batch: int) -> int:
        """Floating-point operations of the matrix products of a forward pass over (T, B): for one LSTM layer
        8 B T H (I + H).  A multiplication and an addition count as two; elementwise work and biases are not counted."""
        weights = sum(math.prod(s) for name, s in self.param_shapes().items() if name.startswith("weight"))
        return 2 * weights * steps * batch

    def step_flops(self, steps: int, batch: int) -> int:
        """Operations of forward plus BPTT: three times the forward's, as each product has two transposed ones."""
        return 3 * self.forward_flops(steps, batch)

    def forward_bytes(self, steps: int, batch: int) -> int:
        """The least traffic of a forward pass: each parameter, x and y moved once."""
        return self.parameter_bytes() + steps * batch * (self.input_size + self.features) * self.numpy_dtype.itemsize

    def step_bytes(self, steps: int, batch: int) -> int:
        """The least traffic of forward plus BPTT: parameters, x and y, and the gradient of each, moved once."""
        return 2 * self.forward_bytes(steps, batch)


def check_spec(spec: object) -> None:
    """Raise SpecError unless ``spec`` is a Spec."""
    if not isinstance(spec, Spec):
        raise SpecError(f"spec is a {type(spec).__name__}; expected a rnnbench.Spec")


def _size(name: str, value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SpecError(f"{name} is {value!r}; expected an integer >= 1")
    if value > most:
        raise SpecError(f"{name} is {value!r}; expected an integer from 1 to {most}")
    return int(value)


def _text(value: Any) -> Any:
    """A string of a class of its own, as NumPy's and enumerations' are, as a plain one; anything else as it is."""
    return str.__str__(value) if isinstance(value, str) else value


def _dtype_name(value: Any) -> Any:
    """The name of NumPy's dtype or scalar type; a string as it is."""
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    return _text(value)
