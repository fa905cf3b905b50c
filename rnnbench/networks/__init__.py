"""Recurrent networks: their description, equations and parameters, and the contract that every backend fulfils.

``CheckedNetwork``, ``StackedNetwork`` and ``checked_load`` are what a backend of your own may build on.
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
