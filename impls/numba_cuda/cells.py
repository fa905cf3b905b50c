"""The cells that the kernels run."""

from rnnbench.networks.cells import CELLS as ALL
from rnnbench.networks.cells import Cell


def why_not(cell: Cell) -> str | None:
    """Return the reason why the kernels do not run a cell, or None."""
    return "numba_cuda has no peepholes yet." if cell.peepholes else None


CELLS = {name: cell for name, cell in ALL.items() if why_not(cell) is None}
