"""How long backends train until the validation loss falls below a target."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from rnnbench.compare.intervals import median_interval
from rnnbench.errors import ArgumentError
from rnnbench.models.model import Evaluation, Model
from rnnbench.studies.study import Curve, Report, Study, frame, new_model, require_seeds, settings_of, summarised
from rnnbench.text import count, duration
from rnnbench.training.config import Config
from rnnbench.training.loop import fit
from rnnbench.training.run import KINDS, Task, optimiser_of, schedule_of

if TYPE_CHECKING:
    import pandas as pd


def study_time_to_loss(
    config: Config, target: float, *, backends: Sequence[str], seeds: int = 6, report: Report | None = None
) -> Study:
    """Train on each backend, on ``seeds`` seeds from that of the config on, until the validation loss is below ``target``.

    ``config``: of any task; it validates every ``training.evaluate`` steps and gives up after ``training.steps``.
    Backends take turns seed by seed, each on ``config.threads`` threads, with the same initial parameters and batches.

    Columns: ``backend``; ``seconds`` (spent in training steps, with the interval over seeds; NaN where the target was not
    reached); ``steps``; ``loss`` (at the end); ``first_seconds`` (of loading the model and its first step, most of it to
    compile, which ``seconds`` leaves out).  Raises ArgumentError, BackendUnavailable and MissingLibrary.
    """
    if not backends or len(set(backends)) < len(backends):
        raise ArgumentError(f"backends are {list(backends)}; expected at least one, all different")
    if not math.isfinite(target):
        raise ArgumentError(f"target is {target!r}; expected a finite number")
    frame(())
    task, rows = KINDS[config.task](config), []
    first = {backend: _first_step(replace(config, backend=backend), task) for backend in backends}
    for place, seed in enumerate(range(config.seed, config.seed + require_seeds(seeds))):
        turn = place % len(backends)
        for backend in (*backends[turn:], *backends[:turn]):
            found = _until(replace(config, backend=backend, seed=seed), task, target)
            rows.append({"backend": backend, "seed": seed, **found, "first_seconds": first[backend]})
            if report is not None:
                report(len(rows), len(backends) * seeds, f"{backend}: loss {found['loss']:.4f}")
    rows.sort(key=lambda row: backends.index(row["backend"]))
    runs = frame(rows)
    table = summarised(runs, ("backend",), "seconds", ("steps", "loss", "first_seconds"))
    settings = settings_of(config, seeds=seeds, backends=list(backends), target=target)
    return Study("time-to-loss", "Time to a loss", conclusion(runs, target), runs, table, CURVES, settings)


def conclusion(runs: "pd.DataFrame", target: float) -> str:
    """Who is there first, and how much longer the next one takes, as a median of the ratios over seeds."""
    reached = {str(name): group["seconds"].to_numpy() for name, group in runs.groupby("backend", sort=False)}
    complete = {name: seconds for name, seconds in reached.items() if not np.isnan(seconds).any()}
    late = [name for name in reached if name not in complete]
    missed = f" {' and '.join(late)} did not reach it on every seed." if late else ""
    if not complete:
        return f"No backend reached a validation loss below {target:g} on every seed."
    first, *others = sorted(complete, key=lambda name: float(np.median(complete[name])))
    found = median_interval(complete[first])
    seeds = len(complete[first])
    text = (
        f"{first} trains to a validation loss below {target:g} in {duration(found.median)} "
        f"({duration(found.low)} to {duration(found.high)} over {count(seeds, 'seed')})"
    )
    if others:
        ratio = median_interval(complete[others[0]] / complete[first])
        clear = "" if ratio.low > 1 else ", which is no clear difference"
        text += f"; {others[0]} takes {ratio.median:.2f} times as long ({ratio.low:.2f} to {ratio.high:.2f}){clear}"
    return f"{text}.{missed}"


class _Reached(Exception):
    """Ends training at the target."""


def _until(config: Config, task: Task, target: float) -> dict[str, Any]:
    model = new_model(task.spec, config, config.seed)
    training, steps = config.training, config.training.steps
    validating, loss, done = 0.0, math.nan, 0
    started = time.perf_counter()

    def validate(model: Model) -> Evaluation:
        nonlocal validating, loss, done
        begun = time.perf_counter()
        found = task.validate(model)
        validating += time.perf_counter() - begun
        loss, done = float(found.loss), min(done + training.evaluate, steps)
        if loss < target:
            raise _Reached
        return found

    options: dict[str, Any] = {"window": config.truncation.window, "stride": config.truncation.stride}
    options["schedule"] = schedule_of(config, steps)
    try:
        batches, optimiser = task.batches(model), optimiser_of(config, model)
        fit(model, optimiser, batches, steps, seed=config.seed, validate=validate, evaluate=training.evaluate, **options)
        seconds = math.nan
    except _Reached:
        seconds = time.perf_counter() - started - validating
    return {"seconds": seconds, "steps": done, "loss": loss}


def _first_step(config: Config, task: Task) -> float:
    """The seconds that a model takes to load and to train one step, and then all that it computes is compiled."""
    started = time.perf_counter()
    model = new_model(task.spec, config, config.seed)
    batch, truncation = task.batches(model)(0), config.truncation
    options = {"window": truncation.window, "stride": truncation.stride, "key": (config.seed, 0)}
    found = model.gradients(batch.inputs, batch.targets, batch.mask, **options)
    optimiser_of(config, model).step(found.gradients)
    seconds = time.perf_counter() - started
    task.validate(model)
    return seconds


CURVES = (
    Curve(
        "Seconds until the loss is reached",
        "Median over seeds of the time spent in training steps, with its interval; compiling and validating are left out.",
        *("seconds", "backend", "backend", "seconds_low", "seconds_high"),
    ),
)
