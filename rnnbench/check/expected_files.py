"""Files of expected results: one process computes them, and the processes that check backends read them."""

from pathlib import Path

import numpy as np

from rnnbench.check.problem import Rows
from rnnbench.check.tolerance import Expected


def save_expected(path: Path, wanted: Expected) -> None:
    """Write expected values, tolerances and rows to an .npz file."""
    arrays = {f"value {name}": value for name, value in wanted.values.items()}
    arrays |= {f"tolerance {name}": value for name, value in wanted.tolerances.items()}
    arrays |= {f"row {name}": value for name, value in wanted.rows._asdict().items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # the stubs take the arrays for the option allow_pickle


def load_expected(path: Path) -> Expected:
    """Read a file of ``save_expected``, without unpickling."""
    parts: dict[str, dict[str, np.ndarray]] = {"value": {}, "tolerance": {}, "row": {}}
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            part, _, name = key.partition(" ")
            parts[part][name] = file[key]
    return Expected(parts["value"], parts["tolerance"], Rows(**parts["row"]))
