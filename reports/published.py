"""Published figures: what others measured on the same shapes, with its source; beside own results, never in a ratio."""

import io
from importlib import resources
from typing import Any

import pandas as pd

from rnnbench.reports.devices import in_words
from rnnbench.reports.frames import Frames
from rnnbench.reports.text import duration

SHAPE = ["cell", "nonlinearity", "phase", "T", "B", "I", "H", "layers", "bidirectional"]
"""What has to be the same for a figure to stand beside a case; dtype, threads and machine are told, and may differ."""

_TYPES = (
    dict.fromkeys(
        ("source", "url", "hardware", "library", "version", "cell", "nonlinearity", "phase", "dtype", "note"), "object"
    )
    | dict.fromkeys(("T", "B", "I", "H", "layers"), "int64")
    | {"bidirectional": "bool", "seconds": "float64"}
)


def published_figures() -> pd.DataFrame:
    """Every published figure in the package, a row each.

    ``source`` (who and where), ``url``, ``hardware``, ``library``, ``version`` (empty: not told), the fields of a case in
    ``SHAPE``, ``dtype``, ``seconds`` of one call for the whole batch, and ``note``: how the figure was converted, and in
    what its work differs from the case's.
    """
    text = (resources.files("rnnbench.reports") / "published.csv").read_text(encoding="utf-8")
    return pd.read_csv(io.StringIO(text), keep_default_na=False).astype(_TYPES)


def beside_published(data: Frames) -> pd.DataFrame:
    """The published figures whose shape is that of a timed case with biases; a row per case and figure.

    ``case``, ``label``, ``own_backend`` (the least median time, on whatever device), ``own_device``, ``own_seconds``, and
    the columns of ``published_figures`` that are not the case's.
    """
    measured = data.summary[(data.summary["status"] == "measured") & data.summary["bias"] & (data.summary["phase"] != "tbptt")]
    own = measured.sort_values("seconds", kind="stable").drop_duplicates("case")
    names = ("backend", "device", "seconds")
    own = own[["case", *SHAPE, *names]].rename(columns={name: f"own_{name}" for name in names})
    own = data.cases[["case", "label"]].merge(own, on="case")
    return own.merge(published_figures(), on=SHAPE).drop(columns=SHAPE)


def published_rows(data: Frames) -> list[dict[str, Any]]:
    """The same in words, for the page."""
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
    return f" on {in_words(device)}" if len(set(data.devices.values())) > 1 else ""
