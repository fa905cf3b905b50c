"""Which backend is fastest for a shape, from the results that this machine has stored.

A shape is (T, B, H, I); all other fields of a case (cell, phase, layers, directions, nonlinearity, bias, dtype, threads, ...)
have to be the same for a result to count.  Of a backend's results on one case the newest run's count, whatever its commit.
"""

import math
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from rnnbench.choose.predict import predict
from rnnbench.compare.intervals import median_interval
from rnnbench.errors import StoreError
from rnnbench.networks.contract import CPU, device_of
from rnnbench.networks.registry import CHOOSERS
from rnnbench.results.reader import Contents, read
from rnnbench.results.valid import failures, medians, times
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.text import count, duration

NEAREST = 3
"""A backend that failed on one of so many shapes nearest to the wanted one is not chosen for it."""

SIZES = ("T", "B", "H", "I")
_OTHERS = tuple(name for name in Case.__struct_fields__ if name not in SIZES)
_UNKNOWN_NOISE = 0.1  # deviation of log seconds between rounds, where a single round cannot tell


class Result(NamedTuple):
    """One backend's result on one case: ``rounds``, seconds per call of each round; or ``failure``, why there is none."""

    case: Case
    backend: str
    rounds: tuple[float, ...]
    failure: str | None
    run: str
    device: str = CPU


class Prediction(NamedTuple):
    """What a backend is expected to take for a case on its device: seconds per call with an interval meant to hold 95%.

    ``how``: "measured" (the median over ``rounds`` rounds of ``run`` and its order-statistic interval), "interpolated", or
    "extrapolated" where the case lies outside the hull of ``cases``, the measured ones that it comes from, nearest first.
    """

    backend: str
    seconds: float
    low: float
    high: float
    how: str
    cases: tuple[Case, ...]
    rounds: int = 0
    run: str = ""
    device: str = CPU

    def __str__(self) -> str:
        if self.how == "measured":
            return f"measured, {count(self.rounds, 'round')} of {self.run}"
        return f"{self.how} from {count(len(self.cases), 'shape')}, the nearest {_shape(self.cases[0])}"


@dataclass(frozen=True)
class Choice:
    """The backend to use for a case; ``why`` is one sentence made from the data.

    ``seconds``, ``low`` and ``high`` are None where nothing is known, and the choice then is a default that ``why`` states.
    ``predictions``: of all backends that could be chosen, fastest first; ``excluded``: why others could not, by name.
    """

    case: Case
    backend: str
    why: str
    seconds: float | None = None
    low: float | None = None
    high: float | None = None
    runner_up: str | None = None
    shapes: tuple[Case, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    excluded: dict[str, str] = field(default_factory=dict)


class Measurements:
    """The results of one machine, by what has to be the same, by backend and by case."""

    def __init__(self, contents: Iterable[Contents], problems: Iterable[str] = ()) -> None:
        self.problems = list(problems)
        self._groups: dict[tuple, dict[str, dict[Case, Result]]] = {}
        for content in sorted(contents, key=lambda content: content.run.started, reverse=True):
            self.problems += content.problems
            for row in _measured(content):
                group = self._groups.setdefault(_group(row.case), {})
                group.setdefault(row.backend, {}).setdefault(row.case, row)

    def rows(self) -> list[Result]:
        return [row for group in self._groups.values() for rows in group.values() for row in rows.values()]

    def without(self, case: Case) -> "Measurements":
        """The same as if this case had never been measured."""
        kept = Measurements(())
        kept._groups = dict(self._groups)
        kept._groups[_group(case)] = {
            backend: {other: row for other, row in rows.items() if other != case}
            for backend, rows in self._groups[_group(case)].items()
        }
        return kept

    def serve(self, case: Case) -> bool:
        """Whether there is any result, or failure, of this case or of another shape of its kind."""
        return any(self._groups.get(_group(_usual(case)), {}).values())

    def threads(self, case: Case) -> int | None:
        """The number of threads nearest to the case's with which there are results that serve it; None for none."""
        kind, place = _group(_usual(case)), _OTHERS.index("threads")
        others = {group[place] for group in self._groups if group == (*kind[:place], group[place], *kind[place + 1 :])}
        served = [number for number in others if self.serve(msgspec.structs.replace(case, threads=number))]
        return min(served, key=lambda number: (abs(math.log2(number / case.threads)), number), default=None)

    def predictions(self, case: Case) -> tuple[list[Prediction], dict[str, str]]:
        """What each backend is expected to take, fastest first, and why others are not to be chosen, by name."""
        case, found, excluded = _usual(case), [], {}
        for backend, rows in self._groups.get(_group(case), {}).items():
            nearest = sorted(rows.values(), key=lambda row: _distance(row.case, case))
            tried = nearest[:1] if case in rows else nearest[:NEAREST]
            failed = next((row for row in tried if row.failure), None)
            if failed and failed.failure:
                excluded[backend] = failed.failure + ("" if failed.case == case else f" (at {_shape(failed.case)})")
            elif nearest:
                found.append(_prediction(backend, [row for row in nearest if not row.failure], case))
        return sorted(found, key=lambda prediction: prediction.seconds), excluded

    def choose(self, case: Case, refuse: Callable[[str], str | None] | None = None) -> Choice:
        """The backend with the least expected time among those that ``refuse`` has no reason against.

        ``refuse`` is asked for the fastest one, and on until it answers None.  Raises StoreError where no backend is left.
        """
        predictions, excluded = self.predictions(case)
        while refuse and predictions and (reason := refuse(predictions[0].backend)):
            excluded[predictions.pop(0).backend] = reason
        if not predictions:
            reasons = "; ".join(f"{backend}: {reason}" for backend, reason in excluded.items())
            raise StoreError(
                f"no backend can be chosen for {case.label()}: {reasons}" if reasons else f"no result serves {case.label()}"
            )
        first, *others = predictions
        return Choice(
            case,
            first.backend,
            _why(first, others[0] if others else None),
            first.seconds,
            first.low,
            first.high,
            others[0].backend if others else None,
            first.cases,
            tuple(predictions),
            excluded,
        )


def stored(files: Iterable[Path], machine: str) -> Measurements:
    """What results files hold that was measured on ``machine``; files that do not read are told in ``problems``."""
    contents, problems = [], []
    for file in files:
        try:
            content = read(file)
        except StoreError as error:
            problems.append(str(error))
            continue
        if content.run.environment.get("machine") == machine:
            contents.append(content)
    return Measurements(contents, problems)


def _measured(content: Contents) -> list[Result]:
    """What a file says of each case and backend; a failure to measure memory leaves the times alone."""
    found, failed = times(content), failures(content)
    devices = {name: device_of(facts) for name, facts in content.run.backends.items()}
    choosers = {entry.name for entry in entry_points(group=CHOOSERS)}
    return [
        Result(
            _usual(case),
            backend,
            tuple(medians(found.get((case, backend), {}))),
            failed.get((case, backend)),
            content.run.run,
            devices.get(backend, CPU),
        )
        for case, backend in dict.fromkeys([*failed, *found])
        if backend not in choosers
    ]


def _usual(case: Case) -> Case:
    """The same case; an output as wide as the hidden state is the usual one, however it was asked for."""
    return msgspec.structs.replace(case, output_size=None) if case.output_size == case.H else case


def _group(case: Case) -> tuple:
    """All that has to be the same."""
    return tuple(getattr(case, name) for name in _OTHERS)


def _sizes(case: Case) -> list[int]:
    return [getattr(case, name) for name in SIZES]


def _distance(a: Case, b: Case) -> float:
    """Euclidean, in doublings."""
    return math.dist([math.log2(size) for size in _sizes(a)], [math.log2(size) for size in _sizes(b)])


def _prediction(backend: str, rows: list[Result], case: Case) -> Prediction:
    """From rows without failures, nearest first."""
    if rows[0].case == case:
        found = rows[0]
        middle, low, high, _ = median_interval(found.rounds)
        rounds, run = len(found.rounds), found.run
        return Prediction(backend, middle, low, high, "measured", (case,), rounds, run, found.device)
    predicted = predict(
        np.array([_sizes(row.case) for row in rows], float),
        np.array([statistics.median(row.rounds) for row in rows]),
        np.array([_noise(row.rounds) for row in rows]),
        np.array([float(estimate(row.case).flops) for row in rows]),
        np.array(_sizes(case), float),
        float(estimate(case).flops),
    )
    how = "interpolated" if predicted.inside else "extrapolated"
    used = tuple(rows[index].case for index in predicted.used)
    device = rows[0].device
    return Prediction(backend, predicted.seconds, predicted.low, predicted.high, how, used, device=device)


def _noise(rounds: tuple[float, ...]) -> float:
    """Standard deviation of the logarithm of the median over rounds, sqrt(pi / 2) that of the mean; at least 0.5%."""
    spread = statistics.stdev(map(math.log, rounds)) if len(rounds) > 1 else _UNKNOWN_NOISE
    return max(math.sqrt(math.pi / 2 / len(rounds)) * spread, 0.005)


def _why(first: Prediction, second: Prediction | None) -> str:
    names = [first.backend, second.backend if second else ""]
    if second and first.device != second.device:
        names = [f"{first.backend} on {first.device}", f"{second.backend} on {second.device}"]
    said = f"{names[0]} takes {duration(first.seconds)} ({duration(first.low)} to {duration(first.high)}; {first})"
    if second is None:
        return f"{said}; no other backend has results for this."
    lead = f"{second.seconds / first.seconds:.2f} times as fast as {names[1]} ({second.how})"
    unsure = ", though their intervals overlap" if first.high >= second.low else ""
    return f"{said}, {lead}{unsure}."


def _shape(case: Case) -> str:
    return " ".join(f"{name}{getattr(case, name)}" for name in SIZES)


def measuring_command(case: Case) -> str:
    """The command that measures a case on all backends."""
    words = ["rnnbench best --measure", "--cell", case.cell, "--phase", case.phase]
    for name in SIZES:
        words += [f"-{name}", f"{getattr(case, name)}"]
    words += ["--threads", f"{case.threads}", "--dtype", case.dtype, "--layers", f"{case.layers}"]
    words += ["--bidirectional"] * case.bidirectional + ["--no-bias"] * (not case.bias)
    return " ".join(words)
