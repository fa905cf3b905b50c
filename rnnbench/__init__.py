"""rnnbench: which recurrent-network implementation is right, and how fast it is, for your shape, on your machine."""

from rnnbench.backend import Backend, Gradients, Listing, Network, State, backends, choosers, load_backend, peers
from rnnbench.errors import (
    ArgumentError,
    BackendUnavailable,
    CaptureError,
    MissingLibrary,
    RnnbenchError,
    SpecError,
    StoreError,
    SuiteError,
    TapeError,
    UnknownBackend,
)
from rnnbench.params import init_params
from rnnbench.results import load_results
from rnnbench.spec import Spec
from rnnbench.truncation import tbptt

__version__ = "0.1.0"

__all__ = [
    "ArgumentError",
    "Backend",
    "BackendUnavailable",
    "CaptureError",
    "Gradients",
    "Listing",
    "MissingLibrary",
    "Network",
    "RnnbenchError",
    "Spec",
    "SpecError",
    "State",
    "StoreError",
    "SuiteError",
    "TapeError",
    "UnknownBackend",
    "backends",
    "choosers",
    "init_params",
    "load_backend",
    "load_results",
    "peers",
    "tbptt",
]
