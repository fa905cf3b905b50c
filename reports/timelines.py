"""Timelines: the time of one backend on one case over the measured commits, one point per run.

Runs on a different processor, or with a different input, form separate timelines.
"""

import math
import re
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from rnnbench.compare.comparison import Times, facts_of, times
from rnnbench.compare.intervals import median_interval
from rnnbench.errors import ArgumentError
from rnnbench.reports.steps import MIN_POINTS, Step, find_steps, require_ruptures
from rnnbench.reports.text import count
from rnnbench.results.reader import read
from rnnbench.suite.case import Case

PROCESSOR = ("machine", "cpu", "architecture", "cores")
"""Facts that separate timelines.  Other facts, such as versions, may change within one and are reported at its steps."""

WORK = ("input", "text_file")
"""Settings that change what a run measures."""

HOW_MUCH = ("rounds", "most_rounds", "time_limit")
"""Settings that change how much a run measures, but not what a round measures."""

_HASH = re.compile(r"[0-9a-f]{7,64}")


class Place(NamedTuple):
    """One run of one commit: a position on the timelines."""

    times: Times
    commit: str
    dirty: bool

    @property
    def named(self) -> bool:
        """Whether the commit is a hash rather than other text."""
        return _HASH.fullmatch(self.commit) is not None

    @property
    def code(self) -> str:
        """A short name of the commit."""
        return f"{self.commit[:10]}{' with changes' if self.dirty else ''}"


class Point(NamedTuple):
    """Median time of a run in seconds per call, with the interval over its rounds; ``place`` is an index into the runs."""

    place: int
    seconds: float
    low: float
    high: float


class Timeline(NamedTuple):
    """The points of a case and backend, in order.

    ``series``: index of machine and input.  The ``place`` of a step is that of the first point after it.
    """

    series: int
    case: Case
    backend: str
    points: list[Point]
    steps: list[Step]
    failed: dict[int, str]

    @property
    def judged(self) -> bool:
        """Whether it has enough points for a step to be found."""
        return len(self.points) >= MIN_POINTS


class History(NamedTuple):
    """All timelines, largest steps first.

    ``places``: the runs in order.  ``series``: names of the separate machines and inputs.  ``subjects``: subject lines of
    commits found in the local repository.  ``by_commit``: whether runs follow the order of its commits, or else their dates.
    """

    places: list[Place]
    series: list[str]
    timelines: list[Timeline]
    subjects: dict[str, str]
    by_commit: bool
    left_out: list[str]


def history(files: Sequence[Path]) -> History:
    """Read results files of at least two commits; raises StoreError, ArgumentError and MissingLibrary."""
    require_ruptures()
    places, left_out = _places([times(read(file)) for file in files])
    commits = list(dict.fromkeys(place.commit for place in places))
    if len(commits) < 2:
        what = f"all of commit {commits[0][:10]}" if commits else "none of them of a known commit"
        raise ArgumentError(f"{count(len(files), 'results file')} given, {what}; expected runs of two commits or more")
    subjects = commit_subjects(commits)
    by_commit = len(subjects) == len(commits)
    order = {commit: number for number, commit in enumerate(subjects)} if by_commit else {}
    places.sort(key=lambda place: (order.get(place.commit, 0), place.times.run.started, place.times.run.run))
    found: dict[tuple[int, Case, str], tuple[list[Point], dict[int, str]]] = {}
    series: dict[tuple, int] = {}
    for number, place in enumerate(places):
        which = series.setdefault(_series(place), len(series))
        for case, backend in place.times.samples:
            middle, low, high, _ = median_interval(list(place.times.seconds(case, backend).values()))
            found.setdefault((which, case, backend), ([], {}))[0].append(Point(number, middle, low, high))
        for (case, backend), reason in place.times.failed.items():
            found.setdefault((which, case, backend), ([], {}))[1][number] = reason
    timelines = [Timeline(*key, points, _steps(points), failed) for key, (points, failed) in found.items() if points]
    if not timelines:
        raise ArgumentError(f"{count(len(files), 'results file')} given, none with a time that counts")
    timelines.sort(key=lambda one: -max((abs(math.log(step.ratio)) for step in one.steps), default=0.0))
    return History(places, _series_names(list(series)), timelines, subjects, by_commit, left_out)


def changes(before: Place, after: Place) -> list[str]:
    """A clause for every fact, other than rnnbench's own code, that differs between two runs."""
    common = {name for _, name in before.times.samples} & {name for _, name in after.times.samples}
    one, other = (
        facts_of(place.times.run, common)
        | {f"setting {name}": value for name, value in place.times.run.settings.items() if name not in HOW_MUCH}
        for place in (before, after)
    )
    return [
        f"{name} from {one.get(name, 'none')} to {other.get(name, 'none')}"
        for name in one | other
        if one.get(name) != other.get(name)
    ]


def commits_between(before: str, after: str) -> int | None:
    """Number of commits after one and up to the other in the local git checkout; None where it lacks either."""
    if not (_HASH.fullmatch(before) and _HASH.fullmatch(after)):
        return None
    output = _git("rev-list", "--count", f"{before}..{after}", "--")
    return None if output is None else int(output)


def commit_subjects(commits: Iterable[str]) -> dict[str, str]:
    """Subject line of each commit that the local git checkout has, oldest commit first."""
    known = [commit for commit in commits if _HASH.fullmatch(commit)]
    if not known:
        return {}
    output = _git("log", "--ignore-missing", "--topo-order", "--reverse", "--format=%H %s", *known, "--")
    lines = (line.partition(" ") for line in (output or "").splitlines())
    return {commit: subject for commit, _, subject in lines if commit in known}


def _git(*arguments: str) -> str | None:
    """Output of git; None without git, without a repository in this folder, or where git fails."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, check=True).stdout.decode(errors="replace")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return None


def _places(files: Iterable[Times]) -> tuple[list[Place], list[str]]:
    """Every run by commit; a run that measured several commits appears once for each."""
    places, left_out = [], []
    for one in files:
        by_code: dict[tuple[str | None, bool], list[tuple[str, str]]] = {}
        for name, facts in one.run.backends.items():
            if "runs" in facts and "commit" not in facts:
                left_out.append(f"{one.path.name}: {name}, a second measurement of {facts['runs']}")
            elif "runs" in facts:
                by_code.setdefault((facts["commit"], False), []).append((name, facts["runs"]))
            else:
                code = one.run.environment.get("commit"), bool(one.run.environment.get("dirty"))
                by_code.setdefault(code, []).append((name, name))
        for (commit, dirty), names in by_code.items():
            if commit is None:
                left_out.append(f"{one.path.name}: the commit of its code is unknown")
            else:
                places.append(Place(_renamed(one, dict(names)), commit, dirty))
    return places, left_out


def _renamed(one: Times, names: dict[str, str]) -> Times:
    """The times of some backends, under new names."""

    def kept(values: dict[tuple[Case, str], Any]) -> dict[tuple[Case, str], Any]:
        return {(case, names[backend]): value for (case, backend), value in values.items() if backend in names}

    own = {names[name]: facts for name, facts in one.run.backends.items() if name in names}
    run = msgspec.structs.replace(one.run, backends=own)
    return one._replace(run=run, samples=kept(one.samples), failed=kept(one.failed))


def _steps(points: list[Point]) -> list[Step]:
    return [step._replace(place=points[step.place].place) for step in find_steps([point.seconds for point in points])]


def _series(place: Place) -> tuple:
    run = place.times.run
    return (*(run.environment.get(name) for name in PROCESSOR), *(run.settings.get(name) for name in WORK))


def _series_names(series: list[tuple]) -> list[str]:
    """The machine of each series, with whatever else distinguishes it from other series of that machine."""
    names = []
    for one in series:
        twins = [other for other in series if other[0] == one[0]]
        parts = [str(one[0] or "unnamed machine")]
        for place, name in enumerate((*PROCESSOR, *WORK)):
            if len({other[place] for other in twins}) > 1:
                parts.append(f"{name} {one[place]}")
        names.append(", ".join(parts))
    return names
