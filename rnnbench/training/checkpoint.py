"""Checkpoints: all that a training run needs to continue, in one .npz file without pickle, replaced atomically."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rnnbench.errors import StoreError
from rnnbench.networks.params import Params
from rnnbench.results.disk import save

FORMAT = "rnnbench training checkpoint 1"

LAST, BEST = "last.npz", "best.npz"
"""The checkpoints in a run's folder: of the last steps, and of the lowest validation loss."""

_GROUPS = ("params", "optimiser", "state")


@dataclass(frozen=True)
class Checkpoint:
    """A run after ``step`` steps.

    ``params``, ``optimiser``: NumPy arrays by name, of a model and its optimiser.
    ``state``: the state that the next batch starts from; empty for zeros.
    ``best``, ``waited``: the lowest validation loss, and the number of evaluations since it.
    ``seconds``: the time spent training.
    ``facts``: what JSON can hold: the run's config, and what its task adds, such as a vocabulary.
    """

    step: int
    params: Params
    optimiser: Params
    state: tuple[np.ndarray, ...] = ()
    best: float | None = None
    waited: int = 0
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; the one before it stays until the new one is complete on disk.  Raises StoreError."""
    head = {
        "format": FORMAT,
        "step": checkpoint.step,
        "best": checkpoint.best,
        "waited": checkpoint.waited,
        "seconds": checkpoint.seconds,
        "facts": dict(checkpoint.facts),
    }
    arrays = {f"params/{name}": value for name, value in checkpoint.params.items()}
    arrays |= {f"optimiser/{name}": value for name, value in checkpoint.optimiser.items()}
    arrays |= {f"state/{place}": value for place, value in enumerate(checkpoint.state)}
    content = io.BytesIO()
    arrays["head"] = np.array(json.dumps(head | {"arrays": list(arrays)}))
    np.savez(content, allow_pickle=False, **arrays)  # type: ignore[arg-type]  # names with a slash
    save(path, [content.getbuffer()])  # type: ignore[list-item]  # a view of bytes


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read a checkpoint, or the last one in a run's folder; raises StoreError for a missing, broken or foreign file."""
    path = Path(path)
    if path.is_dir():
        path = path / LAST
    try:
        content = io.BytesIO(path.read_bytes())
    except FileNotFoundError:
        raise StoreError(f"no checkpoint {path}; expected a run's folder, or one of its files {LAST} and {BEST}") from None
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    try:
        arrays = _arrays(content)
    except Exception as error:  # zipfile, zlib and NumPy raise many kinds for damaged files
        raise StoreError(f"{path} is no checkpoint, or broken: {error}") from None
    try:
        return _checkpoint(arrays)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{path} is no checkpoint of rnnbench: {error}") from None


def best_of(path: Path) -> Path:
    """The checkpoint itself, or the best one of a run's folder, or its last one before the first evaluation."""
    return path / (BEST if (path / BEST).exists() else LAST) if path.is_dir() else path


def _arrays(content: io.BytesIO) -> Params:
    with zipfile.ZipFile(content) as archive:
        damaged = archive.testzip()  # NumPy does not notice a shape that has become smaller
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
    content.seek(0)
    with np.load(content, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _checkpoint(arrays: Params) -> Checkpoint:
    if "head" not in arrays:
        raise ValueError("it has no array 'head'")
    head = json.loads(str(arrays.pop("head")))
    if not isinstance(head, dict) or head.get("format") != FORMAT:
        raise ValueError(f"its format is {head.get('format') if isinstance(head, dict) else head!r}; expected {FORMAT!r}")
    if list(arrays) != head["arrays"]:  # a damaged table of contents
        raise ValueError(f"it has {len(arrays)} arrays; expected {len(head['arrays'])}")
    found: dict[str, Params] = {group: {} for group in _GROUPS}
    for name, value in arrays.items():
        group, _, rest = name.partition("/")
        found[group][rest] = value
    state = tuple(found["state"][str(place)] for place in range(len(found["state"])))
    numbers = int(head["step"]), found["params"], found["optimiser"], state
    best = None if head["best"] is None else float(head["best"])
    return Checkpoint(*numbers, best, int(head["waited"]), float(head["seconds"]), dict(head["facts"]))
