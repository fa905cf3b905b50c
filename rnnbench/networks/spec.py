"""Spec: an immutable description of a network, and the shapes, sizes and counts derived from it."""

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from rnnbench.errors import SpecError
from rnnbench.networks.bfloat16 import dtype_of
from rnnbench.networks.cells import CELLS, PROJECTED, Cell
from rnnbench.networks.names import DTYPES

NARROW = ("bfloat16", "float16")
"""Storage dtypes whose products are accumulated in float32."""

MAX_SIZE, MAX_LAYERS = 1 << 24, 1 << 16
"""Largest size and number of layers: beyond the memory of any machine, but safe for integer counts."""


@dataclass(frozen=True)
class Spec:
    """A recurrent network: its cell, sizes, layers, directions and dtype, validated on construction.

    ``cell``: elman, jordan, lstm, lstm_peephole, gru or gru_reset_before.
    ``nonlinearity``: tanh, relu or sigmoid for elman and jordan; tanh for the others.
    ``output_size``: the size O of jordan's output y = V h + c, by default hidden_size; None for other cells.
    ``projection_size``: the size P of the output and recurrent state W_hr h of lstm and lstm_peephole; None, or hidden_size or
    less.
    ``dtype``: float32, float64, bfloat16 or float16, for all arrays; the last two accumulate products in float32.  float16
    overflows to infinity beyond 65504 and underflows to zero below 3e-8.
    NumPy integers, booleans, strings, dtypes and scalar types are converted to Python's own.  Raises SpecError.
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
    projection_size: int | None = None
    dtype: str = "float32"

    def __post_init__(self) -> None:
        self._set("cell", _plain_str(self.cell))
        if not isinstance(self.cell, str) or self.cell not in CELLS:
            raise SpecError(f"cell is {self.cell!r}; expected one of {', '.join(CELLS)}")
        for name in ("input_size", "hidden_size"):
            self._set(name, _size(name, getattr(self, name), MAX_SIZE))
        self._set("num_layers", _size("num_layers", self.num_layers, MAX_LAYERS))
        for name in ("bidirectional", "bias"):
            value = getattr(self, name)
            if not isinstance(value, bool | np.bool_):
                raise SpecError(f"{name} is {value!r}; expected True or False")
            self._set(name, bool(value))
        self._set("nonlinearity", _plain_str(self.nonlinearity))
        allowed = CELLS[self.cell].nonlinearities
        if self.nonlinearity not in allowed:
            raise SpecError(f"nonlinearity is {self.nonlinearity!r}; expected {' or '.join(allowed)} for {self.cell}")
        self._set("dtype", _dtype_name(self.dtype))
        if self.dtype not in DTYPES:
            raise SpecError(f"dtype is {self.dtype!r}; expected one of {', '.join(DTYPES)}")
        if not CELLS[self.cell].feeds_back_output:
            if self.output_size is not None:
                raise SpecError(f"output_size is {self.output_size!r}; expected None: only jordan has an output layer")
        elif self.output_size is None:
            self._set("output_size", self.hidden_size)
        else:
            self._set("output_size", _size("output_size", self.output_size, MAX_SIZE))

        if self.projection_size is not None:
            if self.cell not in PROJECTED:
                raise SpecError(f"projection_size is {self.projection_size!r}; expected None: {self.cell} has no projection")
            self._set("projection_size", _size("projection_size", self.projection_size, self.hidden_size))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def kind(self) -> Cell:
        """The cell's entry in ``cells.CELLS``, or in ``cells.PROJECTED``."""
        return CELLS[self.cell] if self.projection_size is None else PROJECTED[self.cell]

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def state_size(self) -> int:
        """Width of one direction's recurrent state and output: O for jordan, P for a projection, else H."""
        return self.output_size or self.projection_size or self.hidden_size

    @property
    def features(self) -> int:
        """Width of y: directions x state_size."""
        return self.directions * self.state_size

    def layer_input_size(self, layer: int) -> int:
        return self.input_size if layer == 0 else self.features

    def suffixes(self) -> list[str]:
        """Suffixes of parameter names, ``_l0``, ``_l0_reverse``, ``_l1``, ..., in torch's order."""
        return [f"_l{layer}{tail}" for layer in range(self.num_layers) for tail in ("", "_reverse")[: self.directions]]

    def layer_shapes(self, layer: int) -> dict[str, tuple[int, ...]]:
        """Parameter shapes of one direction of one layer, by name without suffix."""
        rows, size = len(self.kind.gates) * self.hidden_size, self.state_size
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, self.layer_input_size(layer)), "weight_hh": (rows, size)}
        if self.bias:
            shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if self.kind.peepholes:
            shapes["weight_ch"] = (len(self.kind.peepholes) * self.hidden_size,)
        if self.kind.feeds_back_output:
            shapes[f"weight_{self.kind.output}"] = (size, self.hidden_size)
            if self.bias and self.projection_size is None:
                shapes["bias_ho"] = (size,)
        for name in self.kind.normalised:
            shapes[f"gain_{name}"] = (self.hidden_size,) if name == "c" else (rows,)
        if "c" in self.kind.normalised and self.bias:
            shapes["bias_c"] = (self.hidden_size,)
        return shapes

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by torch.nn's name, in torch's order."""
        return {
            name + suffix: shape
            for index, suffix in enumerate(self.suffixes())
            for name, shape in self.layer_shapes(index // self.directions).items()
        }

    def state_shape(self, batch: int) -> tuple[int, int, int]:
        """Shape (L*D, B, H) of the state that the recurrence reads; the last size is O for jordan, P for a projection."""
        return self.state_shapes(batch)[0]

    def state_shapes(self, batch: int) -> tuple[tuple[int, int, int], ...]:
        """Shape of each array of the state: ``state_shape`` and, where the cell has c, (L*D, B, H)."""
        count = self.num_layers * self.directions
        return ((count, batch, self.state_size), (count, batch, self.hidden_size))[: len(self.kind.states)]

    @property
    def numpy_dtype(self) -> np.dtype:
        """The NumPy dtype; ``ml_dtypes.bfloat16`` for bfloat16."""
        return dtype_of(self.dtype)

    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.param_shapes().values())

    def parameter_bytes(self) -> int:
        return self.parameter_count() * self.numpy_dtype.itemsize

    def state_bytes(self, batch: int) -> int:
        return sum(map(math.prod, self.state_shapes(batch))) * self.numpy_dtype.itemsize

    def forward_flops(self, steps: int, batch: int) -> int:
        """Floating-point operations of the matrix products of a forward pass: 8 B T H (I + H) for one LSTM layer.

        A multiplication and an addition count as two; elementwise work, such as peepholes, and biases are not counted.
        """
        weights = sum(math.prod(shape) for shape in self.param_shapes().values() if len(shape) == 2)
        return 2 * weights * steps * batch

    def step_flops(self, steps: int, batch: int) -> int:
        """Operations of forward plus BPTT: three times those of forward, because BPTT has two products for each."""
        return 3 * self.forward_flops(steps, batch)

    def forward_bytes(self, steps: int, batch: int) -> int:
        """Minimum traffic of a forward pass in bytes: the parameters, x and y moved once."""
        return self.parameter_bytes() + steps * batch * (self.input_size + self.features) * self.numpy_dtype.itemsize

    def step_bytes(self, steps: int, batch: int) -> int:
        """Minimum traffic of forward plus BPTT in bytes: the parameters, x, y and their gradients moved once."""
        return 2 * self.forward_bytes(steps, batch)


def check_spec(spec: object) -> None:
    """Raise SpecError unless ``spec`` is a Spec."""
    if not isinstance(spec, Spec):
        raise SpecError(f"spec is a {type(spec).__name__}; expected a rnnbench.Spec")


def _size(name: str, value: Any, maximum: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise SpecError(f"{name} is {value!r}; expected an integer >= 1")
    if value > maximum:
        raise SpecError(f"{name} is {value!r}; expected an integer from 1 to {maximum}")
    return int(value)


def _plain_str(value: Any) -> Any:
    """Convert instances of str subclasses, such as NumPy strings and enumeration members, to str."""
    return str.__str__(value) if isinstance(value, str) else value


def _dtype_name(value: Any) -> Any:
    """The name of a NumPy dtype or scalar type; other values are passed through."""
    if isinstance(value, np.dtype) or (isinstance(value, type) and issubclass(value, np.generic)):
        return np.dtype(value).name
    return _plain_str(value)
