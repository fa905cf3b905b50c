"""The conformance run: backends examined at the same time, each in a process of its own, one report each."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from threading import Lock
from typing import Any

from rnnbench.check.isolation import TIME_LIMIT, Subject, Subprocess, subject
from rnnbench.check.levels import Trial, numbers_only, trials
from rnnbench.check.outcome import Outcome
from rnnbench.check.problem import Problem
from rnnbench.check.references import References, referees
from rnnbench.check.report import Report
from rnnbench.check.shrinking import Smallest
from rnnbench.check.snippet import loading_code, shown_name
from rnnbench.errors import ArgumentError, BackendUnavailable

Progress = Callable[[int, int], None]
"""Told how many outcomes are known and how many there will be."""

Unavailable = Callable[[str, BackendUnavailable], None]
"""Told of a backend that cannot run here."""


class Interrupted(KeyboardInterrupt):
    """An interrupted run; ``reports`` hold what was known by then."""

    def __init__(self, reports: list[Report]) -> None:
        super().__init__()
        self.reports = reports


def check(
    backend: Any,
    *,
    level: str = "standard",
    cells: Sequence[str] | None = None,
    gradients_only: bool = False,
    time_limit: float = TIME_LIMIT,
    progress: Progress | None = None,
    env: Sequence[str] = (),
) -> Report:
    """Check one backend on the trials of a level ("smoke", "standard" or "full"), for some cells or all.

    ``gradients_only``: compare outputs and gradients alone, and examine no promise.

    ``backend`` is a registered name or the path of a .py file: it is then examined in a child process, and a crash or a
    hang of more than ``time_limit`` seconds is a finding; or anything with the functions of a backend, which is examined
    in this process, where a crash or a hang is the end of the process.
    ``env``: environment variables that the child process sees besides the usual ones (``rnnbench.processes.environment``).
    Raises BackendUnavailable and UnknownBackend, ArgumentError for an unknown level or cell, ReferenceFailed.
    """
    todo = trials(level, cells)
    asked = numbers_only(todo) if gradients_only else todo
    return check_all([backend], asked, time_limit=time_limit, progress=progress, env=env)[0]


def check_all(
    backends: Sequence[Any],
    todo: Sequence[Trial],
    *,
    time_limit: float = TIME_LIMIT,
    progress: Progress | None = None,
    unavailable: Unavailable | None = None,
    env: Sequence[str] = (),
) -> list[Report]:
    """Check backends on the same trials; what is expected of each is computed once, while the backends are examined.

    A backend that cannot run here has no report where ``unavailable`` is told of it; without that it is an error.
    Raises what ``check`` raises, and Interrupted instead of KeyboardInterrupt.
    """
    if not todo:
        raise ArgumentError("no trials; expected at least one")
    run = _Run(backends, todo, time_limit, progress, unavailable, env)
    try:
        run.carry_out()
    except KeyboardInterrupt:
        run.stop()
        raise Interrupted(run.reports()) from None
    finally:
        run.stop()
    return run.reports()


def settled(examined: Subject, trial: Trial, refusals: dict[Problem, str]) -> Trial | Outcome:
    """The trial on the first of its problems that the backend supports; else the outcome that says why there is none.

    Reasons of the backend go to ``refusals``.
    """
    first = None
    for problem in (trial.problem, *trial.poorer):
        refused = examined.skipped(trial.on(problem))
        if refused is None:
            return trial.on(problem)
        if not refused.skipped:
            return refused
        refusals[problem] = refused.skipped
        first = first or refused
    assert first is not None
    return first


class _Examination:
    """One backend of a run, and what is known of it."""

    def __init__(self, backend: Any, time_limit: float, env: Sequence[str]) -> None:
        self.name, self.loading = shown_name(backend), loading_code(backend)
        self.subject = subject(backend, time_limit, env)
        self.outcomes: dict[int, Outcome] = {}
        self.refusals: dict[Problem, str] = {}
        self.smallest: Smallest | None = None
        self.refused = False

    def shrink(self) -> None:
        """Look for the smallest problem that shows what is wrong with the numbers of the first failure."""
        report = self.report()
        if report.failures and any(f.error is not None and not f.passed for f in report.first.of(None)):
            self.smallest = self.subject.smallest(report.first.problem)

    def report(self) -> Report:
        in_order = [self.outcomes[number] for number in sorted(self.outcomes)]
        return Report(self.name, in_order, self.subject.info, self.loading, self.refusals, self.smallest)


class _Run:
    """Subprocess backends are examined by a thread each, the others one after the other in the thread that asks."""

    def __init__(
        self,
        backends: Sequence[Any],
        todo: Sequence[Trial],
        time_limit: float,
        progress: Progress | None,
        unavailable: Unavailable | None,
        env: Sequence[str],
    ) -> None:
        self._todo, self._progress, self._unavailable = todo, progress, unavailable
        self._all = [_Examination(backend, time_limit, env) for backend in backends]
        self._apart = [examination for examination in self._all if isinstance(examination.subject, Subprocess)]
        self._references = References(referees(len(todo)) if self._apart else 0)
        self._pool = ThreadPoolExecutor(max(1, len(self._apart)))
        self._lock = Lock()

    def carry_out(self) -> None:
        futures = [self._pool.submit(self._examine, examination) for examination in self._apart]
        for examination in self._all:
            if examination not in self._apart:
                self._examine(examination)
        for future in as_completed(futures):
            future.result()

    def stop(self) -> None:
        """End every process and thread.  May be called again."""
        for examination in self._all:
            examination.subject.stop()
        self._references.close()
        self._pool.shutdown()

    def reports(self) -> list[Report]:
        return [examination.report() for examination in self._all if not examination.refused]

    def _examine(self, examination: _Examination) -> None:
        examined = examination.subject
        supported: dict[int, Trial] = {}
        try:
            for number, trial in enumerate(self._todo):
                chosen = settled(examined, trial, examination.refusals)
                if isinstance(chosen, Outcome):
                    self._add(examination, number, chosen)
                else:
                    supported[number] = chosen
                    self._references.want(chosen.problem)
            for number, trial in supported.items():
                self._add(examination, number, examined.outcome(trial, self._references.get(trial.problem)))
            examination.shrink()
        except BackendUnavailable as error:
            if not self._unavailable:
                raise
            examination.refused = True
            self._unavailable(examination.name, error)
        finally:
            examined.end()

    def _add(self, examination: _Examination, number: int, outcome: Outcome) -> None:
        examination.outcomes[number] = outcome
        if self._progress:
            with self._lock:
                known = sum(len(one.outcomes) for one in self._all)
                self._progress(known, len(self._todo) * sum(not one.refused for one in self._all))
