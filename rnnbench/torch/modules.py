"""LSTM, GRU and RNN: torch.nn's modules whose forward runs on numba_cpu where it can."""

import copy
from collections.abc import Sequence
from typing import Any

import torch

from rnnbench.torch import where
from rnnbench.torch.stack import RunLayer, in_a_graph, layers_of, run_stack
from rnnbench.torch.untraced import untraced

_UNCALLED = object()


class _DropIn(torch.nn.RNNBase):
    """What the drop-ins have in common; torch.nn's class follows it among the bases."""

    own_class: type[torch.nn.RNNBase]
    """torch.nn's class."""

    @property
    def runs_on(self) -> str:
        """Where the last call ran, ``"numba_cpu"`` or ``"torch.nn: "`` and the reason.

        Before the first call: where a call would run whose arguments have the weights' dtype and device.
        """
        reason = vars(self).get("_reason", _UNCALLED)
        if reason is _UNCALLED:
            weights = self._current_weights()
            reason = where.surroundings() or where.weights(weights) or where.computed(where.dtypes(weights[0].dtype)[0])
        return "numba_cpu" if reason is None else f"torch.nn: {reason}"

    def forward(self, input: Any, hx: Any = None) -> Any:  # noqa: A002  # torch.nn's name
        """Compute what torch.nn's module computes."""
        if torch.compiler.is_compiling():
            return in_a_graph(self, input, hx) if where.fits_a_graph(self, input) else super().forward(input, hx)
        return self._now(input, hx)

    @untraced
    def _now(self, given: Any, hx: Any) -> Any:
        weights = self._current_weights()
        reason = where.surroundings() or where.weights(weights)
        if reason is None:
            dtype, allowed = where.dtypes(weights[0].dtype)
            reason = where.computed(dtype) or where.arguments(self, given, hx, allowed)
            if reason is None:
                vars(self)["_reason"] = None
                return run_stack(self, self._layers(dtype), given, hx, weights, dtype)
        vars(self)["_reason"] = reason
        return super().forward(given, hx)

    def _current_weights(self) -> Sequence[Any]:
        """``_flat_weights``, brought up to date where another tensor has a weight's name."""
        parameters, flat = self._parameters, self._flat_weights
        for name, weight in zip(self._flat_weights_names, flat, strict=True):
            if parameters.get(name) is not weight:
                self._update_flat_weights()
                return self._flat_weights
        return flat

    def _layers(self, dtype: torch.dtype) -> list[RunLayer]:
        by_dtype = vars(self).get("_layers_by_dtype", {})
        if dtype not in by_dtype:
            by_dtype = vars(self)["_layers_by_dtype"] = {**by_dtype, dtype: layers_of(self, dtype)}
        return by_dtype[dtype]

    def __getstate__(self) -> dict[str, Any]:
        state = super().__getstate__()
        for name in ("_layers_by_dtype", "_reason"):  # copies load networks of their own
            state.pop(name, None)
        return state

    def __prepare_scriptable__(self) -> torch.nn.RNNBase:
        """torch.nn's module with the same parameters, which torch.jit.script compiles in the place of this one."""
        own: Any = copy.copy(self)
        own.__class__ = self.own_class
        return own


class LSTM(_DropIn, torch.nn.LSTM):
    """torch.nn.LSTM, with the same arguments, parameters and results, which runs numba_cpu where it can.

    It runs numba_cpu for plain tensors of float32, float64 or bfloat16 on the CPU, in training and inference, with every option
    of the module, and inside CPU autocast to bfloat16.  Everywhere else it runs torch.nn's own forward: on other devices, for
    other dtypes, subclasses of Tensor and empty batches, under torch.func, forward-mode differentiation, dispatch modes and
    torch.jit.  ``runs_on`` tells where the last call ran, and why.  Invalid arguments are refused by torch.nn, in its words.

    The number of threads is ``torch.get_num_threads()``.  Gradients of gradients are computed by torch's operations.
    """

    own_class = torch.nn.LSTM


class GRU(_DropIn, torch.nn.GRU):
    """torch.nn.GRU in the same way; see ``LSTM``."""

    own_class = torch.nn.GRU


class RNN(_DropIn, torch.nn.RNN):
    """torch.nn.RNN in the same way, with tanh or relu; see ``LSTM``."""

    own_class = torch.nn.RNN
