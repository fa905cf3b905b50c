"""A backend under test, in a child process or in this one; exceptions, crashes and hangs become findings."""

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
"""Time limit in seconds for importing a backend, for one call and for each promise."""

LOSSES = 5
"""Number of crashes and hangs after which the remaining trials of a backend are not run."""


class RequestFailed(Exception):
    """Request without an answer; the message says whether the backend raised, crashed, hung or was not run."""


class WorkerLost(RequestFailed):
    """Request that ended the worker process; the rest of the trial is not run."""


class Stopped(Exception):
    """Test stopped by another thread."""


class Subject(ABC):
    """A backend under test.

    ``info``: the backend's versions, device and threads, once they are known.
    """

    def __init__(self) -> None:
        self.info: dict[str, Any] = {}

    def skipped(self, trial: Trial) -> Outcome | None:
        """Return the outcome of an unsupported trial, or of one whose ``supports`` failed; None if the trial is to run."""
        try:
            reason = self._ask("supports", problem=trial.problem)
        except RequestFailed as failed:
            return Outcome(trial, [_call_finding(failed)])
        return Outcome(trial, skipped=reason) if reason else None

    def outcome(self, trial: Trial, reference: Path) -> Outcome:
        """Compare one call with the expected results in a file, then test the trial's promises; worst findings first."""
        arguments = {"problem": trial.problem, "reference": str(reference)}
        passed: list[Finding] = []
        wrong: list[Finding] = []
        failures: list[Finding] = []
        for promise in (None, *trial.promises):
            try:
                for finding in self._ask("examine", **arguments, promise=promise):
                    (passed if finding.passed else wrong).append(finding)
            except RequestFailed as failed:
                failures.append(_call_finding(failed, promise))
                if isinstance(failed, WorkerLost):
                    break
        if wrong:
            wrong = self._explained(wrong, arguments)
        findings = failures + wrong + passed
        return Outcome(trial, sorted(findings, key=lambda finding: finding.ratio, reverse=True))

    def smallest(self, problem: Problem) -> Smallest | None:
        """Return the smallest problem with wrong results, or None if the search failed."""
        try:
            return self._ask("smallest", problem=problem)
        except RequestFailed:
            return None

    def _explained(self, wrong: list[Finding], arguments: dict[str, Any]) -> list[Finding]:
        try:
            return self._ask("explain", **arguments, findings=wrong)
        except RequestFailed as failed:
            reasons = [f"{finding.reason}; the diagnosis {failed}".removeprefix("None; ") for finding in wrong]
            return [finding._replace(reason=reason) for finding, reason in zip(wrong, reasons, strict=True)]

    @abstractmethod
    def stop(self) -> None:
        """Raise Stopped in the testing thread; may be called from another thread."""

    @abstractmethod
    def end(self) -> None:
        """Release all resources; another request would start again.  May be called repeatedly."""

    @abstractmethod
    def _ask(self, call: str, **arguments: Any) -> Any:
        """Call a method of the ``Examiner``; raises RequestFailed if it fails."""


class InProcess(Subject):
    """A module, or an object with a module's functions, in this process, which a crash or a hang of the backend takes down.

    Raises BackendUnavailable if ``info()`` fails.
    """

    def __init__(self, backend: Any) -> None:
        self._examiner = Examiner(backend)
        self.info = told(backend)

    def stop(self) -> None:
        """Do nothing: the calling thread is the one that runs the tests."""

    def end(self) -> None:
        """Do nothing: there are no resources."""

    def _ask(self, call: str, **arguments: Any) -> Any:
        try:
            return getattr(self._examiner, call)(**arguments)
        except Exception as error:  # any exception of a backend becomes a finding
            raise RequestFailed(f"raised {type(error).__name__}: {error}") from error


class Subprocess(Subject):
    """A registered backend, or one in a file, in a child process that is restarted after a crash or a hang.

    ``env``: names of further environment variables to pass on (``rnnbench.processes.environment``).
    """

    def __init__(self, name: str, time_limit: float = TIME_LIMIT, env: Iterable[str] = ()) -> None:
        super().__init__()
        self._name, self._time_limit, self._env = name, time_limit, tuple(env)
        self._process: WorkerProcess | None = None
        self._refused: RnnbenchError | None = None
        self._lost = 0
        self._stopped = False

    def stop(self) -> None:
        """Kill the process; raises Stopped in the thread that waits for its answer."""
        self._stopped = True
        if self._process:
            self._process.kill()

    def end(self) -> None:
        """End the process; no thread may be waiting for it.  May be called repeatedly."""
        if self._process:
            self._process.end()
        self._process = None

    def _ask(self, call: str, **arguments: Any) -> Any:
        """Send a request to the process; raises BackendUnavailable or UnknownBackend if the backend cannot run here."""
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
        if self._stopped:  # stop() came before the process started
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
            return RequestFailed(f"raised {message}")
        self._lost += 1
        self.end()
        return WorkerLost(f"{'hung' if failure.reason == 'timeout' else 'crashed'}: {message}")

    def _refusal(self, message: str) -> RnnbenchError:
        kind, _, text = message.partition(": ")
        known = {error.__name__: error for error in (BackendBroken, BackendUnavailable, UnknownBackend)}
        return known[kind](text) if kind in known else BackendUnavailable(f"{self._name} cannot run here: it raised {message}")


def subject(backend: Any, time_limit: float = TIME_LIMIT, env: Iterable[str] = ()) -> Subject:
    """Return the subject of a backend: in a child process for a name or a .py file, in this process for an object."""
    return Subprocess(backend, time_limit, env) if isinstance(backend, str) else InProcess(backend)


def _call_finding(failed: RequestFailed, promise: str | None = None) -> Finding:
    return Finding(WHOLE, None, 0.0, str(failed), promise)
