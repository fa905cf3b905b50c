"""Studies of what recurrent networks do, on any backend."""

from rnnbench.studies.gradient_flow import gradient_flow

__all__ = ["gradient_flow"]
