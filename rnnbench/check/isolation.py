"""A backend under examination, in a process of its own or in this one; whatever it does becomes a finding."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from rnnbench.check.client import WorkerProcess
from rnnbench.check.comparing import Finding
from rnnbench.check.examiner import Examiner
from rnnbench.check.levels import Trial
from rnnbench.check.outcome import WHOLE, Outcome
from rnnbench.check.problem import Problem
from rnnbench.check.shrinking import Smallest
from rnnbench.errors import BackendBroken, BackendUnavailable, RnnbenchError, UnknownBackend
from rnnbench.networks.contract import told
from rnnbench.processes.worker_process import WorkerFailure

TIME_LIMIT = 60.0
"""Seconds for the import of a backend, one call and each promise."""

LOSSES = 5
"""How often a backend may crash or hang before the rest of its trials is not run."""


class Failed(Exception):
    """A request that got no answer; the message says what became of it: raised, crashed, hung or not run."""


class WorkerLost(Failed):
    """So was the process that was asked; the rest of the trial is not examined."""


class Stopped(Exception):
    """Another thread ended the examination."""


class Subject(ABC):
    """One backend: ``skipped`` tells whether a trial concerns it, ``outcome`` what came of it.

    ``info``: the backend's versions, device and threads, once it told.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    def skipped(self, trial: Trial) -> Outcome | None:
        """The outcome of a trial that is skipped, or of which the backend cannot say; None where it is to be examined."""
        try:
            reason = self._ask("supports", problem=trial.problem)
        except Failed as failed:
            return Outcome(trial, [_of_the_call(failed)])
        return Outcome(trial, skipped=reason) if reason else None

    def outcome(self, trial: Trial, reference: Path) -> Outcome:
        """Compare one call with the reference in a file, then examine the trial's promises; worst first."""
        arguments = {"problem": trial.problem, "reference": str(reference)}
        passed: list[Finding] = []
        wrong: list[Finding] = []
        failures: list[Finding] = []
        for promise in (None, *trial.promises):
            try:
                for finding in self._ask("examine", **arguments, promise=promise):
                    (passed if finding.passed else wrong).append(finding)
            except Failed as failed:
                failures.append(_of_the_call(failed, promise))
                if isinstance(failed, WorkerLost):
                    break
        if wrong:
            wrong = self._explained(wrong, arguments)
        findings = failures + wrong + passed
        return Outcome(trial, sorted(findings, key=lambda finding: finding.ratio, reverse=True))

    def smallest(self, problem: Problem) -> Smallest | None:
        """The smallest problem on which numbers are still wrong; None where the search for it failed."""
        try:
            return self._ask("smallest", problem=problem)
        except Failed:
            return None

    def _explained(self, wrong: list[Finding], arguments: dict[str, Any]) -> list[Finding]:
        try:
            return self._ask("explain", **arguments, findings=wrong)
        except Failed as failed:
            said = [f"{finding.reason}; no explanation: that {failed}".removeprefix("None; ") for finding in wrong]
            return [finding._replace(reason=reason) for finding, reason in zip(wrong, said, strict=True)]

    @abstractmethod
    def stop(self) -> None:
        """Have the thread that examines get Stopped; may be called from another."""

    @abstractmethod
    def end(self) -> None:
        """Give back what was held; a further request would start anew.  May be called again."""

    @abstractmethod
    def _ask(self, call: str, **arguments: Any) -> Any:
        """Call a method of the ``Examiner``; raises Failed for whatever goes wrong there."""


class InProcess(Subject):
    """A module, or an object with a module's functions, in this process: a crash or a hang is the end of it, too.

    Raises BackendUnavailable where it does not even tell its versions.
    """

    def __init__(self, backend: Any) -> None:
        self._examiner = Examiner(backend)
        self.info = told(backend)

    def stop(self) -> None:
        """It is examined by the thread that would call this."""

    def end(self) -> None:
        """Nothing is held."""

    def _ask(self, call: str, **arguments: Any) -> Any:
        try:
            return getattr(self._examiner, call)(**arguments)
        except Exception as error:  # whatever a backend raises is what the check is there to find
            raise Failed(f"raised {type(error).__name__}: {error}") from error


class Subprocess(Subject):
    """A registered backend, or one in a file, in a child process, which is started anew after it crashed or hung.

    ``env``: variables of this process that it sees besides the usual ones (``rnnbench.processes.environment``).
    """

    def __init__(self, name: str, time_limit: float = TIME_LIMIT, env: Iterable[str] = ()) -> None:
        super().__init__()
        self._name, self._time_limit, self._env = name, time_limit, tuple(env)
        self._process: WorkerProcess | None = None
        self._refused: RnnbenchError | None = None
        self._lost = 0
        self._stopped = False

    def stop(self) -> None:
        """Kill the process; a thread that waits for its answer gets Stopped."""
        self._stopped = True
        if self._process:
            self._process.kill()

    def end(self) -> None:
        """End the process, for which no thread waits.  May be called again."""
        if self._process:
            self._process.end()
        self._process = None

    def _ask(self, call: str, **arguments: Any) -> Any:
        """Raises BackendUnavailable or UnknownBackend where there is no backend of this name that can run here."""
        if self._lost >= LOSSES:
            raise WorkerLost(f"not run: crashed or hung {LOSSES} times")
        request = {name: msgspec.to_builtins(value) for name, value in arguments.items()}
        process = self._running()
        try:
            return process.ask(call, self._time_limit, **request)
        except WorkerFailure as failure:
            raise self._failed(failure) from failure

    def _running(self) -> WorkerProcess:
        if self._process:
            return self._process
        if self._refused:
            raise self._refused
        self._process = WorkerProcess(self._name, self._env)
        if self._stopped:  # between the two
            self._process.kill()
        try:
            self.info = self._process.greeting(self._time_limit)
        except WorkerFailure as failure:
            self.end()
            if failure.reason == "error" and not self.info and not self._lost:
                self._refused = self._refusal(str(failure))
                raise self._refused from failure
            raise self._failed(failure) from failure
        return self._process

    def _failed(self, failure: WorkerFailure) -> Exception:
        if self._stopped:
            return Stopped()
        message = str(failure).removeprefix("the worker ")
        if failure.reason == "error":
            return Failed(f"raised {message}")
        self._lost += 1
        self.end()
        return WorkerLost(f"{'hung' if failure.reason == 'timeout' else 'crashed'}: {message}")

    def _refusal(self, message: str) -> RnnbenchError:
        kind, _, text = message.partition(": ")
        known = {error.__name__: error for error in (BackendBroken, BackendUnavailable, UnknownBackend)}
        return known[kind](text) if kind in known else BackendUnavailable(f"{self._name} cannot run here: it raised {message}")


def subject(backend: Any, time_limit: float = TIME_LIMIT, env: Iterable[str] = ()) -> Subject:
    """A name or the path of a .py file is examined in a child process, anything else in this one."""
    return Subprocess(backend, time_limit, env) if isinstance(backend, str) else InProcess(backend)


def _of_the_call(failed: Failed, promise: str | None = None) -> Finding:
    return Finding(WHOLE, None, 0.0, str(failed), promise)
