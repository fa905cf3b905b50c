"""Implementations: one module or package each, all behind the contract of ``rnnbench.networks.contract``."""
