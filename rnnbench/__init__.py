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
from rnnbench.lazy import lazy_names

if TYPE_CHECKING:
    from rnnbench import check, data, models, reports, studies, training
    from rnnbench.networks import convert
    from rnnbench.networks.contract import Backend, Gradients, Network, State
    from rnnbench.networks.params import init_params
    from rnnbench.networks.registry import Listing, backends, choosers, load_backend, peers
    from rnnbench.networks.spec import Spec
    from rnnbench.networks.truncation import tbptt
    from rnnbench.results.frame import load_results

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
    "data",
    "errors",
    "init_params",
    "load_backend",
    "load_results",
    "models",
    "peers",
    "reports",
    "studies",
    "tbptt",
    "training",
]

_PACKAGES = {name: f"rnnbench.{name}" for name in ("check", "data", "models", "reports", "studies", "training")}
_PACKAGES["convert"] = "rnnbench.networks.convert"

_HOMES = {
    "networks.contract": ("Backend", "Gradients", "Network", "State"),
    "networks.params": ("init_params",),
    "networks.registry": ("Listing", "backends", "choosers", "load_backend", "peers"),
    "networks.spec": ("Spec",),
    "networks.truncation": ("tbptt",),
    "results.frame": ("load_results",),
}
"""Modules and their names; they import NumPy, which the command line's help can do without."""

_lazy_name, _ = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    return importlib.import_module(_PACKAGES[name]) if name in _PACKAGES else _lazy_name(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
