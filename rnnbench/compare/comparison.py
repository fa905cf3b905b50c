"""Compare two results files, or two names within one, case by case.

Within one run, both sides are measured in the same rounds, a sample of each in turn, and the ratio of each round counts.
Rounds of two runs have no partners: every round of one run is set against every round of the other.  What a whole run shares,
such as the state of the machine that day, then shifts the ratio and is not covered by its interval.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rnnbench.compare import inference, verdicts
from rnnbench.compare.inference import Evidence
from rnnbench.errors import ArgumentError
from rnnbench.results import valid
from rnnbench.results.reader import Contents
from rnnbench.results.rows import Failure, Gate, Run
from rnnbench.suite.case import Case

MACHINE = ("machine", "cpu", "architecture", "cores", "affinity", "os", "python", "implementation")
"""Facts of the environment that must be equal, besides the versions of packages."""

Noise = Mapping[tuple[Case, str], float]
"""The A/A noise by case and backend: the 99th percentile of the log-ratio of a backend to itself."""

MAX_MESSAGE = 100
"""Longest part of a failure's message that is shown, in characters."""


class Times(NamedTuple):
    """The times of a results file: samples in seconds per call, by case and backend, then by round.

    ``failed``: why the times of a backend on a case do not count.  ``problems``: a sentence for each unusable line.
    """

    path: Path
    run: Run
    samples: dict[tuple[Case, str], dict[int, list[float]]]
    failed: dict[tuple[Case, str], str]
    problems: list[str]

    def seconds(self, case: Case, backend: str) -> dict[int, float]:
        """Return the median of each round's samples, in seconds per call."""
        return {number: float(np.median(samples)) for number, samples in self.samples[case, backend].items()}


class Comparison(NamedTuple):
    """One comparison of ``other`` with ``backend``; ratios of times above 1 mean that ``other`` is slower.

    ``coverage``: the exact coverage of the interval.  ``rounds``: the number of rounds of each side.  ``threshold``: the
    ratio beyond which a difference counts.  ``p``: the adjusted p-value of the likelier claim, slower or faster.
    """

    case: Case
    backend: str
    other: str
    ratio: float
    low: float
    high: float
    coverage: float
    rounds: tuple[int, int]
    threshold: float
    p: float
    verdict: str


class Comparisons(NamedTuple):
    """All rows, regressions first; a sentence for what could not be compared, and for each case that failed only in b."""

    rows: list[Comparison]
    left_out: list[str]
    newly_failed: list[str]

    def counts(self) -> dict[str, int]:
        found = Counter(row.verdict for row in self.rows)
        return {name: found[name] for name in verdicts.CHANGES}


class _Pair(NamedTuple):
    case: Case
    backend: str
    other: str
    a: dict[int, list[float]]
    b: dict[int, list[float]]
    threshold: float


def times(contents: Contents) -> Times:
    """Return the times of a results file, without those of a backend on a case where it failed, memory aside."""
    failed = {(row.case, row.backend): "wrong" for row in contents.rows if isinstance(row, Gate) and not row.passed}
    for row in contents.rows:
        if isinstance(row, Failure) and row.stage != "memory":
            message = " ".join(row.message.split())
            excerpt = message[:MAX_MESSAGE] + "…" * (len(message) > MAX_MESSAGE)
            failed.setdefault((row.case, row.backend), f"{row.reason} ({excerpt})")
    samples = {key: {number: row.samples for number, row in rounds.items()} for key, rounds in valid.times(contents).items()}
    return Times(contents.path, contents.run, samples, failed, [*contents.problems, *valid.invalid_times(contents)])


def compare_runs(a: Times, b: Times, noise: Noise | None = None, *, different_machines: bool = False) -> Comparisons:
    """Compare run b with run a on what both have timed; raises ArgumentError if they cannot be compared."""
    common = [key for key in a.samples if key in b.samples]
    for name in ("input", "text_file"):
        if a.run.settings.get(name) != b.run.settings.get(name):
            one, other = a.run.settings.get(name), b.run.settings.get(name)
            raise ArgumentError(f"A was run with {name} {one!r} and B with {other!r}; expected the same")
    differing = list(_differing(a.run, b.run, {backend for _, backend in common}))
    if differing and not different_machines:
        raise ArgumentError(
            f"A and B were not measured alike: {'; '.join(differing)}; --different-machines compares them anyway"
        )
    if not common:
        raise ArgumentError(f"{a.path.name} and {b.path.name} have no times of one case and backend in common")
    pairs = [
        _Pair(case, backend, backend, a.samples[case, backend], b.samples[case, backend], _threshold(noise, case, backend))
        for case, backend in common
    ]
    left_out, newly_failed = [], []
    for (case, backend), reason in {**a.failed, **b.failed}.items():
        where = [name for name, one in (("A", a), ("B", b)) if (case, backend) in one.failed]
        sentence = f"{case.label()}, {backend}: {reason} in {' and '.join(where)}"
        (newly_failed if where == ["B"] and (case, backend) in a.samples else left_out).append(sentence)
    for name, one, other in (("A", a, b), ("B", b, a)):
        alone = [key for key in one.samples if key not in other.samples and key not in other.failed]
        if alone:
            left_out.append(f"only in {name}: {_listed(alone)}")
    return Comparisons(_with_verdicts(pairs, _unpaired), left_out, newly_failed)


def compare_backends(run: Times, x: str, y: str, noise: Noise | None = None) -> Comparisons:
    """Compare backend y with x within one run, round by round; raises ArgumentError if they cannot be compared."""
    known = dict.fromkeys(backend for _, backend in [*run.samples, *run.failed])
    for name in (x, y):
        if name not in known:
            raise ArgumentError(f"backend {name!r} is not in {run.path.name}; expected two of {', '.join(known)}")
    if x == y:
        raise ArgumentError(f"the backends are both {x!r}; expected two")
    cases = list(dict.fromkeys(case for case, backend in [*run.samples, *run.failed] if backend in (x, y)))
    own = [run.run.backends.get(name, {}).get("runs", name) for name in (x, y)]
    found = [
        _Pair(case, x, y, run.samples.get((case, x), {}), run.samples.get((case, y), {}), _threshold(noise, case, *own))
        for case in cases
    ]
    pairs = [pair for pair in found if pair.a.keys() & pair.b.keys()]
    if not pairs:
        why = "".join(f"; {backend}: {reason}" for (_, backend), reason in list(run.failed.items())[:1])
        raise ArgumentError(f"{x} and {y} were never timed in one round of one case in {run.path.name}{why}")
    left_out, newly_failed = [], []
    for case in cases:
        reasons = {name: run.failed[case, name] for name in (x, y) if (case, name) in run.failed}
        if reasons:
            sentence = f"{case.label()}: " + ", ".join(f"{name} {reason}" for name, reason in reasons.items())
            (newly_failed if list(reasons) == [y] else left_out).append(sentence)
    return Comparisons(_with_verdicts(pairs, _paired), left_out, newly_failed)


def too_few_rounds(rows: list[Comparison]) -> str | None:
    """Return a sentence if some rows have too few rounds for 95% intervals."""
    short = [row for row in rows if row.coverage < inference.CONFIDENCE]
    if not short:
        return None
    worst = min(short, key=lambda row: row.coverage)
    return (
        f"{len(short)} of {len(rows)} intervals have too few rounds to hold the ratio with 95%: the least is "
        f"{worst.coverage:.1%}, of {min(worst.rounds)} rounds; expected {inference.MIN_ROUNDS} or more"
    )


def aa_noise(run: Times) -> Noise:
    """Return the A/A noise from a file of ``rnnbench self-test aa``; raises ArgumentError if the file has none."""
    twins = [
        (facts["runs"], name)
        for name, facts in run.run.backends.items()
        if facts.get("runs") in run.run.backends and not facts.get("slowed_by_percent")
    ]
    found = {}
    for backend, twin in twins:
        for case in run.run.cases:
            ratios = inference.log_ratios(run.samples.get((case, backend), {}), run.samples.get((case, twin), {}))
            if len(ratios):
                found[case, backend] = inference.aa_p99(ratios)
    if not found:
        raise ArgumentError(f"{run.path.name} compares no backend with itself; expected a file of rnnbench self-test aa")
    return found


def _threshold(noise: Noise | None, case: Case, *backends: str) -> float:
    return inference.threshold(max((noise or {}).get((case, backend), 0.0) for backend in backends))


def _paired(pair: _Pair, confidence: float) -> tuple[Evidence, tuple[int, int]]:
    ratios = inference.log_ratios(pair.a, pair.b)
    return inference.paired(ratios, pair.threshold, confidence), (len(ratios), len(ratios))


def _unpaired(pair: _Pair, confidence: float) -> tuple[Evidence, tuple[int, int]]:
    a, b = (np.log([np.median(samples) for samples in one.values()]) for one in (pair.a, pair.b))
    return inference.unpaired(a, b, pair.threshold, confidence), (len(a), len(b))


def _with_verdicts(
    pairs: list[_Pair], evidence_of: Callable[[_Pair, float], tuple[Evidence, tuple[int, int]]]
) -> list[Comparison]:
    """Make a row of each pair, with confidence shared by a case's backends and p-values adjusted over a backend's cases."""
    in_case = Counter(pair.case for pair in pairs)
    weighed = [evidence_of(pair, inference.shared_confidence(in_case[pair.case])) for pair in pairs]
    slower, faster = np.ones(len(pairs)), np.ones(len(pairs))
    for backend in dict.fromkeys(pair.backend for pair in pairs):
        rows_of = [row for row, pair in enumerate(pairs) if pair.backend == backend]
        counts = [in_case[pairs[row].case] for row in rows_of]
        slower[rows_of] = inference.adjusted_p_values([weighed[row][0].slower for row in rows_of], counts)
        faster[rows_of] = inference.adjusted_p_values([weighed[row][0].faster for row in rows_of], counts)
    rows = []
    for pair, (evidence, rounds), p_slower, p_faster in zip(pairs, weighed, slower, faster, strict=True):
        interval = evidence.interval
        ratio, low, high = (math.exp(value) for value in interval[:3])
        verdict = verdicts.change(interval, pair.threshold, p_slower, p_faster)
        p = float(min(p_slower, p_faster))
        name = (pair.case, pair.backend, pair.other)
        rows.append(Comparison(*name, ratio, low, high, interval.coverage, rounds, math.exp(pair.threshold), p, verdict))
    return sorted(rows, key=lambda row: (verdicts.CHANGES.index(row.verdict), -abs(math.log(row.ratio))))


def _differing(a: Run, b: Run, backends: set[str]) -> Iterator[str]:
    """Yield a clause for each differing fact about machine, packages other than rnnbench, and backends."""
    one, other = (facts_of(run, backends) for run in (a, b))
    for name in one | other:
        if one.get(name) != other.get(name):
            yield f"{name} is {one.get(name)!r} in A and {other.get(name)!r} in B"


def facts_of(run: Run, backends: set[str]) -> dict[str, Any]:
    """Return the facts that comparable runs share: machine, packages other than rnnbench, and facts of the backends."""
    versions = {name: value for name, value in run.environment.get("versions", {}).items() if name != "rnnbench"}
    facts = {name: run.environment.get(name) for name in MACHINE} | versions
    for backend in sorted(backends):
        facts |= {f"{backend}'s {name}": value for name, value in run.backends.get(backend, {}).items() if name not in versions}
    return facts


def _listed(keys: list[tuple[Case, str]]) -> str:
    backends = Counter(backend for _, backend in keys)
    return ", ".join(f"{number} case{'' if number == 1 else 's'} of {backend}" for backend, number in backends.items())
