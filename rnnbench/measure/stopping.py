"""When a case has been measured in enough rounds."""

import statistics
from collections.abc import Iterable

from rnnbench.measure.plan import Settings
from rnnbench.measure.statistics import enough, log_ratios
from rnnbench.store import Case, Time


class Measured:
    """The seconds per call of each backend, round by round, as they come in."""

    def __init__(self) -> None:
        self._seconds: dict[Case, dict[str, dict[int, float]]] = {}

    def add(self, row: Time) -> None:
        """Take a row in; of two about one round the later one counts."""
        by_round = self._seconds.setdefault(row.case, {}).setdefault(row.backend, {})
        by_round[row.round] = statistics.median(row.samples)

    def asks_for(self, case: Case, number: int, settings: Settings, backends: Iterable[str]) -> bool:
        """Whether a case is to be measured in round ``number``, judged by the rounds before that one.

        It is in the first ``settings.rounds``; then, up to ``settings.most_rounds``, while the ratio of one of
        ``backends`` to the fastest of them is not known well enough (``statistics.enough``).  A backend alone has no ratio.
        """
        if number < settings.rounds or number >= settings.most:
            return number < settings.rounds
        found = self._seconds.get(case, {})
        times = [{n: s for n, s in found.get(name, {}).items() if n < number} for name in backends]
        times = sorted((one for one in times if one), key=lambda one: statistics.median(one.values()))
        return any(not enough(log_ratios(times[0], other)) for other in times[1:])
