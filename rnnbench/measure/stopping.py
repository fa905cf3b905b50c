"""Decide when a case has been measured in enough rounds."""

import statistics
from collections.abc import Iterable

from rnnbench.compare.inference import enough, log_ratios
from rnnbench.measure.plan import Settings
from rnnbench.results.rows import Time
from rnnbench.suite.case import Case


class RoundHistory:
    """The samples of each backend by round, in seconds per call."""

    def __init__(self) -> None:
        self._samples: dict[Case, dict[str, dict[int, list[float]]]] = {}

    def add(self, row: Time) -> None:
        """Add a row; it replaces an earlier one of the same round."""
        self._samples.setdefault(row.case, {}).setdefault(row.backend, {})[row.round] = row.samples

    def seconds(self, case: Case, backend: str) -> float | None:
        """Return the median over rounds, in seconds per call; None where nothing was measured."""
        found = self._samples.get(case, {}).get(backend)
        return _seconds(found) if found else None

    def needs_round(self, case: Case, number: int, settings: Settings, backends: Iterable[str]) -> bool:
        """Return whether a case is to be measured in round ``number``, judged by the rounds before.

        Every case is in the first ``settings.rounds``.  It stays, up to ``settings.most_rounds``, while the ratio of one of
        ``backends`` to the fastest is not precise enough (``inference.enough``).  A single backend has no ratio.
        """
        if number < settings.rounds or number >= settings.most:
            return number < settings.rounds
        found = self._samples.get(case, {})
        before = [{n: samples for n, samples in found.get(name, {}).items() if n < number} for name in backends]
        fastest, *others = sorted(filter(None, before), key=_seconds) or [{}]
        return any(not enough(log_ratios(fastest, other)) for other in others)


def _seconds(rounds: dict[int, list[float]]) -> float:
    return statistics.median(map(statistics.median, rounds.values()))
