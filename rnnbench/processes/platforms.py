"""The operating systems that are supported: checks and runs rest on what these do with processes, signals and locks."""

import sys

from rnnbench.errors import UnsupportedSystem

SUPPORTED = {"linux": "Linux", "darwin": "macOS"}


def require_supported() -> None:
    """Raise UnsupportedSystem elsewhere: there process groups, their signals or locks of files are missing."""
    if sys.platform not in SUPPORTED:
        raise UnsupportedSystem(
            f"this system is {sys.platform}; expected {' or '.join(SUPPORTED.values())}: backends run in process groups "
            "that are ended by signals (on Windows use WSL)"
        )
