"""torch.nn.RNN, LSTM and GRU as shipped: what most people use.

Sequences of different lengths are packed, with ``pack_padded_sequence``, and unpacked at each call.
Arrays are torch.Tensor on the CPU, with any strides; ``asarray`` and ``to_numpy`` copy.  Gradients come from autograd.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rnnbench.errors import ArgumentError, BackendUnavailable
from rnnbench.installing import how_to_install
from rnnbench.networks.checked import checked_load
from rnnbench.networks.contract import Network, State
from rnnbench.networks.spec import Spec
from rnnbench.networks.stream import Stream
from rnnbench.networks.threads import Limits

try:
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
except ModuleNotFoundError as error:
    raise BackendUnavailable(f"torch_nn needs PyTorch: {how_to_install('torch')}") from error

from rnnbench.impls._torch import (
    CPU,
    AutogradNetwork,
    asarray,
    info,
    supports_lengths,
    synchronize,
    thread_limits,
    to_numpy,
    undisturbed,
)

__all__ = ["asarray", "info", "load", "supports", "supports_lengths", "synchronize", "to_numpy"]


class ModuleNetwork(AutogradNetwork):
    """A torch.nn module behind the contract, in training mode only where gradients are wanted, as in common use."""

    def __init__(self, spec: Spec, params: Mapping[str, np.ndarray], limits: Limits, device: torch.device = CPU) -> None:
        self._module = _module(spec)
        super().__init__(spec, params, limits, device)

    def _set_weights(self, weights: dict[str, torch.Tensor]) -> None:
        self._module.load_state_dict(weights, assign=True)
        self._module.flatten_parameters()  # one contiguous piece, or cuDNN would copy the weights at every call
        self._weights = dict(self._module.named_parameters())

    def _run(self, x: torch.Tensor, state: State, lengths: np.ndarray | None = None) -> tuple[torch.Tensor, State]:
        self._module.training = torch.is_grad_enabled()
        if lengths is None:
            return self._module_on(x, state)
        if lengths.all():
            return self._packed(x, state, lengths)
        return self._without_empty_rows(x, state, lengths)

    def _module_on(self, x: torch.Tensor | PackedSequence, state: State) -> tuple[Any, State]:
        if self.spec.cell == "lstm":
            return self._module(x, state)
        y, h = self._module(x, state[0])
        return y, (h,)

    def _packed(self, x: torch.Tensor, state: State, lengths: np.ndarray) -> tuple[torch.Tensor, State]:
        y, final = self._module_on(pack_padded_sequence(x, torch.from_numpy(lengths), enforce_sorted=False), state)
        return pad_packed_sequence(y, total_length=len(x))[0], final

    def _without_empty_rows(self, x: torch.Tensor, state: State, lengths: np.ndarray) -> tuple[torch.Tensor, State]:
        """Run the rows of at least one step, which is what PyTorch packs; the others keep their state, and their y is zero."""
        y = x.new_zeros((*x.shape[:2], self.spec.features))
        rows = torch.from_numpy(np.flatnonzero(lengths)).to(x.device)
        if len(rows) == 0:
            return y, tuple(part.clone() for part in state)
        of_rows = tuple(part.index_select(1, rows) for part in state)
        outputs, final = self._packed(x.index_select(1, rows), of_rows, lengths[lengths > 0])
        whole = tuple(part.index_copy(1, rows, new) for part, new in zip(state, final, strict=True))
        return y.index_copy(1, rows, outputs), whole

    def _stream(self, batch_size: int, state: State | None) -> Stream:
        if self.spec.projection_size is not None:  # torch.lstm_cell has none
            return super()._stream(batch_size, state)
        return CellStream(self, batch_size, state)


class CellStream(Stream):
    """A stream of the functions behind torch.nn.LSTMCell, GRUCell and RNNCell, which take a step sooner than the modules."""

    _state: list[Any]

    def __init__(self, network: ModuleNetwork, batch_size: int, state: State | None) -> None:
        spec = network.spec
        self._cell = getattr(torch, f"{spec.cell}_cell" if spec.cell != "elman" else f"rnn_{spec.nonlinearity}_cell")
        self._names = [[name + suffix for name in spec.layer_shapes(0)] for suffix in spec.suffixes()]
        super().__init__(network, batch_size, state)

    def _step(self, x_t: torch.Tensor) -> torch.Tensor:
        network, y = self._network, x_t
        with network.limits(), undisturbed(), torch.no_grad():
            for layer, names in enumerate(self._names):
                new = self._cell(y, self._state[layer], *(network._weights[name] for name in names))
                self._state[layer], y = new, new[0] if isinstance(new, tuple) else new
            return y.clone()  # the next step reads the state

    def _read(self) -> State:
        with undisturbed():
            parts = zip(*(state if isinstance(state, tuple) else (state,) for state in self._state), strict=True)
            return tuple(torch.stack(part) for part in parts)

    def _write(self, state: State) -> None:
        by_layer: Any = zip(*state, strict=True)
        self._state = [part if len(part) > 1 else part[0] for part in by_layer]


def _module(spec: Spec) -> torch.nn.RNNBase:
    """The module of a supported spec, without weights: on the meta device it does not advance torch's random generator."""
    sizes = {"input_size": spec.input_size, "hidden_size": spec.hidden_size, "num_layers": spec.num_layers}
    options = {"bias": spec.bias, "bidirectional": spec.bidirectional, "dtype": getattr(torch, spec.dtype), "device": "meta"}
    if spec.cell == "lstm":
        return torch.nn.LSTM(**sizes, **options, proj_size=spec.projection_size or 0)
    if spec.cell == "gru":
        return torch.nn.GRU(**sizes, **options)
    return torch.nn.RNN(**sizes, **options, nonlinearity=spec.nonlinearity)


@checked_load
def load(spec: Spec, params: Mapping[str, np.ndarray], *, threads: int | None = None) -> Network:
    """Build the module with copies of ``params``; raises ArgumentError for networks that ``supports`` rejects."""
    reason = supports(spec)
    if reason:
        raise ArgumentError(f"torch_nn cannot run this network: {reason}")
    return ModuleNetwork(spec, params, thread_limits(threads))


def supports(spec: Spec) -> str | None:
    if spec.kind.output == "ho":
        return "torch.nn has no network that feeds back its output, as jordan does."
    if spec.kind.peepholes:
        return f"torch.nn.LSTM has no peepholes, as {spec.cell} does."
    if spec.cell == "gru_reset_before":
        return "torch.nn.GRU applies its reset gate after the recurrent product, gru_reset_before before it."
    if spec.projection_size == spec.hidden_size:
        return "torch.nn.LSTM needs a projection smaller than the hidden size."
    if spec.nonlinearity == "sigmoid":
        return "torch.nn.RNN has the nonlinearities tanh and relu, not sigmoid."
    return None
