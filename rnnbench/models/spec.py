"""ModelSpec: an immutable description of a model: a recurrent network with what stands around it; and initial parameters."""

import math
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import numpy as np

from rnnbench.errors import SpecError
from rnnbench.networks.params import Params, init_params
from rnnbench.networks.spec import MAX_SIZE, Spec

LOSSES = {"cross_entropy": ("softmax",), "mse": ("identity", "tanh", "sigmoid")}
"""The losses, and the activations of the output layer that each goes with."""

DTYPES = ("float32", "float64")
"""Dtypes of models: parameters and the optimiser's state need more than 16 bits."""

RNN, EMBEDDING, OUTPUT = "rnn.", "embedding.weight", ("output.weight", "output.bias")


@dataclass(frozen=True)
class ModelSpec:
    """A model: an optional embedding, a recurrent network, and a linear output layer with an activation.

        inputs -> embedding -> rnn -> linear -> activation -> outputs

    ``rnn``: the recurrent network; float32 or float64.
    ``outputs``: the size of the output layer: the number of classes, symbols or predicted values.
    ``vocabulary``: the number of rows of the embedding, each of the size ``rnn.input_size``; None where inputs are numbers.
    ``loss``: "cross_entropy", whose outputs are probabilities, or "mse".
    ``activation``: softmax for cross_entropy (its default); identity (the default), tanh or sigmoid for mse.
    ``dropout``: the probability with which training sets an output of a layer to zero before the next layer reads it.
    Raises SpecError.
    """

    rnn: Spec
    outputs: int
    _: KW_ONLY
    vocabulary: int | None = None
    loss: str = "cross_entropy"
    activation: str | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.rnn, Spec):
            raise SpecError(f"rnn is a {type(self.rnn).__name__}; expected a rnnbench.Spec")
        if self.rnn.dtype not in DTYPES:
            raise SpecError(f"the dtype of rnn is {self.rnn.dtype!r}; expected one of {', '.join(DTYPES)} in a model")
        self._set("outputs", _size("outputs", self.outputs, 1))
        if self.vocabulary is not None:
            self._set("vocabulary", _size("vocabulary", self.vocabulary, 2))
        if self.loss not in LOSSES:
            raise SpecError(f"loss is {self.loss!r}; expected one of {', '.join(LOSSES)}")
        allowed = LOSSES[self.loss]
        if self.activation is None:
            self._set("activation", allowed[0])
        if self.activation not in allowed:
            raise SpecError(f"activation is {self.activation!r}; expected {' or '.join(allowed)} for {self.loss}")
        dropout = self.dropout
        if isinstance(dropout, bool) or not isinstance(dropout, int | float | np.floating) or not 0 <= dropout < 1:
            raise SpecError(f"dropout is {dropout!r}; expected a number from 0 to below 1")
        self._set("dropout", float(dropout))
        if self.dropout and self.rnn.num_layers == 1:
            raise SpecError(f"dropout is {self.dropout}; expected 0: it acts between layers, and rnn has one layer")

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    @property
    def numpy_dtype(self) -> np.dtype:
        return self.rnn.numpy_dtype

    def param_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter by name; torch's state_dict has the same names for a module with these three parts."""
        shapes: dict[str, tuple[int, ...]] = {}
        if self.vocabulary is not None:
            shapes[EMBEDDING] = (self.vocabulary, self.rnn.input_size)
        shapes |= {RNN + name: shape for name, shape in self.rnn.param_shapes().items()}
        weight, bias = OUTPUT
        return shapes | {weight: (self.outputs, self.rnn.features), bias: (self.outputs,)}

    def parameter_count(self) -> int:
        return sum(math.prod(shape) for shape in self.param_shapes().values())

    def layers(self) -> list[Spec]:
        """The recurrent network as one network a layer."""
        rnn = self.rnn
        return [replace(rnn, input_size=rnn.layer_input_size(layer), num_layers=1) for layer in range(rnn.num_layers)]


def init_model_params(spec: ModelSpec, seed: int, scheme: str = "torch-default", forget_bias: float = 0.0) -> Params:
    """Draw initial parameters: a dict of NumPy arrays by the names of ``spec.param_shapes()``.

    The recurrent network is drawn by ``init_params`` with ``seed``, ``scheme`` and ``forget_bias``; the embedding is standard
    normal, and the output layer uniform in +-1/sqrt(D*H), as torch.nn draws them.  Raises SpecError or ArgumentError.
    """
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"spec is a {type(spec).__name__}; expected a ModelSpec")
    rnn = init_params(spec.rnn, seed, scheme, forget_bias)
    rng = np.random.default_rng([seed, 1])
    dtype, shapes = spec.numpy_dtype, spec.param_shapes()
    params: dict[str, Any] = {}
    if EMBEDDING in shapes:
        params[EMBEDDING] = rng.standard_normal(shapes[EMBEDDING]).astype(dtype)
    params |= {RNN + name: value for name, value in rnn.items()}
    bound = 1 / math.sqrt(spec.rnn.features)
    return params | {name: rng.uniform(-bound, bound, shapes[name]).astype(dtype) for name in OUTPUT}


def _size(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= MAX_SIZE:
        raise SpecError(f"{name} is {value!r}; expected an integer from {least} to {MAX_SIZE}")
    return int(value)
