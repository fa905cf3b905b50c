"""The studies as the command line runs them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rnnbench.errors import ArgumentError
from rnnbench.studies.gaps import study_missing_values
from rnnbench.studies.gradients import study_gradient_flow
from rnnbench.studies.names import STUDIES
from rnnbench.studies.study import Report, Study
from rnnbench.studies.targets import study_time_to_loss
from rnnbench.studies.windows import study_truncation
from rnnbench.training.config import Config, load_config

TARGETS = {False: 2.2, True: 2.8}
"""Validation losses in nats that the model of ``train lm`` reaches well before its last step; by whether it is quick."""


@dataclass(frozen=True)
class Asked:
    """What a user may choose; None is the study's own choice."""

    quick: bool = False
    backends: Sequence[str] = ("numba_cpu",)
    seeds: int | None = None
    seed: int = 0
    threads: int | None = None
    target: float | None = None
    report: Report | None = None

    def config(self, task: str, **training: int) -> Config:
        found = load_config(task, quick=self.quick, backend=self.backends[0], seed=self.seed, threads=self.threads)
        return replace(found, training=replace(found.training, **training))

    def seeds_or(self, quick: int, full: int = 6) -> int:
        return self.seeds or (quick if self.quick else full)


def _gradient_flow(asked: Asked) -> Study:
    sizes: dict[str, Any] = {"steps": 50, "hidden": 32, "batch": 4} if asked.quick else {}
    options = {"seeds": asked.seeds_or(3), "seed": asked.seed, "threads": asked.threads, "report": asked.report}
    return study_gradient_flow(asked.backends[0], **options, **sizes)


def _truncation(asked: Asked) -> Study:
    return study_truncation(asked.config("lm"), seeds=asked.seeds_or(1, 3), report=asked.report)


def _time_to_loss(asked: Asked) -> Study:
    config = asked.config("lm", evaluate=5, **({"steps": 200} if asked.quick else {}))
    target = TARGETS[asked.quick] if asked.target is None else asked.target
    return study_time_to_loss(config, target, backends=asked.backends, seeds=asked.seeds_or(3), report=asked.report)


def _missing_values(asked: Asked) -> Study:
    return study_missing_values(asked.config("forecast"), seeds=asked.seeds_or(3), report=asked.report)


_RUN: dict[str, Callable[[Asked], Study]] = dict(
    zip(STUDIES, (_gradient_flow, _truncation, _time_to_loss, _missing_values), strict=True)
)


def run_study(name: str, asked: Asked) -> Study:
    """Run "gradient-flow", "truncation", "time-to-loss" or "missing-values" with the models that ``rnnbench train`` fits.

    Raises ArgumentError, BackendUnavailable, UnknownBackend, Diverged and MissingLibrary.
    """
    if name not in _RUN:
        raise ArgumentError(f"study is {name!r}; expected one of {', '.join(STUDIES)}")
    if name != "time-to-loss":
        if len(asked.backends) != 1:
            raise ArgumentError(f"backends are {', '.join(asked.backends)}; expected one: only time-to-loss compares them")
        if asked.target is not None:
            raise ArgumentError(f"target is {asked.target:g} for {name}; expected none: only time-to-loss has one")
    return _RUN[name](asked)
