"""What a study gives: runs and their summary as tables, curves to draw, and its conclusion in one sentence."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from rnnbench.compare.intervals import median_interval
from rnnbench.errors import ArgumentError, MissingLibrary
from rnnbench.installing import how_to_install
from rnnbench.machine.facts import environment
from rnnbench.models.model import Model, load_model
from rnnbench.models.spec import ModelSpec, init_model_params
from rnnbench.training.config import Config

if TYPE_CHECKING:
    import pandas as pd

Report = Callable[[int, int, str], None]
"""Takes the number of runs done, of all runs, and a few words."""


class Curve(NamedTuple):
    """Columns of a study's table to draw: ``y`` over ``x``, with a line for each value of ``series``.

    ``low``, ``high``: the ends of an interval of y; where y is ``series``, of x, which is drawn as a point for each name.
    ``log_x``, ``log_y``: logarithmic axes.
    """

    title: str
    caption: str
    x: str
    y: str
    series: str
    low: str | None = None
    high: str | None = None
    log_x: bool = False
    log_y: bool = False


@dataclass(frozen=True, eq=False)
class Study:
    """A finished study.

    ``runs``: a row for each run.  ``table``: the same summarised over seeds.  ``settings``: what repeats it, and the machine.
    """

    name: str
    title: str
    conclusion: str
    runs: "pd.DataFrame"
    table: "pd.DataFrame"
    curves: tuple[Curve, ...]
    settings: dict[str, Any]


def frame(rows: Iterable[dict[str, Any]]) -> "pd.DataFrame":
    """Rows as a table; raises MissingLibrary without pandas."""
    try:
        import pandas as pd
    except ImportError:
        raise MissingLibrary(f"studies need pandas: {how_to_install('report')}") from None
    return pd.DataFrame(list(rows))


def summarised(runs: "pd.DataFrame", keys: Sequence[str], with_interval: str, medians: Sequence[str] = ()) -> "pd.DataFrame":
    """A row for each combination of ``keys``, in the order of the runs: medians over the other columns' runs.

    ``with_interval``: a column that also gets its interval (``NAME_low``, ``NAME_high``) and ``coverage``, the probability
    that such an interval holds the median: 95% from 6 runs on.
    """
    rows = []
    for values, group in runs.groupby(list(keys), sort=False):
        found = median_interval(group[with_interval])
        row = dict(zip(keys, values, strict=True)) | {with_interval: found.median}
        row |= {f"{with_interval}_low": found.low, f"{with_interval}_high": found.high, "coverage": found.coverage}
        rows.append(row | {name: group[name].median() for name in medians} | {"runs": len(group)})
    return frame(rows)


def require_seeds(seeds: int) -> int:
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ArgumentError(f"seeds is {seeds!r}; expected an integer from 1 on")
    return seeds


def new_model(spec: ModelSpec, config: Config, seed: int, backend: str | None = None) -> Model:
    """A model with the initial parameters of a seed."""
    return load_model(spec, init_model_params(spec, seed), backend or config.backend, threads=config.threads)


def settings_of(config: Config | None = None, **own: Any) -> dict[str, Any]:
    """What repeats a study, and where it ran."""
    facts = environment()
    machine = {"machine": facts["cpu"], "cores": facts["cores"], "python": facts["python"]}
    return own | machine | {"versions": facts["versions"]} | ({} if config is None else {"config": config.to_dict()})
