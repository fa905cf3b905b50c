"""Lossless conversion of parameters between rnnbench's layout, which is torch.nn's, and torch, ONNX and Keras.

Every conversion copies, keeps the dtype and moves values without arithmetic, so that there and back is the same to the
bit, but where ``to_keras`` is told to add two biases and where ``from_torch`` meets normed weights.
Gate orders in storage, with this package's names (ONNX and Keras call g "c" and n "h"):

    cell                      torch, rnnbench   ONNX      Keras     ONNX operator, Keras layer
    elman                     h                 h         h         RNN, SimpleRNN
    lstm                      i f g o           i o f g   i f g o   LSTM, LSTM
    gru                       r z n             z r n     z r n     GRU linear_before_reset=1, GRU reset_after=True
    gru_reset_before          r z n             z r n     z r n     GRU linear_before_reset=0, GRU reset_after=False

All four take the new state as h = z h' + (1 - z) n, so no sign changes.  jordan has no counterpart anywhere;
torch.nn has no gru_reset_before and no sigmoid elman.
Sources: torch.nn.LSTM, torch.nn.GRU; ONNX operators RNN, LSTM, GRU; keras.layers.SimpleRNN, LSTM, GRU.
"""

from rnnbench.networks.convert.keras import from_keras, to_keras
from rnnbench.networks.convert.onnx import OnnxOperator, OnnxWeights, from_onnx, onnx_operator, to_onnx
from rnnbench.networks.convert.torch import from_torch, to_torch

__all__ = [
    "OnnxOperator",
    "OnnxWeights",
    "from_keras",
    "from_onnx",
    "from_torch",
    "onnx_operator",
    "to_keras",
    "to_onnx",
    "to_torch",
]
