"""Simulate the coverage of intervals: draw times with a known ratio, and count the intervals that hold it.

The draws are log-medians of processes, as a run stores them, with the imperfections of real times.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from scipy import optimize, stats

from rnnbench.compare.inference import enough, shift_interval
from rnnbench.compare.intervals import MAX_ROUNDS, MIN_ROUNDS, Interval, median_interval, order_statistic

DRAWS = 10_000
BAR = (0.94, 0.97)
"""Range for the share of intervals that hold the ratio."""

ROUNDS = (MIN_ROUNDS, 20, MAX_ROUNDS)
RATIO = 0.03
"""The true log-ratio."""

NOISE = 0.012
"""Standard deviation of log-times between processes, at which a run stops after 12 to 40 rounds."""

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
"""Draws log-times of shape (draws, rounds)."""


class Kind(NamedTuple):
    """One kind of imperfection: draws within-round log-ratios with median 0, and log-times of unpaired runs."""

    name: str
    ratios: Draw
    run: Draw


class Coverage(NamedTuple):
    """The share of intervals that hold the true ratio.

    ``by_rounds``: after fixed numbers of rounds.  ``stopped``: for runs that stop at a narrow interval, after
    ``mean_rounds`` on average.  ``two_runs``: for two unpaired runs of 12 rounds.
    """

    kind: str
    by_rounds: dict[int, float]
    stopped: float
    mean_rounds: float
    two_runs: float
    bar_for_two_runs: bool

    @property
    def passed(self) -> bool:
        shares = [*self.by_rounds.values(), self.stopped, *([self.two_runs] if self.bar_for_two_runs else [])]
        return all(BAR[0] <= share <= BAR[1] for share in shares)


# draws


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return rng.normal(0, NOISE, shape)


def _skewed(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Interference only adds time."""
    return rng.exponential(NOISE, shape)


def _skewed_ratios(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Interference with only one of the two backends leaves skewed ratios."""
    small = NOISE / 4
    middle = float(stats.exponnorm.median(2 * NOISE / small, scale=small))
    return 2 * _skewed(rng, shape) + rng.normal(0, small, shape) - middle


SLOW, SLOW_SHARE = 0.04, 0.3


def _bimodal(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """Three processes in ten get an unlucky layout of memory and run 4% slower."""
    return rng.normal(0, NOISE / 2, shape) + SLOW * (rng.random(shape) < SLOW_SHARE)


def _bimodal_ratios(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    def beyond_half(value: float) -> float:
        fast, slow = (stats.norm.cdf(value - centre, scale=NOISE / 2) for centre in (0.0, SLOW))
        return float((1 - SLOW_SHARE) * fast + SLOW_SHARE * slow - 0.5)

    return _bimodal(rng, shape) - optimize.brentq(beyond_half, -SLOW, SLOW)


def _drifting(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The machine slows by 0.2% per round, plus a random walk of 0.5%."""
    rounds = np.arange(shape[1])
    return 0.002 * rounds + np.cumsum(rng.normal(0, 0.005, shape), axis=1) + rng.normal(0, NOISE, shape)


def _drifting_ratios(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The second backend of a round finds a slightly slower machine; the order alternates."""
    second = np.where(np.arange(shape[1]) % 2, 1, -1) * rng.choice([-1, 1], (shape[0], 1))
    return second * (0.002 + rng.normal(0, 0.005, shape)) / 2 + rng.normal(0, NOISE * 2**0.5, shape)


def _clustered(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """The median of five samples that share the noise of their process."""
    samples = _normal(rng, shape)[..., None] + rng.normal(0, NOISE / 4, (*shape, 5))
    return np.median(samples, axis=-1)


def _clustered_ratios(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return _clustered(rng, shape) - _clustered(rng, shape)


KINDS = (
    Kind("skewed", _skewed_ratios, _skewed),
    Kind("bimodal", _bimodal_ratios, _bimodal),
    Kind("drifting", _drifting_ratios, _drifting),
    Kind("clustered", _clustered_ratios, _clustered),
)

UNPAIRED_FAILS = "drifting"
"""The kind without a bar for two runs: they see different drifts, which no interval from within them can cover."""


# simulation


def coverage(kind: Kind, draws: int = DRAWS, seed: int = 0) -> Coverage:
    """Simulate one kind; equal seeds give equal results."""
    rng = np.random.default_rng([seed, *kind.name.encode()])
    ratios = RATIO + kind.ratios(rng, (draws, MAX_ROUNDS))
    by_rounds = {rounds: _share(median_interval(row[:rounds]) for row in ratios) for rounds in ROUNDS}
    lengths = [next(n for n in range(MIN_ROUNDS, MAX_ROUNDS + 1) if enough(row[:n])) for row in ratios]
    stopped = _share(median_interval(row[:n]) for row, n in zip(ratios, lengths, strict=True))
    one, other = kind.run(rng, (draws, MIN_ROUNDS)), RATIO + kind.run(rng, (draws, MIN_ROUNDS))
    two_runs = _share(shift_interval(a, b) for a, b in zip(one, other, strict=True))
    return Coverage(kind.name, by_rounds, stopped, float(np.mean(lengths)), two_runs, kind.name != UNPAIRED_FAILS)


def _share(intervals: Iterable[Interval]) -> float:
    return float(np.mean([interval.holds(RATIO) for interval in intervals]))


def table(results: list[Coverage], draws: int) -> str:
    """Format a line for each kind, in percent, below the theoretical coverage."""
    rounds = "".join(f"{number:>11} rounds"[-11:] for number in ROUNDS)
    lines = [
        f"share of 95% intervals that hold the true ratio, {draws} draws each; bar: {BAR[0]:.0%} to {BAR[1]:.0%}",
        f"{'':<12}{rounds}   stopped on width   two runs of {MIN_ROUNDS}",
        f"{'in theory':<12}" + "".join(f"{order_statistic(number)[1]:>11.1%}" for number in ROUNDS),
    ]
    for result in results:
        shares = "".join(f"{result.by_rounds[number]:>11.1%}" for number in ROUNDS)
        mark = "" if result.bar_for_two_runs else " *"
        stopped = f"{result.stopped:.1%} ({result.mean_rounds:.0f} rounds)"
        lines.append(f"{result.kind:<12}{shares}{stopped:>19}{result.two_runs:>17.1%}{mark}")
    lines.append(
        "* no bar: two runs at different times do not share the machine's drift; rnnbench compare --commits makes one run"
    )
    return "\n".join(lines)
