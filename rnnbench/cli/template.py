"""``rnnbench template``: a backend to start from."""

from rnnbench.cli import terminal
from rnnbench.cli.common import OK


def template() -> int:
    """Print a complete backend to start from: LSTM and GRU in NumPy.

    Examples:
    $ rnnbench template > mine.py
    $ rnnbench check mine.py
    """
    from importlib.resources import files

    terminal.show_document((files("rnnbench.data") / "template.py").read_bytes())
    return OK
