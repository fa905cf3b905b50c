"""rnnbench: which recurrent-network implementation is right, and how fast it is, for your shape, on your machine."""

import importlib
from typing import TYPE_CHECKING, Any

from rnnbench import errors
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
from rnnbench.networks.contract import Backend, Gradients, Network, State
from rnnbench.networks.params import init_params
from rnnbench.networks.registry import Listing, backends, choosers, load_backend, peers
from rnnbench.networks.spec import Spec
from rnnbench.networks.truncation import tbptt
from rnnbench.results.frame import load_results

if TYPE_CHECKING:
    from rnnbench import check, reports
    from rnnbench.networks import convert

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
    "check",
    "choosers",
    "convert",
    "errors",
    "init_params",
    "load_backend",
    "load_results",
    "peers",
    "reports",
    "tbptt",
]

_ON_DEMAND = {"check": "rnnbench.check", "convert": "rnnbench.networks.convert", "reports": "rnnbench.reports"}
"""Packages that take a while to import, and that few programs need."""


def __getattr__(name: str) -> Any:
    if name in _ON_DEMAND:
        return importlib.import_module(_ON_DEMAND[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
