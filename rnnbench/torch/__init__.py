"""Drop-in replacements for torch.nn.LSTM, GRU and RNN that run numba_cpu on the CPU."""

from rnnbench.errors import MissingLibrary
from rnnbench.installing import how_to_install

try:
    import torch as _torch  # noqa: F401
except ModuleNotFoundError as error:
    raise MissingLibrary(f"rnnbench.torch needs PyTorch: {how_to_install('torch')}") from error

from rnnbench.torch.conversion import convert, revert
from rnnbench.torch.modules import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "convert", "revert"]
