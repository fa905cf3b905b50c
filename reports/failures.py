"""Tables of losses and failures for the page: where the baseline loses, what failed, what was noisy, the largest errors."""

from typing import Any

from rnnbench.compare.intervals import coverage_label
from rnnbench.reports.caveats import NOISY, repeats
from rnnbench.reports.frames import Frames
from rnnbench.reports.rows import Rows, records
from rnnbench.reports.text import cut

MAX_ROWS = 200
"""Maximum number of rows of one table; the page states how many are left out."""

WORST_ERRORS = 20
"""Number of rows in the table of the largest errors."""


def failure_tables(data: Frames) -> dict[str, Any]:
    """The tables of losses and failures, each with the number of rows it leaves out."""
    labels = data.cases[["case", "label"]]
    failures = data.failures.merge(labels, on="case")
    failures["message"] = failures["message"].map(cut)
    worst = data.gates.sort_values("error_over_tolerance", ascending=False, na_position="first").head(WORST_ERRORS)
    worst = worst.merge(labels, on="case")
    noisy = data.cases[data.cases["disturbed"] > NOISY].sort_values("disturbed", ascending=False, kind="stable")
    lost = losses(data)
    unavailable = {name: info["unavailable"] for name, info in data.run.backends.items() if "unavailable" in info}
    return {
        "losses": lost[:MAX_ROWS],
        "held": coverage_label(int(data.summary.loc[data.summary["status"] == "measured", "rounds"].min() if len(lost) else 0)),
        "more_losses": max(0, len(lost) - MAX_ROWS),
        "failures": failures.head(MAX_ROWS).to_dict("records"),
        "more_failures": max(0, len(failures) - MAX_ROWS),
        "noisy": records(noisy.head(MAX_ROWS)[["label", "disturbed"]]),
        "repeats": repeats(data),
        "more_noisy": max(0, len(noisy) - MAX_ROWS),
        "worst": records(worst[["label", "backend", "tensor", "error", "tolerance", "error_over_tolerance"]]),
        "unavailable": unavailable,
    }


def losses(data: Frames) -> Rows:
    """Cases in which the baseline of a device is clearly beaten, largest loss first, with the fastest rival."""
    measured = data.summary[data.summary["status"] == "measured"]
    standing = measured.loc[measured["backend"] == measured["baseline"], ["case", "baseline"]]
    rivals = measured[measured["verdict"] == "faster"].merge(standing, on=["case", "baseline"])
    rivals = rivals.sort_values("speedup", ascending=False, kind="stable").drop_duplicates(["case", "baseline"])
    rivals = rivals.merge(data.cases[["case", "label"]], on="case")
    return records(rivals[["label", "baseline", "backend", "speedup", "speedup_low", "speedup_high"]])
