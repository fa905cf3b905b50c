"""The report of a conformance run on one backend, as text and as JSON."""

import math
import platform
import textwrap
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec
import numpy as np

import rnnbench
from rnnbench.check.comparing import Finding
from rnnbench.check.outcome import WHOLE, Outcome
from rnnbench.check.problem import Problem
from rnnbench.check.promises import PROMISES
from rnnbench.check.refusals import refused
from rnnbench.check.shrinking import Smallest
from rnnbench.check.snippet import failure_text
from rnnbench.suite.case import Case

SHOWN = 5
"""Maximum number of reasons shown for calls that failed as a whole."""

WIDTH = 120
"""Maximum line length, in columns."""

PAGE = "docs/contract.md"
"""Page that documents every promise."""


class Worst(NamedTuple):
    """The finding with the largest ratio of error to tolerance, with its backend and problem."""

    backend: str
    problem: Problem
    finding: Finding


@dataclass
class Report:
    """All outcomes of one backend, with two verdicts: one on its results, one on its promises about calls.

    ``name``: the backend as the user named it.  ``loading``: the Python expression that loads it.  ``refusals``: its reasons
    for each unsupported problem.  ``smallest``: the smallest problem that reproduces the first failure with wrong results.
    """

    name: str
    outcomes: list[Outcome] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    loading: str = "..."
    refusals: dict[Problem, str] = field(default_factory=dict)
    smallest: Smallest | None = None

    @property
    def passed(self) -> bool:
        """Whether at least one trial ran and none failed."""
        return bool(self.ran) and not self.failures

    @property
    def ran(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.skipped is None]

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.passed]

    @property
    def numbers_right(self) -> bool:
        """Whether at least one trial ran, and every output and gradient of every trial was within its tolerance."""
        return bool(self.ran) and all(outcome.numbers_right for outcome in self.ran)

    @property
    def broken(self) -> dict[str, Outcome]:
        """The broken promises, each with the first trial that shows it.

        Trials with wrong results are ignored: they break most promises by themselves.
        """
        found: dict[str, Outcome] = {}
        for outcome in self.ran:
            if outcome.numbers_right:
                wrong = (finding.promise for finding in outcome.findings if not finding.passed and finding.promise)
                found |= {name: outcome for name in wrong if name not in found}
        return {name: found[name] for name in PROMISES if name in found}

    @property
    def examined(self) -> list[str]:
        """The promises with at least one finding."""
        known = {finding.promise for outcome in self.ran for finding in outcome.findings}
        return [name for name in PROMISES if name in known]

    @property
    def judged(self) -> list[str]:
        """The promises with at least one finding in a trial with correct results."""
        known = {finding.promise for outcome in self.ran if outcome.numbers_right for finding in outcome.findings}
        return [name for name in PROMISES if name in known]

    @property
    def not_examined(self) -> list[str]:
        return [name for name in PROMISES if name not in self.examined]

    def table(self, known_unexamined: Iterable[str] = ()) -> str:
        """Format the two verdicts with their evidence, the promises not tested, the unsupported cases and the first failure.

        Promises in ``known_unexamined`` are left out.
        """
        lines = [f"{self.name}: {self._verdict()}", *self._numbers(), *self._calls()]
        left = [name for name in self.not_examined if name not in set(known_unexamined)]
        if left and self.ran:
            lines += _paragraph("not tested", ", ".join(left))
        for place, line in enumerate(refused(self.refusals, [outcome.problem for outcome in self.ran])):
            lines += _paragraph("" if place else "not supported", line)
        if self.failures:
            lines += ["", self.first_failure()]
        return "\n".join(lines)

    @property
    def first(self) -> Outcome:
        """The first trial with wrong results, or else the first that breaks a promise."""
        return min(self.failures, key=lambda outcome: outcome.numbers_right)

    def first_failure(self) -> str:
        """Describe the first failing trial, the smallest problem that still fails, and Python code that reproduces it."""
        return f"first failure of {self.name}: {failure_text(self.first, self.loading, self.smallest)}"

    def to_json(self) -> dict[str, Any]:
        """Return the whole report as JSON types; infinite ratios become None."""
        return {
            "name": self.name,
            "info": self.info,
            "passed": self.passed,
            "numbers_right": self.numbers_right,
            "promises": {
                "examined": self.examined,
                "judged": self.judged,
                "broken": list(self.broken),
                "not_examined": self.not_examined,
            },
            "totals": dict(totals([self])),
            "smallest": self.smallest and _smallest_json(self.smallest),
            "trials": [_outcome_json(outcome) for outcome in self.outcomes],
        }

    def _verdict(self) -> str:
        if not self.ran:
            return "nothing was tested: no problem is supported"
        if not self.numbers_right:
            return "WRONG results"
        if self.broken:
            return "correct results, but broken promises"
        return "passed" if self.examined else "correct results; no promises were tested"

    def _numbers(self) -> list[str]:
        """The verdict on outputs and gradients, and a table of the largest error by cell and dtype."""
        if not self.ran:
            return []
        wrong = [outcome for outcome in self.ran if not outcome.numbers_right]
        numbers = [(f, o) for o in self.ran for f in o.of(None) if f.error is not None and math.isfinite(f.ratio)]
        largest = max(numbers, key=lambda pair: pair[0].ratio, default=None)
        ran = _problems(len(self.ran))
        verdict = f"WRONG in {len(wrong)} of {ran}" if wrong else f"correct in {ran}"
        if largest:
            finding, outcome = largest
            place = f"{finding.tensor}, {outcome.problem.case.label()}"
            verdict += f"; largest error / tolerance: {_number(finding.ratio)} ({place})"
        lines = _paragraph("outputs, gradients", verdict)
        broken = Counter(f.reason for outcome in wrong for f in outcome.of(None) if f.tensor == WHOLE)
        for reason, count in broken.most_common(SHOWN):
            lines += _paragraph("", f"in {_problems(count)}: {_one_line(reason)}")
        return lines + self._grid()

    def _grid(self) -> list[str]:
        """A table of the largest error / tolerance: a line per cell, a column per dtype."""
        cells = _grouped((_network(outcome.problem.case), outcome) for outcome in self.ran)
        dtypes = list(dict.fromkeys(dtype for _, dtype in cells))
        lines = [f"    {'error / tolerance':<20}" + "".join(f"{dtype:>16}" for dtype in dtypes)]
        for cell in dict.fromkeys(cell for cell, _ in cells):
            entries = (_entry(cells.get((cell, dtype), [])) for dtype in dtypes)
            lines.append(f"    {cell:<20}" + "".join(f"{entry:>16}" for entry in entries))
        return lines

    def _calls(self) -> list[str]:
        """The verdict on promises; for each broken one its text, a finding that shows it and the fix."""
        broken, judged = self.broken, self.judged
        if not self.examined:
            return []
        if not judged:
            return _paragraph("promises", "unknown: the results are wrong in every problem that tests one")
        verdict = f"BROKEN: {len(broken)} of {len(judged)}" if broken else f"all {len(judged)} kept"
        lines = _paragraph("promises", verdict)
        for name, outcome in broken.items():
            promise, finding = PROMISES[name], next(f for f in outcome.of(name) if not f.passed)
            lines += [
                "",
                *_wrapped(f"{name}: {promise.says}", 4),
                *_wrapped(f"{_without_promise(finding)} ({outcome.problem.case.label()})", 6),
                *_wrapped(f"To fix it: {promise.fix}", 6),
                f"      {PAGE}#{anchor(name)}",
            ]
        return [*lines, ""] if broken else lines


def anchor(promise: str) -> str:
    """The anchor of a promise's section in docs/contract.md."""
    return promise.lower().replace(" ", "-")


def totals(reports: Iterable[Report]) -> Counter[str]:
    """Count the trials that passed, failed and were skipped."""
    counts: Counter[str] = Counter()
    for report in reports:
        for outcome in report.outcomes:
            counts["skipped" if outcome.skipped else "passed" if outcome.passed else "failed"] += 1
    return counts


def worst(reports: Iterable[Report]) -> Worst | None:
    """The finding with the largest finite ratio: the remaining margin of a run without failures."""
    found = (Worst(r.name, outcome.problem, finding) for r in reports for outcome in r.outcomes for finding in outcome.findings)
    return max((w for w in found if math.isfinite(w.finding.ratio)), key=lambda w: w.finding.ratio, default=None)


def text(reports: Sequence[Report], seconds: float) -> str:
    """Format all reports, the promises that none of them tested, and the number of failed problems."""
    counts = totals(reports)
    everywhere = [name for name in PROMISES if reports and all(name in report.not_examined for report in reports)]
    lines = [report.table(everywhere) for report in reports]
    if everywhere and counts["passed"]:
        named = ", ".join(everywhere) if len(everywhere) < len(PROMISES) else f"the {len(PROMISES)} promises about calls"
        lines += _wrapped(f"not tested: {named}", 0)
    ran = counts["passed"] + counts["failed"]
    failed = f"{counts['failed']} of them failed" if counts["failed"] else "none failed"
    lines.append(f"{_problems(ran)} tested, {failed}, in {seconds:.0f} s")
    return "\n".join(lines)


def json_document(reports: Sequence[Report], asked: Mapping[str, Any], seconds: float) -> str:
    """Format all reports, the request and the versions in use as a JSON document."""
    largest, counts = worst(reports), totals(reports)
    document = {
        "rnnbench": rnnbench.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        **asked,
        "seconds": round(seconds, 3),
        "passed": bool(reports) and all(report.passed for report in reports),
        "totals": {name: counts[name] for name in ("passed", "failed", "skipped")},
        "worst": largest
        and {
            "backend": largest.backend,
            "problem": msgspec.to_builtins(largest.problem),
            "finding": finding_json(largest.finding),
        },
        "reports": [report.to_json() for report in reports],
    }
    return msgspec.json.format(msgspec.json.encode(document, enc_hook=str), indent=1).decode()


def _network(case: Case) -> tuple[str, str]:
    return (case.cell if case.nonlinearity == "tanh" else f"{case.cell} {case.nonlinearity}", case.dtype)


def _grouped(pairs: Iterable[tuple[Any, Outcome]]) -> Mapping[Any, list[Outcome]]:
    groups: dict[Any, list[Outcome]] = {}
    for key, outcome in pairs:
        groups.setdefault(key, []).append(outcome)
    return groups


def _entry(outcomes: list[Outcome]) -> str:
    """The table entry of one cell and dtype."""
    if not outcomes:
        return "-"
    ratios = [f.ratio for o in outcomes for f in o.of(None) if f.error is not None]
    largest = _number(max(ratios)) if ratios else ""
    return largest if all(outcome.numbers_right for outcome in outcomes) else f"WRONG {largest}".rstrip()


def _without_promise(finding: Finding) -> str:
    return str(finding._replace(promise=None))


def _paragraph(title: str, body: str) -> list[str]:
    """A title column and the body beside it, wrapped."""
    lines = _wrapped(body, 22)
    return [f"  {title:<18}  {lines[0].lstrip()}", *lines[1:]]


def _wrapped(body: str, indent: int) -> list[str]:
    return textwrap.wrap(
        body, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )


def _problems(count: int) -> str:
    return f"{count} problem" + "s" * (count != 1)


def _one_line(reason: str | None) -> str:
    return " ".join(str(reason).split())[:100]


def _number(ratio: float) -> str:
    return f"{ratio:.3g}"


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "problem": msgspec.to_builtins(outcome.problem),
        "promises": list(outcome.trial.promises),
        "passed": outcome.skipped is None and outcome.passed,
        "skipped": outcome.skipped,
        "findings": [finding_json(finding) for finding in outcome.findings],
    }


def _smallest_json(smallest: Smallest) -> dict[str, Any]:
    return {
        "problem": msgspec.to_builtins(smallest.problem),
        "findings": [finding_json(finding) for finding in smallest.findings],
        "where": smallest.where,
    }


def finding_json(finding: Finding) -> dict[str, Any]:
    ratio = finding.ratio if math.isfinite(finding.ratio) else None
    return {**finding._asdict(), "ratio": ratio, "passed": finding.passed}
