"""The tests of one backend, run in the caller's process or in a worker (``rnnbench.check.worker``)."""

from pathlib import Path
from typing import Any

from rnnbench.check.comparing import Finding, gate
from rnnbench.check.expected_files import load_expected, save_expected
from rnnbench.check.problem import Problem
from rnnbench.check.promises import PROMISES
from rnnbench.check.tolerance import Expected, expected
from rnnbench.networks.contract import told
from rnnbench.suite.case import refusal


class Examiner:
    """The tests of one backend; each public method serves the request of its name.  Exceptions of the backend pass through."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._read: tuple[str, Expected] | None = None

    def info(self) -> dict[str, Any]:
        return told(self._backend)

    def supports(self, problem: Problem) -> str | None:
        return refusal(self._backend, problem.case)

    def examine(self, problem: Problem, reference: str, promise: str | None) -> list[Finding]:
        """Compare one call with the expected results in the file ``reference``, or test a promise."""
        wanted = self._expected(reference)
        if promise is None:
            return gate(self._backend, problem, wanted)
        findings = PROMISES[promise].examine(self._backend, problem, wanted)
        return [finding._replace(promise=promise) for finding in findings]

    def explain(self, problem: Problem, reference: str, findings: list[Finding]) -> list[Finding]:
        """Add a diagnosis to failing findings, where there is one."""
        from rnnbench.check.diagnosis import explained

        return explained(self._backend, problem, self._expected(reference), findings)

    def smallest(self, problem: Problem) -> Any:
        """Return the smallest problem with wrong results, as ``rnnbench.check.shrinking.Smallest``, or None."""
        from rnnbench.check.shrinking import smallest

        return smallest(self._backend, problem)

    def expect(self, problem: Problem, reference: str) -> None:
        """Compute the expected results of a problem and write them to the file ``reference``."""
        save_expected(Path(reference), expected(problem))

    def _expected(self, reference: str) -> Expected:
        if self._read is None or self._read[0] != reference:
            self._read = (reference, load_expected(Path(reference)))
        return self._read[1]
