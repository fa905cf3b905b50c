"""Metrics of a training run: a JSON object per line, the first one about the run, one for each step and each evaluation."""

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rnnbench.errors import MissingLibrary, StoreError
from rnnbench.installing import how_to_install
from rnnbench.results.disk import make_folder, open_claimed, replace
from rnnbench.results.rows import Row

if TYPE_CHECKING:
    import pandas as pd

METRICS = "metrics.jsonl"


class Training(Row, frozen=True):
    """The first row: the config, the backend's facts and the machine."""

    started: str  # ISO 8601, UTC
    config: dict[str, Any]
    backend: dict[str, Any]
    environment: dict[str, Any]
    schema: int = 1


class Metric(Row, frozen=True):
    """A loss after ``step`` steps; ``tokens``: the number of targets that counted; ``seconds``: spent training so far.

    ``split``: "train" for the loss of that step's batch before its update, "validation", or "test".
    """

    step: int
    split: str
    loss: float
    tokens: float
    seconds: float
    tokens_per_second: float | None = None
    rate: float | None = None


class MetricsFile:
    """Appends rows to a run's metrics; other processes cannot until it is closed.

    ``step``: resuming, rows of later steps are removed, and a torn last line.  Raises StoreError.
    """

    def __init__(self, folder: Path, step: int | None = None) -> None:
        self.path = folder / METRICS
        try:
            make_folder(folder)
            if step is not None and self.path.exists():
                open_claimed(self.path, "r+b").close()
                replace(self.path, _rows_until(self.path, step))
            self._file = open_claimed(self.path, "xb" if step is None else "ab")
        except FileExistsError:
            raise StoreError(f"{self.path} exists; expected a folder without a run, or --resume to go on with it") from None
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error

    @property
    def empty(self) -> bool:
        return not self._file.seek(0, os.SEEK_END)

    def append(self, row: Row) -> None:
        """Append a row; it survives the end of this process, and after ``sync`` that of the machine.  Raises StoreError."""
        line = memoryview(msgspec.json.encode(row) + b"\n")
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error

    def sync(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise StoreError(f"cannot write {self.path}: {error.strerror}") from error

    def close(self) -> None:
        self._file.close()


def _rows_until(path: Path, step: int) -> list[bytes]:
    kept = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if line.endswith(b"\n") and isinstance(row, dict) and row.get("step", 0) <= step and row.get("split") != "test":
            kept.append(line)
    return kept


def read_metrics(folder: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a run's metrics, the first one about the run; a torn last line is left out.  Raises StoreError."""
    path = Path(folder) / METRICS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from None
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            rows.append(json.loads(line))
        except ValueError:
            raise StoreError(f"{path}:{number} is no JSON object; expected rows of a training run") from None
    return rows


def load_metrics(folder: str | Path) -> "pd.DataFrame":
    """Return a run's metrics as a table: step, split, loss, tokens, seconds, tokens_per_second, rate.

    Raises StoreError, and MissingLibrary without pandas.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingLibrary(f"metrics as a table need pandas: {how_to_install('report')}") from None
    rows = [row for row in read_metrics(folder) if row.get("kind") == "metric"]
    return pd.DataFrame(rows, columns=list(Metric.__struct_fields__))


def per_second(tokens: float, seconds: float) -> float | None:
    return tokens / seconds if seconds > 0 and math.isfinite(tokens) else None
