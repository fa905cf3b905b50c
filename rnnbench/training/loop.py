"""The training loop: batches, gradients, updates, evaluations, early stop, checkpoints and metrics."""

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnbench.errors import ArgumentError, Diverged, StoreError
from rnnbench.machine.facts import environment
from rnnbench.models.model import Evaluation, Model, TrainingPass
from rnnbench.models.optimisers import Optimiser
from rnnbench.networks.contract import State
from rnnbench.training.checkpoint import BEST, LAST, Checkpoint, read_checkpoint, write_checkpoint
from rnnbench.training.metrics import METRICS, Metric, MetricsFile, Training, per_second


class Batch(NamedTuple):
    """Inputs, targets, mask and lengths as ``Model.gradients`` takes them; ``fresh``: it starts from a state of zeros."""

    inputs: np.ndarray
    targets: np.ndarray
    mask: np.ndarray | None = None
    fresh: bool = True
    lengths: np.ndarray | None = None


Batches = Callable[[int], Batch]
"""The batch of a step, from 0 on; the same step gives the same batch."""

Report = Callable[[int, int, str], None]
"""Takes the number of steps done, of all steps, and a few words."""


class Fitted(NamedTuple):
    """The number of steps taken, their losses since the start or the resume, the lowest validation loss, and why it ended."""

    steps: int
    losses: list[float]
    best: float | None
    reason: str


def constant(rate: float) -> Callable[[int], float]:
    """A learning rate that stays."""
    return lambda _: rate


def cosine(rate: float, steps: int) -> Callable[[int], float]:
    """A learning rate that falls from ``rate`` to a hundredth of it along a cosine.  Loshchilov and Hutter 2017."""
    return lambda step: rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1))))


@dataclass
class _Progress:
    """What changes from step to step besides parameters and the optimiser."""

    step: int = 0
    state: State | None = None
    best: float | None = None
    waited: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


def fit(
    model: Model,
    optimiser: Optimiser,
    batches: Batches | Sequence[tuple[np.ndarray, ...]],
    steps: int,
    *,
    seed: int = 0,
    window: int | None = None,
    stride: int | None = None,
    schedule: Callable[[int], float] | None = None,
    validate: Callable[[Model], Evaluation] | None = None,
    evaluate: int = 100,
    patience: int | None = None,
    folder: str | Path | None = None,
    checkpoint: int = 100,
    resume: bool = False,
    facts: Mapping[str, Any] | None = None,
    report: Report | None = None,
) -> Fitted:
    """Train a model until ``steps`` steps are done in all, or until the validation loss no longer falls.

    ``batches``: a function from the step to its ``Batch``; or a sequence of (inputs, targets) or (inputs, targets, mask),
    repeated, each of which continues the state of the one before it, as ``StatefulBatches`` do.
    ``seed``: with the step it decides the masks of dropout.  ``window``, ``stride``: of truncated BPTT.
    ``schedule``: the learning rate of a step; without it, the optimiser's own.
    ``validate``: the loss that decides, every ``evaluate`` steps; training ends after ``patience`` of them without a lower one.
    ``folder``: where metrics and checkpoints go, ``last.npz`` every ``checkpoint`` steps and ``best.npz`` at each lowest
    validation loss; ``resume`` continues from ``last.npz`` bit for bit.  ``facts``: what checkpoints hold besides, for JSON.
    A new run whose first step fails, as of a backend that cannot take it, leaves no files behind.
    Raises Diverged at a loss or gradient that is not finite, ArgumentError and StoreError.
    """
    for name, value in (("steps", steps), ("evaluate", evaluate), ("checkpoint", checkpoint)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ArgumentError(f"{name} is {value!r}; expected an integer from 1 on")
    if resume and folder is None:
        raise ArgumentError("resume is True and folder None; expected the folder of the run")
    run = _Run(model, optimiser, None if folder is None else Path(folder), facts or {}, resume)
    batch_of = batches if callable(batches) else _repeated(batches)
    rate_of = schedule or constant(optimiser.rate)
    try:
        while run.now.step < steps:
            if patience is not None and run.now.waited >= patience:
                return run.fitted(f"no lower validation loss in {patience} evaluations")
            batch, step = batch_of(run.now.step), run.now.step
            optimiser.rate = rate_of(step)
            done = step + 1
            with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is an error with its name
                run.train(batch, {"window": window, "stride": stride, "key": (seed, step)})
                if validate is not None and (done % evaluate == 0 or done == steps):
                    run.validate(validate)
            if done % checkpoint == 0 or done == steps:
                run.save(LAST)
            if report is not None:
                report(done, steps, run.words())
        return run.fitted("all steps done")
    except Diverged:  # names the checkpoint that is kept
        raise
    except Exception:
        if run.now.step == 0:
            run.discard()
        raise
    finally:
        run.close()


class _Run:
    """A run in progress, with its files if it has a folder."""

    def __init__(self, model: Model, optimiser: Optimiser, folder: Path | None, facts: Mapping[str, Any], resume: bool) -> None:
        self._model, self._optimiser, self._folder, self._facts = model, optimiser, folder, facts
        self.now, self._kept, self._metrics, self._speed = _Progress(), None, None, None
        self._validation: float | None = None
        self._made: list[Path] = []
        if folder is None:
            return
        if resume:
            self._restore(read_checkpoint(folder / LAST))
        else:
            require_new(folder)
            self._made = [folder / LAST, folder / METRICS, *(() if folder.exists() else (folder,))]
            self.save(LAST)  # before the metrics: a run that is killed in between can be resumed
        self._metrics = MetricsFile(folder, self.now.step if resume else None)
        if self._metrics.empty:
            info, started = dict(model.backend.info()), datetime.now(UTC).isoformat(timespec="seconds")
            config = dict(facts.get("config", {}))
            self._metrics.append(Training(started, config, info, environment()))

    def _restore(self, stored: Checkpoint) -> None:
        self._model.update(stored.params)
        self._optimiser.restore(stored.optimiser)
        self.now.state = self._model.state_from_numpy(stored.state) if stored.state else None
        self.now.step, self.now.best = stored.step, stored.best
        self.now.waited, self.now.seconds = stored.waited, stored.seconds
        self._kept = self._folder and (stored.step, self._folder / LAST)

    def train(self, batch: Batch, options: Mapping[str, Any]) -> None:
        """Take one step."""
        start, now, model = time.perf_counter(), self.now, self._model
        state = None if batch.fresh else now.state
        found = model.gradients(batch.inputs, batch.targets, batch.mask, state, batch.lengths, **options)
        if not math.isfinite(found.loss):
            self._fail(found)
        norm = self._optimiser.step(found.gradients)
        if norm is None:
            norm = model.parts.squared_norm(list(found.gradients.values()))
        if not math.isfinite(norm):
            self._fail(found)
        seconds = time.perf_counter() - start
        now.step, now.state, now.seconds = now.step + 1, found.state, now.seconds + seconds
        now.losses.append(float(found.loss))
        self._speed = per_second(found.count, seconds)
        self._append("train", found.loss, found.count, self._speed, self._optimiser.rate)

    def validate(self, loss_of: Callable[[Model], Evaluation]) -> None:
        """Evaluate, and keep the best parameters."""
        start, now = time.perf_counter(), self.now
        found = loss_of(self._model)
        self._validation = found.loss
        if not math.isfinite(found.loss):
            self._fail(None)
        now.waited += 1
        self._append("validation", found.loss, found.count, per_second(found.count, time.perf_counter() - start))
        if now.best is None or found.loss < now.best:
            now.best, now.waited = float(found.loss), 0
            self.save(BEST)

    def _append(self, split: str, loss: float, count: float, speed: float | None, rate: float | None = None) -> None:
        if self._metrics is not None:
            self._metrics.append(Metric(self.now.step, split, float(loss), count, self.now.seconds, speed, rate))

    def save(self, name: str) -> None:
        """Write a checkpoint, if there is a folder and every parameter is finite."""
        if self._folder is None:
            return
        now, params = self.now, self._model.params()
        if any(not np.isfinite(value).all() for value in params.values()):
            self._fail(None)
        if self._metrics is not None:
            self._metrics.sync()
        state = () if now.state is None else self._model.state_to_numpy(now.state)
        kept = Checkpoint(now.step, params, self._optimiser.state(), state, now.best, now.waited, now.seconds, self._facts)
        write_checkpoint(self._folder / name, kept)
        if name == LAST:
            self._kept = now.step, self._folder / name

    def _fail(self, found: TrainingPass | None) -> None:
        """Raise Diverged, which names the first tensor that is not finite."""
        what = _not_finite(self._model, found, self.now.state)
        step = self.now.step if found is None else self.now.step + 1
        kept = (
            "no checkpoint" if self._kept is None else f"the last good checkpoint, {self._kept[1]}, is of step {self._kept[0]}"
        )
        loss = "" if found is None else f"the loss is {float(found.loss):g}, and "
        raise Diverged(f"step {step}: {loss}{what} is not finite; {kept}; try a lower rate, or clip_norm")

    def words(self) -> str:
        speed = "" if self._speed is None else f"  {self._speed:,.0f} tokens/s"
        validation = "" if self._validation is None else f"  validation {self._validation:.4f}"
        return f"loss {self.now.losses[-1]:.4f}{validation}{speed}"

    def fitted(self, reason: str) -> Fitted:
        if self._kept is not None and self._kept[0] != self.now.step:
            self.save(LAST)
        return Fitted(self.now.step, self.now.losses, self.now.best, reason)

    def discard(self) -> None:
        """Remove the files of a new run, and the folder if it was made for them."""
        self.close()
        for path in self._made:
            with contextlib.suppress(OSError):  # the error that ended the run is told
                path.rmdir() if path == self._folder else path.unlink()

    def close(self) -> None:
        if self._metrics is not None:
            self._metrics.close()


def require_new(folder: Path) -> None:
    """Raise StoreError if a run is in the folder."""
    for name in (LAST, METRICS):
        if (folder / name).exists():
            raise StoreError(f"{folder} holds a run already; expected --resume to go on with it, or another folder by --out")


def _not_finite(model: Model, found: TrainingPass | None, state: State | None) -> str:
    """The first of parameters, state and gradients with NaN or infinity; gradients from the output back to the input."""
    gradients = {} if found is None else model.gradients_to_numpy(found.gradients)
    own = {f"parameter {name}": value for name, value in model.params().items()}
    states = {f"state {i}": s for i, s in enumerate(() if state is None else model.state_to_numpy(state))}
    tensors = states | {f"the gradient of {name}": gradients[name] for name in reversed(gradients)}
    # an update with such a gradient has spoilt the parameters, so gradients come first where the loss was still finite
    order = tensors | own if found is not None and math.isfinite(found.loss) else own | tensors
    return next((name for name, value in order.items() if not np.isfinite(value).all()), "the sum of losses or squares")


def _repeated(batches: Sequence[tuple[np.ndarray, ...]]) -> Batches:
    if not len(batches):
        raise ArgumentError("there are no batches; expected at least one")

    def batch_of(step: int) -> Batch:
        place = step % len(batches)
        inputs, targets, *mask = batches[place]
        return Batch(inputs, targets, mask[0] if mask else None, fresh=place == 0)

    return batch_of
