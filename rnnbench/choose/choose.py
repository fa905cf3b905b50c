"""Choose the fastest backend for a shape, from the results stored on this machine.

A shape is (T, B, H, I); a result counts only if all other fields of its case (cell, phase, layers, directions, nonlinearity,
bias, dtype, threads, ...) are equal.  Of several runs of a backend on a case the newest counts, whatever its commit.
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
from rnnbench.results.rows import End, Spent
from rnnbench.results.valid import failures, medians, times
from rnnbench.suite.case import Case
from rnnbench.suite.estimate import estimate
from rnnbench.text import count, duration

NEAREST = 3
"""Number of nearest shapes on which a backend must not have failed to be chosen."""

SIZES = ("T", "B", "H", "I")
_OTHERS = tuple(name for name in Case.__struct_fields__ if name not in SIZES)
_UNKNOWN_NOISE = 0.1  # standard deviation of log seconds between rounds, assumed for a single round


class Result(NamedTuple):
    """The result of one backend on one case: seconds per call of each round, or why there is none."""

    case: Case
    backend: str
    rounds: tuple[float, ...]
    failure: str | None
    run: str
    device: str = CPU


class Prediction(NamedTuple):
    """The expected time of a backend on a case: seconds per call, with a nominal 95% interval.

    ``how``: "measured" (the median over ``rounds`` rounds of ``run``, with its order-statistic interval), "interpolated", or
    "extrapolated" (the case lies outside the hull of the measured ``cases`` used).  ``cases``: nearest first.
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
    """The backend to use for a case; ``why`` gives the reason in one sentence.

    ``seconds``, ``low``, ``high``: None if nothing is known; the choice is then a default, as ``why`` says.
    ``predictions``: those of all eligible backends, fastest first.  ``excluded``: why other backends are not, by name.
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
    """The results of one machine, grouped by the fields that must match, then by backend and case."""

    def __init__(self, contents: Iterable[Contents], problems: Iterable[str] = ()) -> None:
        self.problems = list(problems)
        self._groups: dict[tuple, dict[str, dict[Case, Result]]] = {}
        self.spent: dict[tuple[str, str], Spent] = {}  # by stage and backend, from the newest run that has it
        for content in sorted(contents, key=lambda content: content.run.started, reverse=True):
            self.problems += content.problems
            for spent in (spent for row in content.rows if isinstance(row, End) for spent in row.spent):
                self.spent.setdefault((spent.stage, spent.backend), spent)
            for row in _measured(content):
                group = self._groups.setdefault(_group(row.case), {})
                group.setdefault(row.backend, {}).setdefault(row.case, row)

    def rows(self) -> list[Result]:
        return [row for group in self._groups.values() for rows in group.values() for row in rows.values()]

    def without(self, case: Case) -> "Measurements":
        """Return the measurements without those of a case."""
        kept = Measurements(())
        kept._groups = dict(self._groups)
        kept._groups[_group(case)] = {
            backend: {other: row for other, row in rows.items() if other != case}
            for backend, rows in self._groups[_group(case)].items()
        }
        return kept

    def serve(self, case: Case) -> bool:
        """Return whether there is a result, or a failure, of this case or of another shape with the same other fields."""
        return any(self._groups.get(_group(_normalised(case)), {}).values())

    def threads(self, case: Case) -> int | None:
        """Return the number of threads nearest to the case's for which results serve it; None if there are none."""
        kind, place = _group(_normalised(case)), _OTHERS.index("threads")
        others = {group[place] for group in self._groups if group == (*kind[:place], group[place], *kind[place + 1 :])}
        served = [number for number in others if self.serve(msgspec.structs.replace(case, threads=number))]
        return min(served, key=lambda number: (abs(math.log2(number / case.threads)), number), default=None)

    def predictions(self, case: Case) -> tuple[list[Prediction], dict[str, str]]:
        """Predict the time of each backend, fastest first; also return why others cannot be chosen, by name."""
        case, found, excluded = _normalised(case), [], {}
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
        """Choose the backend with the least expected time that ``refuse`` does not reject.

        ``refuse`` returns a reason or None, and is called for the fastest backend first, until it returns None.
        Raises StoreError if no backend is left.
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
    """Load the results measured on ``machine``; ``problems`` lists unreadable files."""
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
    """Return the result of each case and backend in a file."""
    found, failed = times(content), failures(content)
    devices = {name: device_of(facts) for name, facts in content.run.backends.items()}
    choosers = {entry.name for entry in entry_points(group=CHOOSERS)}
    return [
        Result(
            _normalised(case),
            backend,
            tuple(medians(found.get((case, backend), {}))),
            failed.get((case, backend)),
            content.run.run,
            devices.get(backend, CPU),
        )
        for case, backend in dict.fromkeys([*failed, *found])
        if backend not in choosers
    ]


def _normalised(case: Case) -> Case:
    """Return the case with ``output_size`` None if it equals H, so that equal cases compare equal."""
    return msgspec.structs.replace(case, output_size=None) if case.output_size == case.H else case


def _group(case: Case) -> tuple:
    """Return the fields that must match."""
    return tuple(getattr(case, name) for name in _OTHERS)


def _sizes(case: Case) -> list[int]:
    return [getattr(case, name) for name in SIZES]


def _distance(a: Case, b: Case) -> float:
    """Return the Euclidean distance between two shapes, in doublings."""
    return math.dist([math.log2(size) for size in _sizes(a)], [math.log2(size) for size in _sizes(b)])


def _prediction(backend: str, rows: list[Result], case: Case) -> Prediction:
    """Predict the time of a case from rows without failures, nearest first."""
    if rows[0].case == case:
        result = rows[0]
        median, low, high, _ = median_interval(result.rounds)
        rounds, run = len(result.rounds), result.run
        return Prediction(backend, median, low, high, "measured", (case,), rounds, run, result.device)
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
    """Return the standard error of the log of the median over rounds, sqrt(pi / 2) times that of the mean; at least 0.5%."""
    spread = statistics.stdev(map(math.log, rounds)) if len(rounds) > 1 else _UNKNOWN_NOISE
    return max(math.sqrt(math.pi / 2 / len(rounds)) * spread, 0.005)


def _why(first: Prediction, second: Prediction | None) -> str:
    names = [first.backend, second.backend if second else ""]
    if second and first.device != second.device:
        names = [f"{first.backend} on {first.device}", f"{second.backend} on {second.device}"]
    sentence = f"{names[0]} takes {duration(first.seconds)} ({duration(first.low)} to {duration(first.high)}; {first})"
    if second is None:
        return f"{sentence}; no other backend has results for this."
    lead = f"{second.seconds / first.seconds:.2f} times as fast as {names[1]} ({second.how})"
    unsure = ", though their intervals overlap" if first.high >= second.low else ""
    return f"{sentence}, {lead}{unsure}."


def _shape(case: Case) -> str:
    return " ".join(f"{name}{getattr(case, name)}" for name in SIZES)


def measuring_command(case: Case) -> str:
    """Return the command that measures a case on all backends."""
    words = ["rnnbench best --measure", "--cell", case.cell, "--phase", case.phase]
    for name in SIZES:
        words += [f"-{name}", f"{getattr(case, name)}"]
    words += ["--threads", f"{case.threads}", "--dtype", case.dtype, "--layers", f"{case.layers}"]
    words += ["--bidirectional"] * case.bidirectional + ["--no-bias"] * (not case.bias)
    return " ".join(words)
