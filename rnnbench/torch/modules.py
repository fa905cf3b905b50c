"""LSTM, GRU and RNN: torch.nn's modules whose forward runs on numba_cpu where it can."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import PackedSequence

from rnnbench.networks.spec import Spec
from rnnbench.torch import where
from rnnbench.torch.arrays import DTYPES
from rnnbench.torch.autograd import run
from rnnbench.torch.layer import Layer

_CELLS = {"LSTM": ("lstm", "tanh"), "GRU": ("gru", "tanh"), "RNN_TANH": ("elman", "tanh"), "RNN_RELU": ("elman", "relu")}


class _DropIn(torch.nn.RNNBase):
    """What the drop-ins have in common: the mixin before torch.nn's class."""

    @property
    def runs_on(self) -> str:
        """``"numba_cpu"``, or ``"torch.nn: "`` and the reason.

        It tells of the last call; before the first, of a call with an input that fits the weights.
        """
        reason = vars(self).get("_reason", "")
        if reason == "":
            self._update_flat_weights()
            reason = where.surroundings() or where.weights(self._flat_weights)
        return "numba_cpu" if reason is None else f"torch.nn: {reason}"

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  # torch.nn's name
        weights = self._current_weights()
        state = (hx if self.mode == "LSTM" else (hx,)) if hx is not None else None
        reason = where.surroundings() or where.weights(weights)
        if reason is None:
            reason = self._refusal(input, state, weights[0].dtype)
        vars(self)["_reason"] = reason
        if reason is not None:
            return super().forward(input, hx)
        if isinstance(input, PackedSequence):
            return self._on_packed(input, state, weights)
        unbatched = input.dim() == 2
        if unbatched:
            input, state = input[:, None], state and [part[:, None] for part in state]
        elif self.batch_first:
            input = input.transpose(0, 1)
        y, final = self._stack(input, state, weights)
        if unbatched:
            y, final = y[:, 0], [part[:, 0] for part in final]
        elif self.batch_first:
            y = y.transpose(0, 1)
        return y, self._joined(final)

    def _on_packed(self, packed: PackedSequence, state: Any, weights: Sequence[torch.Tensor]) -> tuple[Any, Any]:
        data, batch_sizes, order, back = packed
        padded, lengths = torch._pad_packed_sequence(data, batch_sizes, False, 0.0, -1)
        if state is not None and order is not None:
            state = [part.index_select(1, order) for part in state]
        y, final = self._stack(padded, state, weights, lengths)
        if back is not None:
            final = [part.index_select(1, back) for part in final]
        y, _ = torch._pack_padded_sequence(y, lengths, False)
        return PackedSequence(y, batch_sizes, order, back), self._joined(final)

    def _stack(
        self, x: torch.Tensor, state: Any, weights: Sequence[torch.Tensor], lengths: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Sequence[torch.Tensor]]:
        """Run all layers on x (T, B, I), with dropout between them."""
        directions = 2 if self.bidirectional else 1
        each = len(weights) // self.num_layers
        finals = []
        for k, layer in enumerate(self._layers(weights[0].dtype)):
            own = state and [part[k * directions : (k + 1) * directions] for part in state]
            x, *final = run(layer, weights[k * each : (k + 1) * each], x, own, None if lengths is None else lengths.numpy())
            finals.append(final)
            if self.dropout and self.training and k + 1 < self.num_layers:
                x = self._dropped(x, lengths)
        return x, finals[0] if len(finals) == 1 else [torch.cat(parts) for parts in zip(*finals, strict=True)]

    def _dropped(self, x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Dropout with the same random numbers as torch.nn's, which drops out of packed sequences."""
        if lengths is None:
            return torch.dropout(x, self.dropout, True)
        data, batch_sizes = torch._pack_padded_sequence(x, lengths, False)
        return torch._pad_packed_sequence(torch.dropout(data, self.dropout, True), batch_sizes, False, 0.0, len(x))[0]

    def _joined(self, final: Sequence[torch.Tensor]) -> Any:
        return tuple(final) if self.mode == "LSTM" else final[0]

    def _current_weights(self) -> list[torch.Tensor]:
        """``_flat_weights``, which torch updates more slowly."""
        flat, parameters = self._flat_weights, self._parameters
        for name, weight in zip(self._flat_weights_names, flat, strict=True):
            if parameters.get(name) is not weight:
                self._update_flat_weights()
                return self._flat_weights
        return flat

    def _layers(self, dtype: torch.dtype) -> list[Layer]:
        layers = vars(self).get("_layers_of", {})
        if dtype not in layers:
            layers = vars(self)["_layers_of"] = {**layers, dtype: [Layer(spec) for spec in self._specs(DTYPES[dtype])]}
        return layers[dtype]

    def _specs(self, dtype: str) -> list[Spec]:
        cell, nonlinearity = _CELLS[self.mode]
        sizes = [self.input_size] + [(self.proj_size or self.hidden_size) * (1 + self.bidirectional)] * (self.num_layers - 1)
        options = {"bidirectional": self.bidirectional, "bias": self.bias, "projection_size": self.proj_size or None}
        return [Spec(cell, size, self.hidden_size, nonlinearity=nonlinearity, dtype=dtype, **options) for size in sizes]

    def _refusal(self, given: Any, state: Any, dtype: torch.dtype) -> str | None:
        """Why numba_cpu does not run these arguments, or None; torch refuses some of them too, with its own message."""
        if isinstance(given, PackedSequence):
            data, batch = given.data, int(given.batch_sizes[0])
            reason = where.argument(data, dtype, (None, self.input_size))
            axes = (batch,)
        else:
            dims = given.dim() if isinstance(given, torch.Tensor) else 3
            reason = where.argument(given, dtype, (None,) * min(dims - 1, 2) + (self.input_size,))
            axes = () if dims == 2 or reason else (given.shape[0 if self.batch_first else 1],)
        if reason is not None or state is None:
            return reason
        if not isinstance(state, tuple | list) or len(state) != 1 + (self.mode == "LSTM"):
            return f"hx is a {type(state).__name__}"
        count = self.num_layers * (1 + self.bidirectional)
        widths = (self.proj_size or self.hidden_size, self.hidden_size)
        reasons = (where.argument(part, dtype, (count, *axes, size)) for part, size in zip(state, widths, strict=False))
        return next((reason for reason in reasons if reason is not None), None)


class LSTM(_DropIn, torch.nn.LSTM):
    """LSTM"""


class GRU(_DropIn, torch.nn.GRU):
    """GRU"""


class RNN(_DropIn, torch.nn.RNN):
    """RNN"""
