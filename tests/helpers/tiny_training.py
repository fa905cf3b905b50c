"""Training runs that take a blink: a text, a series and sequences of a few numbers, and networks as small."""

from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.training import Config, read_checkpoint
from rnnbench.training.metrics import read_metrics

TEXT = "to be, or not to be: that is the question.\n" * 12


def text_file(folder: Path, text: str = TEXT) -> str:
    (folder / "tiny.txt").write_text(text)
    return str(folder / "tiny.txt")


def series_file(folder: Path, rows: int = 120) -> str:
    """A sine with a season of 12 rows, and a gap."""
    lines = [f"{t},{np.sin(t * np.pi / 6) + 0.01 * t:.4f}" for t in range(rows)]
    if rows > 20:
        lines[17] = "17,"
    (folder / "tiny.csv").write_text("\n".join(["day,level", *lines]) + "\n")
    return str(folder / "tiny.csv")


def sequences_file(folder: Path, each: int = 12) -> str:
    """Two classes, rising and falling, in sequences of 2 to 4 steps."""
    lines = ["@univariate true", "@classLabel true up down", "@data"]
    for place in range(each):
        for sign, name in ((1, "up"), (-1, "down")):
            numbers = (f"{sign * (t + 0.1 * place):g}" for t in range(2 + place % 3))
            lines.append(f"{','.join(numbers)}:{name}")
    (folder / "tiny.ts").write_text("\n".join(lines) + "\n")
    return str(folder / "tiny.ts")


FILES = {"lm": text_file, "forecast": series_file, "classify": sequences_file}

DATA: dict[str, dict[str, Any]] = {
    "lm": {"batch": 3, "steps": 8, "parts": [0.6, 0.2, 0.2]},
    "forecast": {"batch": 4, "steps": 6, "horizon": 3, "period": 12},
    "classify": {"batch": 4, "folds": 2},
}


def tiny(folder: Path, task: str = "lm", backend: str = "numpy_ref", **changes: dict[str, Any]) -> Config:
    """The config of a tiny run; ``changes`` by section."""
    given: dict[str, Any] = {
        "task": task,
        "backend": backend,
        "seed": 3,
        "threads": 1,
        "data": {"name": FILES[task](folder), **DATA[task]},
        "model": {"cell": "elman", "hidden": 4, "embedding": 3},
        "optimiser": {"rate": 0.01, "clip_norm": 1.0, "schedule": "cosine"},
        "training": {"steps": 12, "evaluate": 4, "checkpoint": 3},
    }
    for section, values in changes.items():
        given[section] = {**given.get(section, {}), **values}
    return Config.from_dict(given)


def losses(folder: Path) -> list[tuple[int, str, float]]:
    """Step, split and loss of each row."""
    return [(row["step"], row["split"], row["loss"]) for row in read_metrics(folder) if row["kind"] == "metric"]


def arrays(folder: Path, name: str = "last.npz") -> dict[str, np.ndarray]:
    """All arrays of a checkpoint."""
    stored = read_checkpoint(folder / name)
    states = {f"state {place}": part for place, part in enumerate(stored.state)}
    return {**stored.params, **{f"optimiser {name}": value for name, value in stored.optimiser.items()}, **states}
