"""A second, plain implementation of models and optimisers in float64, which shares no formula with ``rnnbench.models``.

Embeddings are products with one-hot vectors, losses and Adam are written as in their texts, and nothing is fused or stable.
Only the recurrent networks are the reference's, which the check compares on its own.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from rnnbench.models.spec import ModelSpec
from rnnbench.networks.contract import State
from rnnbench.networks.params import Params
from rnnbench.networks.registry import reference_backend
from rnnbench.networks.truncation import tbptt


class Pass(NamedTuple):
    """The mean loss, its gradients by parameter, the outputs and the final state of one pass."""

    loss: float
    gradients: Params
    outputs: np.ndarray
    state: State


def run_pass(
    spec: ModelSpec,
    params: Params,
    inputs: np.ndarray,
    targets: np.ndarray,
    mask: np.ndarray,
    state: State | None,
    window: int | None,
    stride: int | None,
    dropped: Sequence[np.ndarray],
) -> Pass:
    """Run forward and BPTT; ``dropped`` are the masks between layers, and ``mask`` has the shape of the losses."""
    weight, bias = params["output.weight"], params["output.bias"]
    table = params.get("embedding.weight")
    one_hot = None if table is None else np.eye(len(table))[inputs]
    x = inputs if one_hot is None or table is None else one_hot @ table
    share = mask / mask.sum()
    found: dict[str, list[Any]] = {"loss": [], "outputs": [], "weight": [], "bias": []}

    def cotangents(y: np.ndarray, first: int) -> np.ndarray:
        part = slice(first, first + len(y))
        outputs, loss, dz = _loss(spec, y @ weight.T + bias, targets[part], share[part])
        found["loss"].append(loss)
        found["outputs"].append(outputs)
        found["weight"].append(np.einsum("tbo,tbf->of", dz, y))
        found["bias"].append(dz.sum((0, 1)))
        return dz @ weight

    if dropped:
        rnn, dx, final = _layered(spec, params, x, cotangents, state, dropped)
    else:
        own = {n.removeprefix("rnn."): p for n, p in params.items() if n.startswith("rnn.")}
        net = reference_backend().load(spec.rnn, own)
        _, final, grads = tbptt(net, x, cotangents, window or len(x), stride, state)
        rnn, dx = grads.params, grads.x
    gradients = {f"rnn.{name}": value for name, value in rnn.items()}
    gradients |= {"output.weight": sum(found["weight"]), "output.bias": sum(found["bias"])}
    if one_hot is not None:
        gradients["embedding.weight"] = np.einsum("tbv,tbe->ve", one_hot, dx)
    return Pass(sum(found["loss"]), {name: gradients[name] for name in params}, np.concatenate(found["outputs"]), final)


def _loss(spec: ModelSpec, z: np.ndarray, targets: np.ndarray, share: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """The outputs, the weighted loss and its derivative with respect to z."""
    if spec.loss == "cross_entropy":
        outputs = np.exp(z) / np.exp(z).sum(2, keepdims=True)
        expected = np.eye(spec.outputs)[targets]
        return outputs, float(-(share[..., None] * expected * np.log(outputs)).sum()), share[..., None] * (outputs - expected)
    outputs, slope = {
        "identity": lambda: (z, np.ones_like(z)),
        "tanh": lambda: (np.tanh(z), 1 / np.cosh(z) ** 2),
        "sigmoid": lambda: (1 / (1 + np.exp(-z)), np.exp(-z) / (1 + np.exp(-z)) ** 2),
    }[str(spec.activation)]()
    return outputs, float((share * (outputs - targets) ** 2).sum()), 2 * share * (outputs - targets) * slope


def _layered(
    spec: ModelSpec,
    params: Params,
    x: np.ndarray,
    cotangents: Callable[[np.ndarray, int], np.ndarray],
    state: State | None,
    dropped: Sequence[np.ndarray],
) -> tuple[Params, np.ndarray, State]:
    """Full BPTT through one network a layer, with ``dropped`` between them."""
    backend, rnn = reference_backend(), spec.rnn
    nets, tapes, finals = [], [], []
    for layer, own in enumerate(spec.layers()):
        names = [name for name in rnn.param_shapes() if name.endswith((f"_l{layer}", f"_l{layer}_reverse"))]
        nets.append(backend.load(own, {name.replace(f"_l{layer}", "_l0"): params[f"rnn.{name}"] for name in names}))
        before = None if state is None else tuple(part[layer * rnn.directions : (layer + 1) * rnn.directions] for part in state)
        x, final, tape = nets[-1].record(x, before)
        if layer < len(dropped):
            x = x * dropped[layer]
        tapes.append(tape)
        finals.append(final)
    dy, grads = cotangents(x, 0), {}
    for layer in reversed(range(rnn.num_layers)):
        if layer < len(dropped):
            dy = dy * dropped[layer]
        of_layer = nets[layer].backward(tapes[layer], dy)
        grads |= {name.replace("_l0", f"_l{layer}"): value for name, value in of_layer.params.items()}
        dy = of_layer.x
    return grads, dy, tuple(np.concatenate(parts) for parts in zip(*finals, strict=True))


@dataclass(frozen=True)
class Optimising:
    """An optimiser by its name, with the options of ``rnnbench.models``."""

    name: str
    options: Mapping[str, Any] = field(hash=False)


class Descent:
    """The update of all parameters, as the texts write it."""

    def __init__(self, optimising: Optimising, params: Params) -> None:
        self._name, self._options, self.params, self._t = optimising.name, optimising.options, dict(params), 0
        self._v = {name: np.zeros_like(value) for name, value in params.items()}
        self._s = {name: np.zeros_like(value) for name, value in params.items()}

    def step(self, gradients: Params) -> None:
        options, self._t = self._options, self._t + 1
        if "clip_norm" in options:
            norm = np.linalg.norm(np.concatenate([value.ravel() for value in gradients.values()]))
            gradients = {name: value * min(1.0, options["clip_norm"] / norm) for name, value in gradients.items()}
        if "clip_value" in options:
            limit = options["clip_value"]
            gradients = {name: np.maximum(np.minimum(value, limit), -limit) for name, value in gradients.items()}
        for name, gradient in gradients.items():
            self.params[name] = (self._sgd if self._name == "sgd" else self._adam)(name, self.params[name], gradient)

    def _sgd(self, name: str, parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Nesterov's look-ahead is the step that the next velocity would take without a new gradient."""
        mu = self._options.get("momentum", 0.0)
        self._v[name] = mu * self._v[name] + gradient
        ahead = gradient + mu * self._v[name] if self._options.get("nesterov") else self._v[name]
        return parameter - self._options["rate"] * ahead

    def _adam(self, name: str, parameter: np.ndarray, gradient: np.ndarray) -> np.ndarray:
        """Algorithm 1 of Kingma and Ba 2015, and the decay of Loshchilov and Hutter 2019."""
        b1, b2 = self._options.get("betas", (0.9, 0.999))
        self._v[name] = b1 * self._v[name] + (1 - b1) * gradient
        self._s[name] = b2 * self._s[name] + (1 - b2) * gradient**2
        first, second = self._v[name] / (1 - b1**self._t), self._s[name] / (1 - b2**self._t)
        rate = self._options["rate"]
        decayed = parameter - rate * self._options.get("weight_decay", 0.0) * parameter
        return decayed - rate * first / (np.sqrt(second) + self._options["epsilon"])
