"""Recurrent networks: description, equations, parameters, and the contract of a backend.

Your own backend may build on ``CheckedNetwork``, ``StackedNetwork`` and ``checked_load``.
"""

from typing import TYPE_CHECKING

from rnnbench.lazy import lazy_names

if TYPE_CHECKING:
    from rnnbench.networks.checked import CheckedNetwork, checked_load
    from rnnbench.networks.contract import Backend, Gradients, Network, State
    from rnnbench.networks.params import init_params
    from rnnbench.networks.spec import Spec
    from rnnbench.networks.stacked import StackedNetwork
    from rnnbench.networks.stream import Stream
    from rnnbench.networks.truncation import tbptt

__all__ = [
    "Backend",
    "CheckedNetwork",
    "Gradients",
    "Network",
    "Spec",
    "StackedNetwork",
    "State",
    "Stream",
    "checked_load",
    "init_params",
    "tbptt",
]

_HOMES = {
    "checked": ("CheckedNetwork", "checked_load"),
    "contract": ("Backend", "Gradients", "Network", "State"),
    "params": ("init_params",),
    "spec": ("Spec",),
    "stacked": ("StackedNetwork",),
    "stream": ("Stream",),
    "truncation": ("tbptt",),
}
"""The module of each name; they import NumPy, which a list of cells can do without."""

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
