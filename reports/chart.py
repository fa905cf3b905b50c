"""The record of one chart, from which the page, the gallery and the exported files are derived."""

from collections.abc import Callable
from typing import Any, NamedTuple

import altair as alt
import pandas as pd

from rnnbench.reports.frames import Frames

AltairChart = alt.FacetChart | alt.LayerChart


class Picture(NamedTuple):
    """A drawn chart with its texts.

    ``dataset``: name of the rows that it reads.
    ``overlay``: name of a second set of rows, drawn over the first, that belongs to no case.
    ``sweep``: kind of sweep of which one is shown at a time (a key of ``sweeps.AXES``, or "roofline").
    ``phase``: the only phase shown; None follows the phase picked on the page.
    ``tiles``: field along the columns of a map, whose tiles the page resizes and whose values depend on the baseline.
    ``fitted``: whether the page shows fitted exponents below the chart.
    """

    name: str
    title: str
    caption: str
    dataset: str
    chart: AltairChart
    sweep: str | None = None
    phase: str | None = None
    overlay: str | None = None
    tiles: str | None = None
    fitted: bool = False


class Inputs(NamedTuple):
    """What charts are drawn from: frames, cases (``rows.case_rows``) and the backends to show."""

    data: Frames
    cases: list[dict[str, Any]]
    backends: list[str]

    @property
    def measured(self) -> pd.DataFrame:
        """Rows of ``Frames.summary`` that have a time."""
        return self.data.summary[self.data.summary["status"] == "measured"]

    def swept(self, sweep: str) -> bool:
        """Whether any case belongs to a sweep of this kind."""
        return any(case[f"sweep_{sweep}"] is not None for case in self.cases)


class Chart(NamedTuple):
    """The one place that describes a chart of the report page; ``charts.CHARTS`` lists all of them.

    ``section``: id of the page's section (``charts.SECTIONS``, or "correctness").
    ``draw``: builds the Altair chart; called only where ``applies`` is true.
    ``missing``: why the chart is left out, to follow its title; None where its absence is not worth a notice.
    ``caption``: text, or a function of the inputs.  The other fields are those of ``Picture``.
    """

    name: str
    title: str
    caption: str | Callable[[Inputs], str]
    section: str
    dataset: str
    draw: Callable[[Inputs], AltairChart]
    applies: Callable[[Inputs], bool]
    missing: Callable[[Inputs], str | None]
    sweep: str | None = None
    phase: str | None = None
    overlay: str | None = None
    tiles: str | None = None
    fitted: bool = False

    def picture(self, inputs: Inputs) -> Picture:
        return Picture(
            self.name,
            self.title,
            self.caption if isinstance(self.caption, str) else self.caption(inputs),
            self.dataset,
            self.draw(inputs),
            sweep=self.sweep,
            phase=self.phase,
            overlay=self.overlay,
            tiles=self.tiles,
            fitted=self.fitted,
        )


def filled_by(suite: str) -> Callable[[Inputs], str]:
    """``Chart.missing`` of a chart whose data the suite of that name measures."""
    return lambda _inputs: f"nothing to draw in this run; the suite {suite} would fill it."
