"""Recurrent networks: description, equations, parameters, and the contract of a backend.

Your own backend may build on ``CheckedNetwork``, ``StackedNetwork`` and ``checked_load``.
"""

from rnnbench.networks.checked import CheckedNetwork, checked_load
from rnnbench.networks.contract import Backend, Gradients, Network, State
from rnnbench.networks.params import init_params
from rnnbench.networks.spec import Spec
from rnnbench.networks.stacked import StackedNetwork
from rnnbench.networks.truncation import tbptt

__all__ = [
    "Backend",
    "CheckedNetwork",
    "Gradients",
    "Network",
    "Spec",
    "StackedNetwork",
    "State",
    "checked_load",
    "init_params",
    "tbptt",
]
