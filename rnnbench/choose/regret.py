"""The regret of choices: each stored shape in turn is left out, chosen for, and compared with its measurement."""

from statistics import geometric_mean
from typing import NamedTuple

from rnnbench.choose.choose import Measurements
from rnnbench.compare.intervals import median_interval
from rnnbench.compare.verdicts import RANKING_BAND
from rnnbench.errors import StoreError
from rnnbench.suite.case import Case


class Trial(NamedTuple):
    """One left-out shape; ``ratio`` is the measured time of the chosen backend over that of the best, >= 1."""

    case: Case
    chosen: str
    best: str
    ratio: float


class Regret(NamedTuple):
    """The outcome of all trials.

    ``trials``: one for each case with two or more measured backends.  ``inside``: how many of the ``predicted`` intervals
    hold the measured median.  ``always``: for each backend that ran every case, the geometric mean ratio of always choosing
    it.  ``skipped``: cases for which nothing could be chosen.
    """

    trials: list[Trial]
    inside: int
    predicted: int
    always: dict[str, float]
    skipped: list[Case]

    @property
    def mean(self) -> float:
        """The geometric mean of the ratios."""
        return geometric_mean([trial.ratio for trial in self.trials])

    @property
    def close(self) -> float:
        """The fraction of trials within 5% of the best."""
        return sum(trial.ratio <= 1 + RANKING_BAND for trial in self.trials) / len(self.trials)


def regret(measurements: Measurements) -> Regret:
    """Leave out each case, choose, and compare with its measurement; raises StoreError if no case qualifies."""
    times: dict[Case, dict[str, float]] = {}
    for row in measurements.rows():
        if not row.failure:
            times.setdefault(row.case, {})[row.backend] = median_interval(row.rounds)[0]
    trials, skipped, ratios = [], [], {}
    inside = predicted = 0
    for case, seconds in times.items():
        if len(seconds) < 2:
            continue
        predictions, _ = measurements.without(case).predictions(case)
        known = [prediction for prediction in predictions if prediction.backend in seconds]
        if not known:
            skipped.append(case)
            continue
        predicted += len(known)
        inside += sum(prediction.low <= seconds[prediction.backend] <= prediction.high for prediction in known)
        best = min(seconds, key=seconds.__getitem__)
        trials.append(Trial(case, known[0].backend, best, seconds[known[0].backend] / seconds[best]))
        for backend, value in seconds.items():
            ratios.setdefault(backend, []).append(value / seconds[best])
    if not trials:
        raise StoreError("no regret can be told: no case has two measured backends and another measured shape")
    always = {name: geometric_mean(values) for name, values in ratios.items() if len(values) == len(trials)}
    return Regret(trials, inside, predicted, dict(sorted(always.items(), key=lambda item: item[1])), skipped)
