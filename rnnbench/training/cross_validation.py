"""Choosing hidden size, layers, cell, learning rate or window by cross-validation, with successive halving.

Only the training and validation parts of the data are read: the test part is left to the one run that follows.
Jamieson and Talwalkar 2016, "Non-stochastic best arm identification and hyperparameter optimization".
"""

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, cast

import numpy as np

from rnnbench.errors import ArgumentError
from rnnbench.models.model import load_model
from rnnbench.models.spec import init_model_params
from rnnbench.training.classify import Classification
from rnnbench.training.config import Config
from rnnbench.training.loop import fit
from rnnbench.training.run import KINDS, Task, optimiser_of, schedule_of

Candidate = Mapping[str, Any]
"""Values by key, such as {"model.hidden": 64}."""

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Score:
    """What a candidate reached: its lowest validation loss after ``steps`` steps, one for each fold and seed."""

    candidate: Candidate
    steps: int
    losses: tuple[float, ...]

    @property
    def mean(self) -> float:
        return float(np.mean(self.losses))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the mean over folds and seeds, by Student's t; NaN for a single loss."""
        if len(self.losses) < 2:
            return math.nan, math.nan
        from scipy import stats  # takes half a second to import

        half = float(stats.t.ppf(0.975, len(self.losses) - 1) * stats.sem(self.losses))
        return self.mean - half, self.mean + half

    @property
    def label(self) -> str:
        return ", ".join(f"{key} = {value}" for key, value in self.candidate.items())


def candidates(config: Config, over: Mapping[str, Sequence[Any]]) -> list[Candidate]:
    """All combinations of these values by key; raises ArgumentError unless each makes a valid config."""
    if not over:
        raise ArgumentError("nothing varies; expected a key with values, such as model.hidden=32,64")
    found: list[Candidate] = [dict(zip(over, values, strict=True)) for values in product(*over.values())]
    for candidate in found:
        with_values(config, candidate)
    return found


def with_values(config: Config, candidate: Candidate) -> Config:
    """The config with these values; raises ArgumentError for an unknown key or a value that is not allowed."""
    given = config.to_dict()
    for key, value in candidate.items():
        section, _, name = key.rpartition(".")
        place = given[section] if section in given and isinstance(given[section], dict) else given
        place[name if place is not given else key] = value
    return Config.from_dict(given)


def read_values(text: str) -> tuple[str, list[Any]]:
    """``model.hidden=32,64`` as a key and its values; words need no quotes.  Raises ArgumentError."""
    key, equals, values = text.partition("=")
    if not equals or not key or not values.strip():
        raise ArgumentError(f"{text!r} is no key with values; expected one as in model.hidden=32,64")
    return key.strip(), [_value(value.strip()) for value in values.split(",")]


def folds_of(config: Config, folds: int) -> list[Task]:
    """The task on each fold: training data first, then what validates; the test part is in none of them.

    Texts and series are cut by position: a fold trains on all that comes before what it validates on (rolling origin).
    Labelled sequences are dealt so that each fold has each class in the same share.
    """
    if isinstance(folds, bool) or not isinstance(folds, int) or folds < 2:
        raise ArgumentError(f"folds is {folds!r}; expected an integer from 2 on")
    if config.task == "classify":
        dealt = replace(config, data=replace(config.data, folds=folds))
        return [cast("Task", Classification(dealt, fold)) for fold in range(folds)]
    data: Any = config.data
    known = data.parts[0] + data.parts[1]
    share = known / (folds + 1)
    cuts = [((fold + 1) * share, share, 1 - (fold + 2) * share) for fold in range(folds)]
    return [KINDS[config.task](replace(config, data=replace(data, parts=cut))) for cut in cuts]


def tune(
    config: Config,
    over: Mapping[str, Sequence[Any]],
    *,
    folds: int = 3,
    seeds: int = 1,
    keep: float = 0.5,
    report: Report | None = None,
) -> list[Score]:
    """Compare all combinations of values by cross-validation; the best comes first.

    ``over``: values by key.  ``folds``, ``seeds``: each candidate trains once on each fold with each seed.
    ``keep``: after each rung, the part of the candidates that goes on with more steps, until one is left or all steps of the
    config are done; with 1 all train for all steps.
    ``report``: takes the number of trainings done, of all, and a few words.
    Candidates of a later rung come first, each rung by its mean loss.  Raises ArgumentError.
    """
    if not 0 < keep <= 1:
        raise ArgumentError(f"keep is {keep!r}; expected a number above 0, at most 1")
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise ArgumentError(f"seeds is {seeds!r}; expected an integer from 1 on")
    left = candidates(config, over)
    sizes = _rungs(len(left), keep)
    done, total = 0, sum(sizes) * folds * seeds
    finished: list[Score] = []
    for size in sizes:
        left = left[:size]
        steps = max(1, round(config.training.steps * sizes[-1] / size))  # each rung costs about the same
        scores = []
        for candidate in left:
            losses = []
            for loss in _losses(with_values(config, candidate), steps, folds, range(config.seed, config.seed + seeds)):
                losses.append(loss)
                done += 1
                if report is not None:
                    report(done, total, f"{Score(candidate, steps, tuple(losses)).label}: {loss:.4f}")
            scores.append(Score(candidate, steps, tuple(losses)))
        scores.sort(key=lambda score: score.mean)
        left = [score.candidate for score in scores]
        finished = scores + [old for old in finished if old.candidate not in left]
    return finished


def table(scores: Iterable[Score]) -> str:
    """A line per candidate: its mean loss with the interval over folds and seeds, and the steps it was given."""
    rows = [("loss", "95%", "steps", "")]
    for score in scores:
        low, high = score.interval
        interval = "" if math.isnan(low) else f"{low:.4f} to {high:.4f}"
        rows.append((f"{score.mean:.4f}", interval, str(score.steps), score.label))
    widths = [max(len(row[place]) for row in rows) for place in range(3)]
    return "\n".join(
        "  ".join((*(cell.rjust(width) for cell, width in zip(row, widths, strict=False)), row[3])).rstrip() for row in rows
    )


def _rungs(count: int, keep: float) -> list[int]:
    sizes = [count]
    while keep < 1 and sizes[-1] > 1:
        sizes.append(max(1, min(sizes[-1] - 1, math.ceil(sizes[-1] * keep))))
    return sizes


def _losses(config: Config, steps: int, folds: int, seeds: Iterable[int]) -> Iterable[float]:
    """The lowest validation loss on each fold with each seed."""
    for task in folds_of(config, folds):
        for seed in seeds:
            params = init_model_params(task.spec, seed)
            model = load_model(task.spec, params, config.backend, threads=config.threads)
            fitted = fit(
                model,
                optimiser_of(config, model),
                task.batches(model),
                steps,
                seed=seed,
                window=config.truncation.window,
                stride=config.truncation.stride,
                schedule=schedule_of(config, steps),
                validate=task.validate,
                evaluate=min(config.training.evaluate, steps),
                patience=config.training.patience,
            )
            assert fitted.best is not None
            yield fitted.best


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
