"""Published figures: times that others measured on the same shapes, shown beside own results, never used in a ratio."""

import io
from importlib import resources
from typing import Any

import pandas as pd

from rnnbench.reports.devices import device_text
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import duration

SHAPE = ["cell", "nonlinearity", "phase", "T", "B", "I", "H", "layers", "bidirectional"]
"""Fields in which a figure must match a case; dtype, threads and machine may differ and are shown."""

_TYPES = (
    dict.fromkeys(
        ("source", "url", "hardware", "library", "version", "cell", "nonlinearity", "phase", "dtype", "note"), "object"
    )
    | dict.fromkeys(("T", "B", "I", "H", "layers"), "int64")
    | {"bidirectional": "bool", "seconds": "float64"}
)


def published_figures() -> pd.DataFrame:
    """Every published figure in the package, one per row.

    ``source`` (who and where), ``url``, ``hardware``, ``library``, ``version`` (empty where not stated), the fields of a case
    in ``SHAPE``, ``dtype``, ``seconds`` of one call for the whole batch, and ``note``: how the figure was converted, and how
    its work differs from the case's.
    """
    text = (resources.files("rnnbench.reports") / "published.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text), keep_default_na=False).astype(_TYPES)


def beside_published(data: Frames) -> pd.DataFrame:
    """Published figures that match a timed case with biases and without lengths; one row per case and figure.

    ``case``, ``label``, ``own_backend`` (smallest median time on any device), ``own_device``, ``own_seconds``, and the
    columns of ``published_figures`` that are not in ``SHAPE``.
    """
    found = data.summary
    measured = found[(found["status"] == "measured") & found["bias"] & (found["phase"] != "tbptt") & found["lengths"].isna()]
    own = measured.sort_values("seconds", kind="stable").drop_duplicates("case")
    names = ("backend", "device", "seconds")
    own = own[["case", *SHAPE, *names]].rename(columns={name: f"own_{name}" for name in names})
    own = data.cases[["case", "label"]].merge(own, on="case")
    return own.merge(published_figures(), on=SHAPE).drop(columns=SHAPE)


def published_rows(data: Frames) -> list[dict[str, Any]]:
    """``beside_published`` as text, for the page."""
    return [
        {
            **{str(name): value for name, value in row.items()},
            "own": f"{row['own_backend']}, {duration(row['own_seconds'])}{_on(data, row['own_device'])}",
            "time": duration(row["seconds"]),
            "library": " ".join(part for part in (row["library"], row["version"]) if part),
        }
        for row in beside_published(data).to_dict("records")
    ]


def _on(data: Frames, device: str) -> str:
    return f" on {device_text(device)}" if len(set(data.devices.values())) > 1 else ""
