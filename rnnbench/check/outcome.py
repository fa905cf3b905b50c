"""The outcome of one trial on one backend."""

from dataclasses import dataclass, field

from rnnbench.check.comparing import Finding
from rnnbench.check.levels import Trial
from rnnbench.check.problem import Problem

WHOLE = "the call"
"""Tensor name of findings about a whole call: an exception, a crash or a hang."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of one trial on one backend: its findings, worst first, or the reason why it was skipped."""

    trial: Trial
    findings: list[Finding] = field(default_factory=list)
    skipped: str | None = None

    @property
    def problem(self) -> Problem:
        return self.trial.problem

    @property
    def passed(self) -> bool:
        return all(finding.passed for finding in self.findings)

    @property
    def numbers_right(self) -> bool:
        """Whether the comparison with the reference passed, regardless of promises."""
        return all(finding.passed for finding in self.of(None))

    @property
    def worst(self) -> Finding | None:
        return self.findings[0] if self.findings else None

    def of(self, promise: str | None) -> list[Finding]:
        """The findings of a promise, or of the comparison with the reference for None."""
        return [finding for finding in self.findings if finding.promise == promise]
