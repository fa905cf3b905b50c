"""What examines one backend: in the caller's process, or in one of its own (``rnnbench.check.worker``)."""

from pathlib import Path
from typing import Any

from rnnbench.check.comparing import Finding, gate
from rnnbench.check.expected_files import load_expected, save_expected
from rnnbench.check.problem import Problem
from rnnbench.check.promises import PROMISES
from rnnbench.check.tolerance import Expected, expected
from rnnbench.networks.contract import told, unsupported


class Examiner:
    """One backend; each public method answers the request of its name.  What the backend raises passes through."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._read: tuple[str, Expected] | None = None

    def info(self) -> dict[str, Any]:
        return told(self._backend)

    def supports(self, problem: Problem) -> str | None:
        return unsupported(self._backend, problem.case.spec(), problem.case.phase)

    def examine(self, problem: Problem, reference: str, promise: str | None) -> list[Finding]:
        """Compare one call with the reference in a file, or examine a promise."""
        wanted = self._expected(reference)
        if promise is None:
            return gate(self._backend, problem, wanted)
        findings = PROMISES[promise].examine(self._backend, problem, wanted)
        return [finding._replace(promise=promise) for finding in findings]

    def explain(self, problem: Problem, reference: str, findings: list[Finding]) -> list[Finding]:
        """The findings, all of them failing, with what is known to explain them."""
        from rnnbench.check.diagnosis import explained

        return explained(self._backend, problem, self._expected(reference), findings)

    def smallest(self, problem: Problem) -> Any:
        """The smallest problem on which numbers are still wrong, as ``rnnbench.check.shrinking.Smallest``, or None."""
        from rnnbench.check.shrinking import smallest

        return smallest(self._backend, problem)

    def expect(self, problem: Problem, reference: str) -> None:
        """Write what is expected of a problem to a file."""
        save_expected(Path(reference), expected(problem))

    def _expected(self, reference: str) -> Expected:
        if self._read is None or self._read[0] != reference:
            self._read = (reference, load_expected(Path(reference)))
        return self._read[1]
