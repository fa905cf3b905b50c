"""Every cell written in plain torch operations, step by step, with gradients from autograd.

An independent oracle: it shares neither equations nor loops with the other implementations and has no handwritten derivatives.
Arrays are torch.Tensor on the CPU, with any strides; ``asarray`` and ``to_numpy`` copy.  It is not written for speed.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from rnnbench.errors import BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network, State
from rnnbench.networks.spec import Spec

try:
    import torch
    from torch import Tensor, relu, sigmoid, tanh
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"torch_eager needs PyTorch: {how_to_install('torch')}") from error

from rnnbench.impls._torch import AutogradNetwork, asarray, info, supports_lengths, synchronize, thread_limits, to_numpy

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy"]


class Affine(NamedTuple):
    """v (B, in) -> v W^T + bias (B, out)"""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, v: Tensor) -> Tensor:
        return torch.nn.functional.linear(v, self.weight, self.bias)

    def gates(self, count: int) -> list["Affine"]:
        """Split the stacked rows into one map per gate."""
        biases = [None] * count if self.bias is None else self.bias.chunk(count)
        return [Affine(weight, bias) for weight, bias in zip(self.weight.chunk(count), biases, strict=True)]


class Layer(NamedTuple):
    """Maps of one layer and direction: input to hidden, recurrent to hidden and, where it is fed back, to output.

    ``peepholes``: the weights of c in gates i, f and o, (H,) each, or none.
    """

    nonlinearity: Callable[[Tensor], Tensor]
    ih: Callable[[Tensor], Tensor]
    hh: Affine
    output: Affine | None
    peepholes: tuple[Tensor, ...]


def elman(layer: Layer, x: Tensor, h: Tensor) -> State:
    return (layer.nonlinearity(layer.ih(x) + layer.hh(h)),)


def jordan(layer: Layer, x: Tensor, y: Tensor) -> State:
    assert layer.output is not None
    h = layer.nonlinearity(layer.ih(x) + layer.hh(y))
    return (layer.output(h),)


def lstm(layer: Layer, x: Tensor, h: Tensor, c: Tensor) -> State:
    i, f, g, o = (layer.ih(x) + layer.hh(h)).chunk(4, dim=1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    h = sigmoid(o) * tanh(c)
    return layer.output(h) if layer.output else h, c


def lstm_peephole(layer: Layer, x: Tensor, h: Tensor, c: Tensor) -> State:
    p_i, p_f, p_o = layer.peepholes
    i, f, g, o = (layer.ih(x) + layer.hh(h)).chunk(4, dim=1)
    c = sigmoid(f + p_f * c) * c + sigmoid(i + p_i * c) * tanh(g)
    h = sigmoid(o + p_o * c) * tanh(c)
    return layer.output(h) if layer.output else h, c


def gru(layer: Layer, x: Tensor, h: Tensor) -> State:
    a_r, a_z, a_n = layer.ih(x).chunk(3, dim=1)
    b_r, b_z, b_n = layer.hh(h).chunk(3, dim=1)
    r = sigmoid(a_r + b_r)
    z = sigmoid(a_z + b_z)
    n = tanh(a_n + r * b_n)
    return ((1 - z) * n + z * h,)


def gru_reset_before(layer: Layer, x: Tensor, h: Tensor) -> State:
    a_r, a_z, a_n = layer.ih(x).chunk(3, dim=1)
    u_r, u_z, u_n = layer.hh.gates(3)
    r = sigmoid(a_r + u_r(h))
    z = sigmoid(a_z + u_z(h))
    n = tanh(a_n + u_n(r * h))
    return ((1 - z) * n + z * h,)


# (layer, x_t, *state) -> state, whose first part is the layer's output
STEPS: dict[str, Callable[..., State]] = {
    "elman": elman,
    "jordan": jordan,
    "lstm": lstm,
    "lstm_peephole": lstm_peephole,
    "gru": gru,
    "gru_reset_before": gru_reset_before,
}

NONLINEARITIES: dict[str, Callable[[Tensor], Tensor]] = {"tanh": tanh, "relu": relu, "sigmoid": sigmoid}


def over_time(step: Callable[..., State], layer: Layer, x: Tensor, state: State) -> tuple[Tensor, State]:
    """Run x (T, B, I) step by step; returns y (T, B, H) and the final state, each part (B, H)."""
    outputs = []
    for x_t in x.unbind():
        state = step(layer, x_t, *state)
        outputs.append(state[0])
    return torch.stack(outputs), state


def over_lengths(step: Callable[..., State], layer: Layer, x: Tensor, state: State, active: Tensor) -> tuple[Tensor, State]:
    """``over_time``, where a row of ``active`` (T, B, 1) is false: its y is zero, and its state stays."""
    outputs = []
    for x_t, active_t in zip(x.unbind(), active.unbind(), strict=True):
        new = step(layer, x_t, *state)
        outputs.append(torch.where(active_t, new[0], 0))
        state = tuple(torch.where(active_t, after, before) for after, before in zip(new, state, strict=True))
    return torch.stack(outputs), state


class EagerNetwork(AutogradNetwork):
    """Stacked layers and directions around ``STEPS``."""

    def _set_weights(self, weights: dict[str, Tensor]) -> None:
        self._weights = {name: weight.requires_grad_() for name, weight in weights.items()}

    def _run(self, x: Tensor, state: State, lengths: np.ndarray | None = None) -> tuple[Tensor, State]:
        active = None if lengths is None else asarray(np.arange(len(x))[:, None, None] < lengths[:, None], x.device)
        if active is not None:
            x = torch.where(active, x, 0)  # the weights' gradients would be NaN where an unread x is
        finals = []
        for layer in range(self.spec.num_layers):
            outputs = []
            for tail in ("", "_reverse")[: self.spec.directions]:
                index = len(finals)
                y, final = self._layer(f"_l{layer}{tail}", x, tuple(part[index] for part in state), active)
                outputs.append(y)
                finals.append(final)
            x = torch.cat(outputs, dim=2)
        return x, tuple(torch.stack(parts) for parts in zip(*finals, strict=True))

    def _layer(self, suffix: str, x: Tensor, state: State, active: Tensor | None) -> tuple[Tensor, State]:
        """Run one layer in the direction named by its suffix; returns the results of ``over_time``."""
        inputs = [x] if active is None else [x, active]
        if not suffix.endswith("_reverse"):
            return self._forward_in_time(self._maps(suffix), state, *inputs)
        y, state = self._forward_in_time(self._maps(suffix), state, *(part.flip(0) for part in inputs))
        return y.flip(0), state

    def _forward_in_time(self, layer: Layer, state: State, x: Tensor, active: Tensor | None = None) -> tuple[Tensor, State]:
        step = STEPS[self.spec.cell]
        return over_time(step, layer, x, state) if active is None else over_lengths(step, layer, x, state, active)

    def _maps(self, suffix: str) -> Layer:
        return Layer(
            nonlinearity=NONLINEARITIES[self.spec.nonlinearity],
            ih=self._affine("ih", suffix),
            hh=self._affine("hh", suffix),
            output=self._affine(self.spec.kind.output, suffix) if self.spec.kind.output else None,
            peepholes=self._weights[f"weight_ch{suffix}"].chunk(3) if self.spec.kind.peepholes else (),
        )

    def _affine(self, name: str, suffix: str) -> Affine:
        return Affine(self._weights[f"weight_{name}{suffix}"], self._weights.get(f"bias_{name}{suffix}"))


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    return EagerNetwork(spec, params, thread_limits(threads))


def supports(spec: Spec) -> str | None:
    return None
