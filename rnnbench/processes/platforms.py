"""The supported operating systems: checks and runs rely on their process groups, signals and file locks."""

import sys

from rnnbench.errors import UnsupportedSystem

SUPPORTED = {"linux": "Linux", "darwin": "macOS"}


def require_supported() -> None:
    """Raise UnsupportedSystem on systems without process groups, their signals or file locks."""
    if sys.platform not in SUPPORTED:
        raise UnsupportedSystem(
            f"this system is {sys.platform}; expected {' or '.join(SUPPORTED.values())}: backends run in process groups "
            "that are ended by signals (on Windows use WSL)"
        )
