"""Model: a ModelSpec and its parameters, loaded on a backend; outputs, losses and gradients."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from rnnbench.errors import ArgumentError, SpecError
from rnnbench.models.checks import check_indices, check_model_params, check_numbers, check_weights
from rnnbench.models.dropout import Key, LayeredNetwork, draw_mask
from rnnbench.models.parts import OutputGradients, Parts, Rows
from rnnbench.models.spec import EMBEDDING, OUTPUT, RNN, ModelSpec
from rnnbench.networks.arrays import arrays_of
from rnnbench.networks.contract import Array, Network, State, unsupported_lengths
from rnnbench.networks.params import Params
from rnnbench.networks.registry import load_backend, reference_backend
from rnnbench.networks.truncation import tbptt

ModelGradients = dict[str, Array | Rows]
"""Gradients by the name of the parameter, in the arrays of the model's parts; ``Rows`` for the embedding."""


class Evaluation(NamedTuple):
    """The mean loss over ``count`` counted targets, and the final state."""

    loss: float
    count: float
    state: State


class TrainingPass(NamedTuple):
    """The mean loss over ``count`` counted targets, its gradients, and the final state, as a constant."""

    loss: float
    count: float
    gradients: ModelGradients
    state: State


class Model:
    """A model on a backend.  Inputs and targets are NumPy arrays, time first.

    inputs: indices (T, B) of integers where the model has an embedding, else numbers (T, B, I) of the model's dtype.
    targets: classes (T, B) for cross_entropy, numbers (T, B, O) for mse.
    mask: how much each target counts, (T, B), or (T, B, O) for mse; None counts all.  0 ignores a target: a step of padding,
    a missing value, all steps but the last of a sequence to be classified.
    state: of the backend's own arrays, as a call before returned it; None means zeros.
    lengths: the number of steps of each sequence, integers (B,), on backends that take them (``takes_lengths``); None means T.
    Steps beyond them cost nothing on numba_cpu; their targets still have to be masked.

    ``arrays``: the parameters by name, in the arrays of ``parts``.  Who changes them calls ``changed``.
    """

    def __init__(
        self, spec: ModelSpec, params: Mapping[str, np.ndarray], backend: Any, parts: Parts, own: bool, threads: int | None
    ) -> None:
        self.spec, self.backend, self.parts, self._own, self._threads = spec, backend, parts, own, threads
        self._networks: list[Network] = []
        self.update(params)

    def params(self) -> Params:
        """Return a copy of the parameters as NumPy arrays."""
        return {name: np.array(self.parts.to_numpy(array)) for name, array in self.arrays.items()}

    def update(self, params: Mapping[str, np.ndarray]) -> None:
        """Replace the parameters; raises ArgumentError."""
        checked = check_model_params(self.spec, params)
        self.arrays = {name: self.parts.asarray(value) for name, value in checked.items()}
        self.changed()

    def changed(self) -> None:
        """Let the recurrent network read the parameters in ``arrays`` again."""
        layered = bool(self.spec.dropout)
        specs = self.spec.layers() if layered else [self.spec.rnn]
        weights = [self._weights_of(place if layered else None) for place in range(len(specs))]
        if not self._networks:
            load = self.backend.load
            self._networks = [load(s, w, threads=self._threads) for s, w in zip(specs, weights, strict=True)]
            return
        for network, own in zip(self._networks, weights, strict=True):
            network.update(own)

    def _weights_of(self, layer: int | None) -> Params:
        weights = {n.removeprefix(RNN): self.parts.to_numpy(a) for n, a in self.arrays.items() if n.startswith(RNN)}
        if layer is None:
            return weights
        return {n.replace(f"_l{layer}", "_l0"): w for n, w in weights.items() if f"_l{layer}_" in f"{n}_"}

    @property
    def takes_lengths(self) -> bool:
        return unsupported_lengths(self.backend, self.spec.rnn) is None

    def forward(self, inputs: np.ndarray, state: State | None = None, lengths: Any = None) -> tuple[np.ndarray, State]:
        """Return the outputs (T, B, O) as a NumPy array, probabilities for cross_entropy, and the final state."""
        y, final = self._network().forward(self._x(inputs), state, *_given(lengths))
        weight, bias = (self.arrays[name] for name in OUTPUT)
        assert self.spec.activation is not None
        outputs = self.parts.outputs(self._to_parts(y), weight, bias, self.spec.activation)
        return self.parts.to_numpy(outputs), final

    def evaluate(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        mask: np.ndarray | None = None,
        state: State | None = None,
        lengths: Any = None,
    ) -> Evaluation:
        """Return the mean loss, without dropout: to the bit that of ``gradients``, at less cost; raises ArgumentError."""
        x = self._x(inputs)
        targets, weights, count = self._targets(inputs, targets, mask)
        y, final = self._network().forward(x, state, *_given(lengths))
        y, (weight, bias) = self._to_parts(y), (self.arrays[name] for name in OUTPUT)
        if self.spec.loss == "cross_entropy":
            return Evaluation(self.parts.cross_entropy_loss(y, weight, bias, targets, weights), count, final)
        assert self.spec.activation is not None
        loss = self.parts.squared_errors_loss(y, weight, bias, self.spec.activation, targets, weights)
        return Evaluation(loss, count, final)

    def gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        mask: np.ndarray | None = None,
        state: State | None = None,
        lengths: Any = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        key: Key | None = None,
    ) -> TrainingPass:
        """Return the mean loss and its gradients, by BPTT over all steps or truncated to ``window`` and ``stride``.

        ``window``, ``stride``: as for ``rnnbench.tbptt``; gradients of all passes are summed.  None is the whole sequence.
        ``key``: integers that the masks of dropout are drawn from; needed where the model has dropout.
        Raises ArgumentError.
        """
        x = self._x(inputs)
        targets, weights, count = self._targets(inputs, targets, mask)
        steps = len(inputs)
        window = steps if window is None else window
        masks = self._masks(key, steps, inputs.shape[1], window, window if stride is None else stride)
        total: OutputGradients | None = None

        def cotangents(y: Array, first: int) -> Array:
            nonlocal total
            part = slice(first, first + y.shape[0])
            found = self._loss(y, targets[part], weights[part])
            total = found if total is None else self._sum(total, found)
            return self._to_backend(found.y)

        _, final, grads = tbptt(self._network(masks), x, cotangents, window, stride, state, lengths=lengths)
        assert total is not None
        result: ModelGradients = {RNN + name: self._to_parts(value) for name, value in grads.params.items()}
        result |= dict(zip(OUTPUT, (total.weight, total.bias), strict=True))
        if self.spec.vocabulary is not None:
            result[EMBEDDING] = self.parts.embedding_gradient(inputs, self._to_parts(grads.x))
        return TrainingPass(total.loss, count, {name: result[name] for name in self.arrays}, final)

    def add(self, total: ModelGradients, term: ModelGradients) -> ModelGradients:
        """Return the sum of the gradients of two passes, for updates over several of them."""
        return {name: self.parts.add(total[name], term[name]) for name in total}

    def gradients_to_numpy(self, gradients: ModelGradients) -> Params:
        """Return gradients as NumPy arrays in the shapes of the parameters."""
        found = {}
        for name, gradient in gradients.items():
            if isinstance(gradient, Rows):
                found[name] = np.zeros(self.spec.param_shapes()[name], self.spec.numpy_dtype)
                found[name][gradient.indices] = self.parts.to_numpy(gradient.values)
            else:
                found[name] = self.parts.to_numpy(gradient)
        return found

    def state_to_numpy(self, state: State) -> tuple[np.ndarray, ...]:
        return tuple(np.array(self.backend.to_numpy(part)) for part in state)

    def state_from_numpy(self, state: tuple[np.ndarray, ...]) -> State:
        return tuple(self.backend.asarray(part) for part in state)

    def _network(self, masks: Sequence[np.ndarray] = ()) -> Any:
        """The recurrent network; one of single layers where the model has dropout, with ``masks`` between them."""
        if not self.spec.dropout:
            return self._networks[0]
        arrays = arrays_of(self._networks[0], self.backend.asarray(np.zeros(1, self.spec.numpy_dtype)))
        return LayeredNetwork(self._networks, arrays, self._scaled, masks)

    def _masks(self, key: Key | None, steps: int, batch: int, window: int, stride: int) -> list[np.ndarray]:
        rate, rnn = self.spec.dropout, self.spec.rnn
        if not rate:
            return []
        if key is None:
            raise ArgumentError(f"key is None and dropout {rate}; expected integers from which the masks are drawn")
        if stride < min(window, steps):
            raise ArgumentError(f"stride is {stride} and window {window}; expected equal ones: dropout draws one mask a step")
        if window < steps and steps % window:
            raise ArgumentError(
                f"window is {window} and T {steps} with dropout {rate}; expected a T that windows divide: the last one would "
                "repeat steps, with other masks"
            )
        shape, dtype = (steps, batch, rnn.features), self.spec.numpy_dtype
        return [draw_mask(key, layer, rate, shape, dtype) for layer in range(rnn.num_layers - 1)]

    def _scaled(self, array: Array, mask: np.ndarray) -> Array:
        return self._to_backend(self.parts.scaled(self._to_parts(array), mask))

    def _x(self, inputs: np.ndarray) -> Array:
        rnn = self.spec.rnn
        if self.spec.vocabulary is None:
            return self.backend.asarray(check_numbers("inputs", inputs, (None, None, rnn.input_size), self.spec.numpy_dtype))
        check_indices("inputs", inputs, self.spec.vocabulary)
        return self._to_backend(self.parts.embedded(self.arrays[EMBEDDING], inputs))

    def _targets(
        self, inputs: np.ndarray, targets: np.ndarray, mask: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The targets, their weights, which sum to 1, and the sum of the mask."""
        shape = inputs.shape[:2]
        if self.spec.loss == "cross_entropy":
            check_indices("targets", targets, self.spec.outputs, shape)
        else:
            shape = (*shape, self.spec.outputs)
            targets = check_numbers("targets", targets, shape, self.spec.numpy_dtype, mask)
        weights, count = check_weights(mask, shape, self.spec.numpy_dtype)
        return targets, weights, count

    def _loss(self, y: Array, targets: np.ndarray, weights: np.ndarray) -> OutputGradients:
        weight, bias = (self.arrays[name] for name in OUTPUT)
        y = self._to_parts(y)
        if self.spec.loss == "cross_entropy":
            return self.parts.cross_entropy(y, weight, bias, targets, weights)
        assert self.spec.activation is not None
        return self.parts.squared_errors(y, weight, bias, self.spec.activation, targets, weights)

    def _sum(self, total: OutputGradients, term: OutputGradients) -> OutputGradients:
        weight, bias = self.parts.add(total.weight, term.weight), self.parts.add(total.bias, term.bias)
        return OutputGradients(total.loss + term.loss, None, weight, bias)

    def _to_parts(self, array: Array) -> Array:
        return array if self._own else self.backend.to_numpy(array)

    def _to_backend(self, array: Array) -> Array:
        return array if self._own else self.backend.asarray(array)


def _given(lengths: Any) -> tuple[Any, ...]:
    """Lengths as the last argument of a network's call, or nothing: not every backend has the argument."""
    return () if lengths is None else (lengths,)


def load_model(spec: ModelSpec, params: Mapping[str, np.ndarray], backend: Any, *, threads: int | None = None) -> Model:
    """Load a model on a backend, given by its name or module.

    Embedding, output layer, loss and optimiser run as the backend's own parts, or, where it has none, as the reference's in
    NumPy (``model.parts.name``).  Raises SpecError, ArgumentError, BackendUnavailable or UnknownBackend.
    """
    if not isinstance(spec, ModelSpec):
        raise SpecError(f"spec is a {type(spec).__name__}; expected a ModelSpec")
    module: Any = load_backend(backend) if isinstance(backend, str) else backend
    reason = module.supports(spec.rnn)
    if reason:
        raise ArgumentError(f"the backend cannot run this network: {reason}")
    own = hasattr(module, "parts")
    parts = (module if own else reference_backend()).parts(spec.rnn.dtype, threads=threads)
    return Model(spec, params, module, parts, own, threads)
