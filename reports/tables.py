"""Winners and scaling exponents as frames, for notebooks."""

import pandas as pd

from rnnbench.reports.frames import Frames
from rnnbench.reports.sweeps import scaling, sweeps
from rnnbench.reports.winners import winners


def fastest(data: Frames) -> pd.DataFrame:
    """The fastest backend of each case and device, and whether the lead is clear.

    ``case``, ``backend`` (smallest median time), ``tied`` (backends tied with it), ``outcome`` (its name where the lead is
    clear, else "same", "unclear" or "alone"), ``device``, and the columns of ``Frames.cases``.
    """
    return winners(data)


def scaling_exponents(data: Frames) -> pd.DataFrame:
    """Fitted exponent of the time per step over T, H and window, for each line that the page draws.

    ``picture`` ("T", "H" or "window"), ``sweep`` (its number), ``fixed`` (what all cases of the sweep share), ``cell``,
    ``backend``, ``exponent``, ``low``, ``high`` (95%; NaN below three points, or below 6 rounds of one), ``points``.
    """
    groups = sweeps(data.cases)
    table = scaling(data.summary, groups)
    fixed = [
        ", ".join(part for part in (groups.labels[str(picture)][sweep], groups.common[str(picture)]) if part)
        for picture, sweep in zip(table["picture"], table["sweep"], strict=True)
    ]
    table.insert(2, "fixed", pd.Series(fixed, index=table.index, dtype="object"))
    return table
