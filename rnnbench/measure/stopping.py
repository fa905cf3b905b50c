"""When a case has been measured in enough rounds."""

import statistics
from collections.abc import Iterable

from rnnbench.compare.inference import enough, log_ratios
from rnnbench.measure.plan import Settings
from rnnbench.results.rows import Time
from rnnbench.suite.case import Case


class RoundHistory:
    """The samples of each backend, in seconds per call, round by round, as they come in."""

    def __init__(self) -> None:
        self._samples: dict[Case, dict[str, dict[int, list[float]]]] = {}

    def add(self, row: Time) -> None:
        """Take a row in; of two about one round the later one counts."""
        self._samples.setdefault(row.case, {}).setdefault(row.backend, {})[row.round] = row.samples

    def asks_for(self, case: Case, number: int, settings: Settings, backends: Iterable[str]) -> bool:
        """Whether a case is to be measured in round ``number``, judged by the rounds before that one.

        It is in the first ``settings.rounds``; then, up to ``settings.most_rounds``, while the ratio of one of
        ``backends`` to the fastest of them is not known well enough (``statistics.enough``).  A backend alone has no ratio.
        """
        if number < settings.rounds or number >= settings.most:
            return number < settings.rounds
        found = self._samples.get(case, {})
        before = [{n: samples for n, samples in found.get(name, {}).items() if n < number} for name in backends]
        fastest, *others = sorted(filter(None, before), key=_seconds) or [{}]
        return any(not enough(log_ratios(fastest, other)) for other in others)


def _seconds(rounds: dict[int, list[float]]) -> float:
    return statistics.median(map(statistics.median, rounds.values()))
