"""The conformance run: tests backends in parallel, each in its own process, and writes one report for each."""

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
"""``progress(done, total)``, called after each outcome."""

Unavailable = Callable[[str, BackendUnavailable], None]
"""``unavailable(name, error)``, called for each backend that cannot run here."""


class Interrupted(KeyboardInterrupt):
    """An interrupted run; ``reports`` hold the outcomes so far."""

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
    """Check one backend and return its report.

    ``backend``: a registered name or the path of a .py file, tested in a child process; a crash, or a hang of more than
    ``time_limit`` seconds, is then a finding.  Any other object with the functions of a backend is tested in this process,
    which a crash or a hang takes down.
    ``level``: "smoke", "standard" or "full".
    ``cells``: the cells to test; None means all.
    ``gradients_only``: compare outputs and gradients, and skip the promises.
    ``env``: names of further environment variables to pass to the child process (``rnnbench.processes.environment``).
    Raises BackendUnavailable, UnknownBackend, ReferenceFailed, or ArgumentError for an unknown level or cell.
    """
    todo = trials(level, cells)
    chosen = numbers_only(todo) if gradients_only else todo
    return check_all([backend], chosen, time_limit=time_limit, progress=progress, env=env)[0]


def check_all(
    backends: Sequence[Any],
    todo: Sequence[Trial],
    *,
    time_limit: float = TIME_LIMIT,
    progress: Progress | None = None,
    unavailable: Unavailable | None = None,
    env: Sequence[str] = (),
) -> list[Report]:
    """Check backends on the same trials and return one report for each; the reference runs once, in parallel.

    ``unavailable``: called for each backend that cannot run here, which then has no report; without it this is an error.
    Raises the errors of ``check``, and Interrupted instead of KeyboardInterrupt.
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


def supported_trial(tested: Subject, trial: Trial, refusals: dict[Problem, str]) -> Trial | Outcome:
    """Return the trial on the first of its problems that the backend supports, or the outcome if there is none.

    The backend's reasons are added to ``refusals``.
    """
    first = None
    for problem in (trial.problem, *trial.fallbacks):
        refused = tested.skipped(trial.on(problem))
        if refused is None:
            return trial.on(problem)
        if not refused.skipped:
            return refused
        refusals[problem] = refused.skipped
        first = first or refused
    assert first is not None
    return first


class _BackendRun:
    """One backend of a run, with its outcomes so far."""

    def __init__(self, backend: Any, time_limit: float, env: Sequence[str]) -> None:
        self.name, self.loading = shown_name(backend), loading_code(backend)
        self.subject = subject(backend, time_limit, env)
        self.outcomes: dict[int, Outcome] = {}
        self.refusals: dict[Problem, str] = {}
        self.smallest: Smallest | None = None
        self.unavailable = False

    def shrink(self) -> None:
        """Find the smallest problem that reproduces the wrong results of the first failure, if it has any."""
        report = self.report()
        if report.failures and any(f.error is not None and not f.passed for f in report.first.of(None)):
            self.smallest = self.subject.smallest(report.first.problem)

    def report(self) -> Report:
        in_order = [self.outcomes[number] for number in sorted(self.outcomes)]
        return Report(self.name, in_order, self.subject.info, self.loading, self.refusals, self.smallest)


class _Run:
    """A run on several backends: one thread per subprocess backend; the others one by one in the calling thread."""

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
        self._runs = [_BackendRun(backend, time_limit, env) for backend in backends]
        self._isolated = [run for run in self._runs if isinstance(run.subject, Subprocess)]
        self._references = References(referees(len(todo)) if self._isolated else 0)
        self._pool = ThreadPoolExecutor(max(1, len(self._isolated)))
        self._lock = Lock()

    def carry_out(self) -> None:
        futures = [self._pool.submit(self._test, run) for run in self._isolated]
        for run in self._runs:
            if run not in self._isolated:
                self._test(run)
        for future in as_completed(futures):
            future.result()

    def stop(self) -> None:
        """End every process and thread.  May be called repeatedly."""
        for run in self._runs:
            run.subject.stop()
        self._references.close()
        self._pool.shutdown()

    def reports(self) -> list[Report]:
        return [run.report() for run in self._runs if not run.unavailable]

    def _test(self, run: _BackendRun) -> None:
        supported: dict[int, Trial] = {}
        try:
            for number, trial in enumerate(self._todo):
                chosen = supported_trial(run.subject, trial, run.refusals)
                if isinstance(chosen, Outcome):
                    self._add(run, number, chosen)
                else:
                    supported[number] = chosen
                    self._references.want(chosen.problem)
            for number, trial in supported.items():
                self._add(run, number, run.subject.outcome(trial, self._references.get(trial.problem)))
            run.shrink()
        except BackendUnavailable as error:
            if not self._unavailable:
                raise
            run.unavailable = True
            self._unavailable(run.name, error)
        finally:
            run.subject.end()

    def _add(self, run: _BackendRun, number: int, outcome: Outcome) -> None:
        run.outcomes[number] = outcome
        if self._progress:
            with self._lock:
                done = sum(len(other.outcomes) for other in self._runs)
                self._progress(done, len(self._todo) * sum(not other.unavailable for other in self._runs))
