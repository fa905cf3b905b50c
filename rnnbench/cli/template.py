"""``rnnbench template``."""

import argparse
from importlib.resources import files

from rnnbench.cli import terminal


def template(options: argparse.Namespace) -> int:
    """Print a complete backend to start from, LSTM and GRU in plain NumPy: rnnbench template > mine.py."""
    terminal.show_document((files("rnnbench.data") / "template.py").read_bytes())
    return 0
