"""``rnnbench template``."""

import argparse
from importlib.resources import files


def template(options: argparse.Namespace) -> int:
    """Print a complete backend to start from, LSTM and GRU in plain NumPy: rnnbench template > mine.py."""
    print((files("rnnbench.data") / "template.py").read_text(encoding="utf-8"), end="")
    return 0
