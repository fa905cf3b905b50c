"""Models of torch.nn's modules to models of drop-ins, and back."""

from typing import TypeVar

import torch

from rnnbench.errors import ArgumentError
from rnnbench.torch.modules import GRU, LSTM, RNN

Model = TypeVar("Model", bound=torch.nn.Module)

_DROP_INS: dict[type, type] = {torch.nn.LSTM: LSTM, torch.nn.GRU: GRU, torch.nn.RNN: RNN}


def convert(model: Model) -> Model:
    """Make every torch.nn.LSTM, GRU and RNN inside a model, or the model itself, a drop-in, in place; return the model.

    Modules, parameters, buffers and hooks stay the same objects, so optimisers and references from elsewhere keep working.
    Instances of other subclasses are left alone: they may compute something else.  Raises ArgumentError.
    """
    return _exchanged(model, _DROP_INS)


def revert(model: Model) -> Model:
    """Undo ``convert``: make every drop-in inside a model, or the model itself, torch.nn's module; return the model."""
    return _exchanged(model, {drop_in: own for own, drop_in in _DROP_INS.items()})


def _exchanged(model: Model, classes: dict[type, type]) -> Model:
    if not isinstance(model, torch.nn.Module):
        raise ArgumentError(f"model is a {type(model).__module__}.{type(model).__name__}; expected a torch.nn.Module")
    for module in model.modules():
        if type(module) in classes:
            module.__class__ = classes[type(module)]
    return model
