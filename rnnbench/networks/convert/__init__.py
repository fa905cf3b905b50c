"""Lossless conversion of parameters between rnnbench's layout, which is torch.nn's, and torch, ONNX and Keras.

Conversions copy values without arithmetic and keep the dtype, so a round trip is exact to the bit.  There are two
exceptions: ``to_keras`` with ``fold_bias`` adds two biases, and ``from_torch`` computes weights under weight_norm.
Gate orders in storage, with this package's names (ONNX and Keras call g "c" and n "h"):

    cell                      torch, rnnbench   ONNX      Keras     ONNX operator, Keras layer
    elman                     h                 h         h         RNN, SimpleRNN
    lstm                      i f g o           i o f g   i f g o   LSTM, LSTM
    lstm_peephole             i f g o           i o f g             LSTM with P (i o f, here i f o), none
    gru                       r z n             z r n     z r n     GRU linear_before_reset=1, GRU reset_after=True
    gru_reset_before          r z n             z r n     z r n     GRU linear_before_reset=0, GRU reset_after=False

All four libraries define the GRU's new state as h = z h' + (1 - z) n, so no sign changes.  jordan has no counterpart;
torch.nn lacks gru_reset_before, lstm_peephole and elman with sigmoid.
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
